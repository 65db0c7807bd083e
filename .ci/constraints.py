"""Write constraints.txt: what this environment holds of the packages that the course needs, directly or not.

`make constraints` runs it in the environment that passed `make test`. Needs Python 3.11 or newer.
"""

import importlib.metadata
import sys
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = Version("3.10")
HEADER = """\
# The versions with which `make test` passed (Linux, Python {python}). Written by `make constraints`; do not edit.
# `pip install -e . -c constraints.txt` takes them. A package that only another system needs is not listed: pip chooses.
# Where a release has left Python 3.10, its line says so, and pip chooses an older one there.
"""


def closure(requirements: list[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that `requirements` need, directly or through others, by canonical name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = list(requirements)
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = found[key[0]] = importlib.metadata.distribution(requirement.name)
        for needed in map(Requirement, distribution.requires or []):
            extras = requirement.extras | {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)
    return found


def line(distribution: importlib.metadata.Distribution) -> str:
    """One exact version, with a marker where it does not support the oldest Python of the course."""
    pinned = f"{canonicalize_name(distribution.name)}=={Version(distribution.version).public}"
    supported = SpecifierSet(distribution.metadata["Requires-Python"] or "")
    lowest = max((Version(part.version) for part in supported if part.operator == ">="), default=OLDEST_PYTHON)
    if lowest <= OLDEST_PYTHON:
        return pinned
    variable = "python_version" if lowest.micro == 0 else "python_full_version"
    return f'{pinned} ; {variable} >= "{lowest}"'


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    roots = [*project["dependencies"], *extras["dev"], *extras["cluster"], *extras["peers"]]
    found = closure([Requirement(root) for root in roots])
    python = ".".join(map(str, sys.version_info[:2]))
    text = HEADER.format(python=python) + "".join(f"{line(found[name])}\n" for name in sorted(found))
    (ROOT / "constraints.txt").write_text(text)
    print(f"constraints.txt: {len(found)} packages")


if __name__ == "__main__":
    main()
