"""Reports: what a reader sees, and what JSON keeps."""

from html.parser import HTMLParser

import pytest
import torch

from course_lib import bench, nets
from course_lib.bench import Cost, Latency, Report

BEFORE = Cost(
    "ResNet-20",
    parameters=272_186,
    nonzero=272_186,
    bytes=1_106_024,
    zipped_bytes=1_020_000,
    macs=31_021_952,
    accuracy=93.7,
    latency={1: Latency(0.56, 0.6, 30, 1, 1, 0.4), 64: Latency(35.0, 40.0, 30, 1, 64, 0.4)},
    test_images=10_000,
)
AFTER = Cost(
    "slim & <fast>",
    technique="pruning",
    parameters=100_000,
    nonzero=100_000,
    bytes=420_000,
    zipped_bytes=390_000,
    macs=12_000_000,
    accuracy=92.0,
    latency={1: Latency(0.28, 0.3, 30, 1, 1, 0.6), 64: Latency(14.0, 15.0, 30, 1, 64, 0.6)},
    test_images=10_000,
    note="cut | tuned",
)


class Table(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        assert not self.open, f"tags that nobody closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += text


def test_the_notebook_shows_a_whole_table():
    rows = Table(Report([BEFORE, AFTER])._repr_html_()).rows
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1
    by_title = dict(zip(rows[0], rows[2], strict=True))
    assert by_title["network"] == "slim & <fast>"
    assert by_title["parameters"] == "100 k ÷2.72"
    assert by_title["file"] == "420 kB ÷2.63"
    assert by_title["MACs"] == "12 M ÷2.59"
    assert by_title["batch 1"] == "0.28 ms (p90 0.3) ÷2"
    assert by_title["accuracy"] == "92.00 ± 0.27 % -1.70"


def test_a_figure_that_nobody_has_gets_no_column_and_a_missing_one_a_dash():
    rows = Table(Report([BEFORE, Cost("unknown")])._repr_html_()).rows
    assert "peak memory" not in rows[0] and "note" not in rows[0] and "file" in rows[0]
    assert rows[2][1:] == ["–"] * (len(rows[2]) - 1)


def test_markdown_has_the_table_the_conditions_and_the_warnings():
    slow = Cost("slow", macs=10_000_000, latency=BEFORE.latency)
    text = Report([BEFORE, slow]).markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert "30 interleaved runs" in text and "1 thread," in text and "load average 0.4" in text
    assert text.count("> **Honesty meter:**") == 2


def test_the_conditions_name_the_engine_and_tell_of_rows_that_were_timed_apart():
    sample = torch.zeros(1, 3)
    together = bench.latency({"a": torch.relu, "b": torch.relu}, sample, rounds=1)
    a, b = (Cost(name, latency={1: time}) for name, time in together.items())
    alone = Cost("alone", latency={1: bench.latency({"alone": torch.relu}, sample, rounds=1)["alone"]})
    assert "after warm-up in PyTorch, 1 thread," in Report([a, b]).conditions
    assert "not compare" not in Report([a, b]).conditions
    assert "do not compare" in Report([a, alone]).conditions


def test_a_bar_in_a_name_does_not_break_the_markdown_table():
    table = [line for line in Report([BEFORE, AFTER]).markdown().splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_json_goes_round():
    prediction = bench.predict("How much faster?", "times faster")
    prediction.value = 3.0
    report = Report([BEFORE, AFTER], prediction)
    again = Report.from_json(report.json())
    assert again.costs == report.costs
    assert again.json() == report.json() and again.markdown() == report.markdown()


@pytest.mark.parametrize(
    ("unit", "measured"),
    [("bytes", 686_024), ("times smaller", 2.63339), ("times faster", 2.0), ("ms", 0.28), ("points", 1.7)],
)
def test_the_measured_figure_stands_beside_the_prediction(unit, measured):
    prediction = bench.predict("What will it be?", unit)
    prediction.value = 2 * measured
    report = Report.compare(BEFORE, AFTER, prediction)
    assert prediction.measured == pytest.approx(measured, rel=1e-4)
    for text in (report._repr_html_(), report.markdown()):
        assert "Prediction" in text and "off by a factor of 2" in text


def test_a_prediction_whose_figure_is_known_is_not_overwritten():
    prediction = bench.predict("What will it be?", "bytes").beside(7)
    Report.compare(BEFORE, AFTER, prediction)
    assert prediction.measured == 7


def test_networks_can_be_compared_directly():
    report = Report.compare(nets.build("lenet-5"), nets.build("lenet-300-100"))
    assert [cost.parameters for cost in report.costs] == [431_080, 266_610]
    assert report.warnings == []


def test_with_several_costs_a_warning_names_whom_it_means():
    masked = Cost("masked", parameters=10, nonzero=1, bytes=BEFORE.bytes)
    assert all(text.startswith("masked: ") for text in Report([BEFORE, AFTER, masked]).warnings)


def test_a_report_needs_a_cost():
    with pytest.raises(ValueError, match="costs"):
        Report([])
