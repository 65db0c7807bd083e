"""Pages in HTML that stand alone: one file each, which needs no other file, no network and (but for sorting) no script.

Whatever a template shows goes through `visible`, and is escaped; a content security policy in every page forbids all
scripts but the page's own, so that a mistake in either does no harm.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from course_lib.grading.results import printable

_HERE = Path(__file__).parent


def visible(text: str) -> str:
    """`text` with nothing in it that acts rather than shows (see `printable`), and line feeds at the ends of lines."""
    return printable(text.replace("\r\n", "\n"))


def shortened(text: str, most: int = 2000) -> str:
    """`text` in not much more than `most` characters; it tells how many are left out."""
    left_out = len(text) - most
    return text if left_out <= 0 else f"{text[:most]} … ({left_out:,} more characters)"


def points(value: float) -> str:
    """Points as a reader expects them: at most two decimals, none where they are not needed."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A share from 0 to 1 in whole per cent."""
    return f"{100 * share:.0f} %"


def headline(name: str) -> str:
    """What a reader is shown for `01_pruning` or `why-not-faster`: Pruning, Why not faster."""
    words = re.sub(r"^\d+[_-]", "", name).replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:] if words else name


def render(template: str, **data: Any) -> str:
    """The page that `template`, a file beside this one, makes of `data`."""
    return _ENVIRONMENT.get_template(template).render(data)


def style() -> str:
    """The style of all pages."""
    return (_HERE / "style.css").read_text(encoding="utf-8")


def script() -> str:
    """What sorts and searches the table of students."""
    return (_HERE / "table.js").read_text(encoding="utf-8")


def script_hash() -> str:
    """By which a content security policy allows `script`, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()


def _finish(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("course_lib.grading", "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finish,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"points": points, "percent": percent, "headline": headline, "shortened": shortened}
_ENVIRONMENT.globals |= {"style": style, "script": script, "script_hash": script_hash}
