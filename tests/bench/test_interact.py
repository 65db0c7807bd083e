"""Prediction boxes and figures with sliders, with and without a front end."""

import base64

import pytest
from matplotlib import pyplot as plt

from course_lib import bench
from course_lib.bench.interact import number

PNG = b"\x89PNG\r\n\x1a\n"
VIEW = "application/vnd.jupyter.widget-view+json"


def box_of(prediction):
    return prediction._widget().children[1]


def test_a_prediction_is_none_until_it_is_stated():
    prediction = bench.predict("How large?", "bytes")
    assert prediction.value is None
    bundle = prediction._repr_mimebundle_()
    assert VIEW in bundle
    assert "How large?" in bundle["text/plain"] and "not stated" in bundle["text/plain"]
    assert "How large?" in bundle["text/html"]


def test_what_is_typed_into_the_box_becomes_the_prediction():
    prediction = bench.predict("How large?", "bytes")
    box_of(prediction).value = "1,200,000"
    assert prediction.value == 1_200_000
    box_of(prediction).value = "lots"
    assert prediction.value == 1_200_000
    assert "'lots' is no number" in prediction._widget().children[2].value
    box_of(prediction).value = ""
    assert prediction.value is None


@pytest.mark.parametrize(
    ("text", "value"), [("1e6", 1e6), (" 1_000 ", 1000), ("1 000 000", 1e6), ("-0.5", -0.5), ("", None)]
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("stated", "measured", "verdict"),
    [
        (100, 100, "exactly right"),
        (105, 100, "right within 10 %"),
        (50, 100, "off by a factor of 2"),
        (300, 100, "off by a factor of 3"),
        (5, 0, "off by 5"),
        (-5, 5, "off by 10"),
    ],
)
def test_the_verdict_on_a_prediction(stated, measured, verdict):
    prediction = bench.predict("How large?", "bytes")
    prediction.value = stated
    assert verdict in str(prediction.beside(measured))


def test_once_measured_the_box_is_gone_and_both_numbers_stand_side_by_side():
    prediction = bench.predict("How large?", "bytes")
    prediction.value = 2_000_000
    bundle = prediction.beside(1_066_896)._repr_mimebundle_()
    assert VIEW not in bundle
    assert bundle["text/plain"].startswith("How large? Prediction 2,000,000 bytes, measured 1,066,896 bytes")


def draw(height, count=3):
    figure, axes = plt.subplots(figsize=(2, 2))
    axes.bar(range(count), [height] * count)
    return figure


def test_an_exploration_is_one_output_with_a_widget_and_a_still_picture():
    before = plt.get_fignums()
    bundle = bench.explore(draw, height=(0.0, 1.0, 0.1, 0.5), count=(1, 5, 1, 3))._repr_mimebundle_()
    assert VIEW in bundle
    assert base64.b64decode(bundle["image/png"]).startswith(PNG)
    assert bundle["text/plain"] == "Figure at height = 0.5, count = 3"
    assert plt.get_fignums() == before, "the figure would be shown a second time"


def test_moving_a_slider_draws_the_figure_anew():
    seen = []

    def watched(height, count):
        seen.append((height, count))
        return draw(height, count)

    view = bench.explore(watched, height=(0.0, 1.0, 0.1, 0.5), count=(1, 5, 1, 3))._widget(PNG)
    height, count, picture = view.children
    assert type(count).__name__ == "IntSlider" and type(height).__name__ == "FloatSlider"
    height.value, count.value = 0.7, 5
    assert seen == [(0.7, 3), (0.7, 5)]
    assert bytes(picture.value).startswith(PNG) and len(picture.value) > 100


@pytest.mark.parametrize("limits", [(0, 1, 1, 2), (1, 0, 1, 1), (0, 1, 0, 0)])
def test_a_slider_that_cannot_be_is_named(limits):
    with pytest.raises(ValueError, match="slider height"):
        bench.explore(draw, height=limits)
