"""What a learner can touch: a box for a prediction, and figures with sliders."""

import base64
import html
import io
from collections.abc import Callable
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure


class Prediction:
    """A number that the learner states before it is measured. `value` is None until then; code can set it, too."""

    def __init__(self, question: str, unit: str) -> None:
        self.question = question
        self.unit = unit
        self.value: float | None = None
        self.measured: float | None = None
        self._box: Any = None

    def beside(self, measured: float) -> "Prediction":
        """Put the measured figure beside the prediction; returns the same object, which shows both."""
        self.measured = float(measured)
        return self

    def __str__(self) -> str:
        stated = "not stated" if self.value is None else f"{_readable(self.value)} {self.unit}"
        text = f"{self.question.rstrip(':')}{'' if self.question.endswith('?') else ':'} Prediction {stated}"
        if self.measured is None:
            return text
        text += f", measured {_readable(self.measured)} {self.unit}"
        return text if self.value is None else f"{text} ({_verdict(self.value, self.measured)})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": str(self), "text/html": f"<p>✎ {html.escape(str(self))}</p>"}
        if self.measured is None:
            bundle.update(_widget_part(self._widget()))
        return bundle

    def _widget(self) -> Any:
        if self._box is None:
            import ipywidgets

            entry = ipywidgets.Text(
                placeholder="a number, then Enter", continuous_update=False, layout={"width": "14em"}
            )
            answer = ipywidgets.Label(self.unit)

            def take(change: dict[str, Any]) -> None:
                try:
                    self.value = number(change["new"])
                    answer.value = self.unit if self.value is None else f"{self.unit}, noted: {_readable(self.value)}"
                except ValueError as error:
                    answer.value = str(error)

            entry.observe(take, names="value")
            self._box = ipywidgets.HBox([ipywidgets.Label(self.question), entry, answer])
        return self._box


def _verdict(stated: float, measured: float) -> str:
    if stated == measured:
        return "exactly right"
    if stated * measured <= 0:
        return f"off by {_readable(abs(stated - measured))}"
    factor = max(stated / measured, measured / stated)
    return "right within 10 %" if factor <= 1.1 else f"off by a factor of {factor:.3g}"


def _readable(value: float) -> str:
    """Whole numbers in full, with thousands apart; others with three digits that matter."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def number(text: str) -> float | None:
    """Read a number as people write it: 1e6, 1,000,000, 1_000_000 or 1 000 000. An empty text is None.

    Raises:
        ValueError: it is no number.
    """
    cleaned = text.strip().replace(",", "").replace("_", "").replace(" ", "")
    if not cleaned:
        return None
    try:
        return float(cleaned)
    except ValueError:
        raise ValueError(f"{text!r} is no number: write for example 1200000 or 1.2e6.") from None


def predict(question: str, unit: str) -> Prediction:
    """Ask for a number before it is measured.

    As the last line of a cell it shows a box; where no front end is attached, a line of text.
    """
    return Prediction(question, unit)


class Exploration:
    """A figure with sliders: a widget and, for readers without a front end, a picture at the starting values."""

    def __init__(self, draw: Callable[..., Figure], sliders: dict[str, tuple[float, float, float, float]]) -> None:
        self._draw = draw
        self._sliders = sliders
        self._view: Any = None
        self.start = {name: start for name, (_, _, _, start) in sliders.items()}

    def still(self, **values: float) -> bytes:
        """The picture at `values` (the starting values where none is given), a PNG."""
        figure = self._draw(**{**self.start, **values})
        plt.close(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100)
        return picture.getvalue()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        still = self.still()
        stated = ", ".join(f"{name} = {value:g}" for name, value in self.start.items())
        return {
            "image/png": base64.b64encode(still).decode(),
            "text/plain": f"Figure at {stated}",
            **_widget_part(self._widget(still)),
        }

    def _widget(self, still: bytes) -> Any:
        if self._view is None:
            import ipywidgets

            picture = ipywidgets.Image(value=still, format="png")
            controls = {name: _slider(ipywidgets, name, *limits) for name, limits in self._sliders.items()}

            def redraw(_: object) -> None:
                picture.value = self.still(**{name: control.value for name, control in controls.items()})

            for control in controls.values():
                control.observe(redraw, names="value")
            self._view = ipywidgets.VBox([*controls.values(), picture])
        return self._view


def explore(draw: Callable[..., Figure], **sliders: tuple[float, float, float, float]) -> Exploration:
    """Make a figure that changes with sliders; as the last line of a cell it shows them.

    Args:
        draw: called with one number for each slider, by name; returns a figure.
        sliders: (low, high, step, start) of each; ints give a slider of ints.

    Raises:
        ValueError: a slider does not have low <= start <= high and step > 0.
    """
    for name, (low, high, step, start) in sliders.items():
        if not (low <= start <= high and step > 0):
            raise ValueError(
                f"slider {name} must be (low, high, step, start) with low <= start <= high and step > 0, "
                f"got {sliders[name]}"
            )
    return Exploration(draw, sliders)


def _slider(ipywidgets: Any, name: str, low: float, high: float, step: float, start: float) -> Any:
    kind = ipywidgets.IntSlider if all(isinstance(n, int) for n in (low, high, step, start)) else ipywidgets.FloatSlider
    label = name.replace("_", " ")
    wide = {"description_width": "initial"}
    return kind(value=start, min=low, max=high, step=step, description=label, continuous_update=False, style=wide)


def _widget_part(widget: Any) -> dict[str, Any]:
    """The entries of a widget's mimebundle that only a front end with widgets understands."""
    bundle = widget._repr_mimebundle_() or {}
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    return {kind: content for kind, content in bundle.items() if kind.startswith("application/")}
