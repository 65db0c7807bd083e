"""`Report`: costs side by side, as a table in a notebook, as Markdown and as JSON, with the honesty meter's verdict."""

import html
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from course_lib.bench.correct import standard_error
from course_lib.bench.cost import Cost, measure, runs_of
from course_lib.bench.honesty import honesty
from course_lib.bench.interact import Prediction
from course_lib.bench.timing import three_digits


@dataclass(frozen=True)
class _Cell:
    text: str
    ratio: str = ""


class Report:
    """Costs as a table. The first one is the baseline that the ratios and the honesty meter compare with.

    `prediction` stands below the table. Where it has no measured figure yet, a comparison of two costs fills it in by
    its unit: "bytes" (saved), "times smaller", "times faster" (smallest batch), "ms" (smallest batch, the second
    cost), "points" (of accuracy, lost).
    """

    def __init__(self, costs: Sequence[Cost], prediction: Prediction | None = None) -> None:
        if not costs:
            raise ValueError("costs must hold at least one Cost, got none")
        self.costs = list(costs)
        self.prediction = prediction
        if prediction is not None and prediction.measured is None and len(self.costs) >= 2:
            measured = _measured(self.costs[0], self.costs[1], prediction.unit)
            if measured is not None:
                prediction.beside(measured)

    @classmethod
    def compare(
        cls, before: Cost | nn.Module, after: Cost | nn.Module, prediction: Prediction | None = None
    ) -> "Report":
        """Two costs, or two networks, of which the size is measured."""
        return cls([_as_cost(before, "before"), _as_cost(after, "after")], prediction)

    @property
    def warnings(self) -> list[str]:
        """What the honesty meter says about each cost beside the first; with names where there are several."""
        baseline, *others = self.costs
        named = len(others) > 1
        return [f"{cost.name}: {text}" if named else text for cost in others for text in honesty(baseline, cost)]

    @property
    def conditions(self) -> str:
        """Under which conditions the latencies were measured; empty without latencies."""
        times = [time for cost in self.costs for time in (cost.latency or {}).values()]
        if not times:
            return ""
        threads = sorted({time.threads for time in times})
        rounds = sorted({time.rounds for time in times})
        engines = sorted({time.engine for time in times if time.engine})
        text = (
            f"Latency: median (p90) of {_joined(rounds)} interleaved runs after warm-up"
            f"{' in ' if engines else ''}{' / '.join(engines)}, {_threads(threads)}, "
            f"{platform.machine()}, {os.cpu_count()} cores"
        )
        loads = [time.load_average for time in times if time.load_average is not None]
        text += f", load average {max(loads):.1f}." if loads else "."
        apart = any(len(runs_of(self.costs, batch)) > 1 for batch in {time.batch for time in times})
        return text + (" Not all rows were timed together, so their times do not compare." if apart else "")

    def markdown(self) -> str:
        """The table, the prediction, the conditions and the warnings as Markdown."""
        head, rows = self._table()
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        for row in rows:
            cells = [f"{cell.text} {cell.ratio}".strip().replace("|", "\\|") for cell in row]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"{text}\n" for text in (str(self.prediction or ""), self.conditions) if text)]
        lines += [f"> **Honesty meter:** {text}\n" for text in self.warnings]
        return "\n".join(lines).strip() + "\n"

    def json(self) -> str:
        """Everything as JSON; `from_json` makes the same report of it."""
        prediction = None
        if self.prediction is not None:
            prediction = {key: getattr(self.prediction, key) for key in ("question", "unit", "value", "measured")}
        content = {
            "costs": [cost.as_dict() for cost in self.costs],
            "prediction": prediction,
            "warnings": self.warnings,
            "conditions": self.conditions,
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `json` wrote. Warnings and conditions follow from the costs."""
        content = json.loads(text)
        prediction = None
        if content["prediction"] is not None:
            stated = content["prediction"]
            prediction = Prediction(stated["question"], stated["unit"])
            prediction.value, prediction.measured = stated["value"], stated["measured"]
        return cls([Cost.from_dict(cost) for cost in content["costs"]], prediction)

    def _repr_html_(self) -> str:
        head, rows = self._table()
        parts = ['<table style="font-variant-numeric: tabular-nums"><thead><tr>']
        parts += [f'<th style="text-align:{_side(i)}">{html.escape(name)}</th>' for i, name in enumerate(head)]
        parts.append("</tr></thead><tbody>")
        for row in rows:
            parts.append("<tr>")
            for i, cell in enumerate(row):
                ratio = f' <small style="color:#767676">{html.escape(cell.ratio)}</small>' if cell.ratio else ""
                parts.append(f'<td style="text-align:{_side(i)}">{html.escape(cell.text)}{ratio}</td>')
            parts.append("</tr>")
        parts.append("</tbody></table>")
        if self.prediction is not None:
            parts.append(f"<p>✎ {html.escape(str(self.prediction))}</p>")
        if self.conditions:
            parts.append(f'<p><small style="color:#767676">{html.escape(self.conditions)}</small></p>')
        parts += [
            '<p style="border-left:4px solid #D55E00;padding:2px 0 2px 8px;margin:4px 0">'
            f"<b>Honesty meter:</b> {html.escape(text)}</p>"
            for text in self.warnings
        ]
        return "".join(parts)

    def __repr__(self) -> str:
        return self.markdown()

    def _table(self) -> tuple[list[str], list[list[_Cell]]]:
        baseline = self.costs[0]
        head = ["network"]
        rows = [[_Cell(cost.name)] for cost in self.costs]

        def column(title: str, values: list[float | None], texts: list[str]) -> None:
            if all(value is None for value in values):
                return
            head.append(title)
            for row, value, text in zip(rows, values, texts, strict=True):
                ratio = "" if row is rows[0] else _ratio(values[0], value)
                row.append(_Cell("–" if value is None else text, ratio))

        techniques = [cost.technique for cost in self.costs]
        if set(techniques) != {"dense"}:
            head.append("technique")
            for row, technique in zip(rows, techniques, strict=True):
                row.append(_Cell(technique.replace("_", " ")))
        for title, field, show in (
            ("parameters", "parameters", _count),
            ("non-zero", "nonzero", _count),
            ("file", "bytes", _size),
            ("zipped", "zipped_bytes", _size),
            ("MACs", "macs", _count),
        ):
            values = [getattr(cost, field) for cost in self.costs]
            if field == "nonzero" and values == [cost.parameters for cost in self.costs]:
                continue
            column(title, values, ["" if value is None else show(value) for value in values])
        for batch in sorted({batch for cost in self.costs for batch in cost.latency or {}}):
            times = [(cost.latency or {}).get(batch) for cost in self.costs]
            column(f"batch {batch}", [cost.median_ms(batch) for cost in self.costs], [str(time) for time in times])
        values = [cost.peak_memory for cost in self.costs]
        column("peak memory", values, ["" if value is None else _size(value) for value in values])
        if any(cost.accuracy is not None for cost in self.costs):
            head.append("accuracy")
            for row, cost in zip(rows, self.costs, strict=True):
                change = None if cost is baseline else _points_above(cost, baseline)
                row.append(_Cell(_percent(cost), "" if change is None else f"{change:+.2f}"))
        if any(cost.note for cost in self.costs):
            head.append("note")
            for row, cost in zip(rows, self.costs, strict=True):
                row.append(_Cell(cost.note))
        return head, rows


def _as_cost(subject: Cost | nn.Module, name: str) -> Cost:
    return subject if isinstance(subject, Cost) else measure(name, subject)


def _measured(before: Cost, after: Cost, unit: str) -> float | None:
    if unit == "bytes" and before.bytes is not None and after.bytes is not None:
        return before.bytes - after.bytes
    if unit == "times smaller" and before.bytes and after.bytes:
        return before.bytes / after.bytes
    if unit == "points":
        return _points_above(before, after)
    batch = min(set(before.latency or {}) & set(after.latency or {}), default=0)
    old, new = before.median_ms(batch), after.median_ms(batch)
    if unit == "ms":
        return new
    if unit == "times faster" and old is not None and new:
        return old / new
    return None


def _points_above(cost: Cost, other: Cost) -> float | None:
    """By how many points the accuracy of `cost` is above that of `other`."""
    if cost.accuracy is None or other.accuracy is None:
        return None
    return cost.accuracy - other.accuracy


def _side(position: int) -> str:
    return "left" if position == 0 else "right"


def _threads(numbers: list[int]) -> str:
    return f"{_joined(numbers)} thread{'' if numbers == [1] else 's'}"


def _joined(numbers: list[int]) -> str:
    return " / ".join(str(n) for n in numbers)


def _ratio(before: float | None, after: float | None) -> str:
    if not before or not after:
        return ""
    factor = before / after
    if 0.995 < factor < 1.005:
        return "="
    return f"÷{three_digits(factor)}" if factor > 1 else f"×{three_digits(1 / factor)}"


def _count(value: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * unit or (value >= unit and letter != "k"):
            return f"{value / unit:.4g} {letter}"
    return f"{value:,}"


def _size(value: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.4g} {unit}"
    return f"{value} B"


def _percent(cost: Cost) -> str:
    if cost.accuracy is None:
        return "–"
    error = f" ± {standard_error(cost.accuracy, cost.test_images):.2f}" if cost.test_images else ""
    return f"{cost.accuracy:.2f}{error} %"
