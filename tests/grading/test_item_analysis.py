"""Item analysis: figures that a person can work out by hand, and by other routes; a word where there are none."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course_lib.authoring import Lesson
from course_lib.grading.item_analysis import Item, item_analysis, reliability
from course_lib.grading.results import ExerciseResult, NotebookResult, Score, WrittenResult
from tests.grading.sample_class import SampleClass, chapter_of


def scores_of(rows: dict[str, list[float | None]], maxima: list[float]) -> list[Score]:
    """One lesson with exercises e1, e2, …: student -> points."""
    return [
        Score(student, "l", f"e{place}", points, most)
        for student, row in rows.items()
        for place, (points, most) in enumerate(zip(row, maxima, strict=True), 1)
    ]


# Totals 10, 7, 4, 1. e1 is worth 4, e2 and e3 are worth 3.
BY_HAND = {"ada": [4.0, 3.0, 3.0], "bo": [4.0, 0.0, 3.0], "cy": [4.0, 0.0, 0.0], "di": [0.0, 1.0, 0.0]}


def by_hand() -> list[Item]:
    return item_analysis(scores_of(BY_HAND, [4, 3, 3]))


def test_facility_is_the_mean_share_of_the_points() -> None:
    assert [item.facility for item in by_hand()] == pytest.approx([0.75, 1 / 3, 0.5])


def test_discrimination_compares_an_exercise_with_all_others() -> None:
    # e1: shares 1 1 1 0 and the rest 6 3 0 1. Deviations ¼ ¼ ¼ −¾ and 3.5 0.5 −2.5 −1.5:
    # products sum to 1.5; squares to 0.75 and 21.
    assert by_hand()[0].discrimination == pytest.approx(1.5 / math.sqrt(0.75 * 21))


def test_upper_minus_lower_compares_the_best_with_the_last() -> None:
    # 27 % of four students is one: ada against di.
    assert [item.upper_lower for item in by_hand()] == pytest.approx([1.0, 2 / 3, 1.0])


def test_alpha_by_hand() -> None:
    # Variances (÷ 3): 4, 2, 3; of the totals 10 7 4 1: 15. alpha = 3/2 · (1 − 9/15) = 0.6
    found = reliability(scores_of(BY_HAND, [4, 3, 3]))
    assert found.alpha == pytest.approx(0.6)
    assert (found.items, found.students) == (3, 4)


@pytest.fixture
def table() -> tuple[list[Score], np.ndarray, np.ndarray]:
    """Scores of 40 students in 6 exercises, and the same as points and shares."""
    dice = np.random.default_rng(3)
    maxima = np.array([2.0, 3, 4, 1, 5, 3])
    talent = dice.normal(size=(40, 1))
    points = np.clip(np.round(maxima * (0.5 + 0.3 * talent + 0.3 * dice.normal(size=(40, 6)))), 0, maxima)
    rows = {f"s{row}": list(map(float, points[row])) for row in range(40)}
    return scores_of(rows, list(maxima)), points, points / maxima


def test_figures_agree_with_scipy(table: tuple[list[Score], np.ndarray, np.ndarray]) -> None:
    scores, points, shares = table
    for place, item in enumerate(item_analysis(scores)):
        rest = np.delete(points, place, axis=1).sum(axis=1)
        assert item.facility == pytest.approx(shares[:, place].mean())
        assert item.discrimination == pytest.approx(stats.pearsonr(shares[:, place], rest).statistic)


def test_alpha_agrees_with_the_route_over_covariances(table: tuple[list[Score], np.ndarray, np.ndarray]) -> None:
    scores, points, _ = table
    covariance = np.cov(points.T)
    k = len(covariance)
    between = (covariance.sum() - np.trace(covariance)) / (k * (k - 1))
    standard = k * between / (np.trace(covariance) / k + (k - 1) * between)
    assert reliability(scores).alpha == pytest.approx(standard)


def test_alpha_of_right_and_wrong_is_kuder_richardson_20() -> None:
    dice = random.Random(1)
    rows = {f"s{n}": [float(dice.random() < n / 30) for _ in range(5)] for n in range(30)}
    points = np.array(list(rows.values()))
    share = points.mean(axis=0)
    kr20 = 5 / 4 * (1 - (share * (1 - share)).sum() / points.sum(axis=1).var())
    assert reliability(scores_of(rows, [1] * 5)).alpha == pytest.approx(kr20)


def test_equal_totals_at_the_edge_of_a_group_count_in_equal_parts() -> None:
    # 27 % of 7 students is 2. Totals: 4, then 3, 3, 3: one place is left for three.
    rows: dict[str, list[float | None]] = {
        "a": [2, 2], "b": [2, 1], "c": [1, 2], "d": [1, 2], "e": [1, 0], "f": [0, 0], "g": [0, 0]
    }  # fmt: skip
    found = item_analysis(scores_of(rows, [2, 2]))[0].upper_lower
    upper = [sum(rows[name][0] / 2 for name in ("a", other)) / 2 for other in "bcd"]  # type: ignore[operator]
    assert found == pytest.approx(sum(upper) / 3 - 0.0)


def test_order_of_the_students_has_no_effect() -> None:
    rows: dict[str, list[float | None]] = {"a": [2, 1], "b": [1, 2], "c": [2, 1], "d": [0, 1], "e": [1, 0]}
    found = []
    for own in itertools.permutations(rows.items()):
        items = item_analysis(scores_of(dict(own), [2, 2]))
        found.append([[item.facility, item.discrimination, item.upper_lower] for item in items])
    assert np.array(found, float) == pytest.approx(np.array([found[0]] * len(found), float))


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ({"a": [2, 1]}, "one student only"),
        ({"a": [2, 1], "b": [2, 0]}, "everybody has the same points"),
        ({"a": [2, 1], "b": [0, 1]}, "everybody has the same points in all else"),
    ],
)
def test_where_nothing_differs_there_is_a_word_and_no_figure(rows: dict[str, list[float | None]], word: str) -> None:
    item = item_analysis(scores_of(rows, [2, 2]))[0]
    assert (item.discrimination, item.upper_lower, item.word) == (None, None, word)
    assert item.facility == pytest.approx(sum(row[0] / 2 for row in rows.values()) / len(rows))  # type: ignore[operator]


def test_limit_cases_of_alpha_have_a_word() -> None:
    assert reliability([]).word == "no students"
    assert reliability(scores_of({"a": [1, 2]}, [2, 2])).word == "one student only"
    assert reliability(scores_of({"a": [1], "b": [2]}, [2])).word == "needs two exercises that are graded"
    assert reliability(scores_of({"a": [1, 2], "b": [2, 1]}, [2, 2])).word == "everybody has the same points"


def test_a_lone_exercise_is_compared_with_nothing() -> None:
    [item] = item_analysis(scores_of({"a": [1], "b": [2]}, [2]))
    assert (item.facility, item.word) == (0.75, "there is nothing to compare it with")


@given(
    st.integers(1, 5).flatmap(
        lambda items: st.lists(
            st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 2.0])), min_size=items, max_size=items),
            max_size=8,
        )
    )
)
def test_no_class_gives_a_figure_out_of_range_and_whatever_is_missing_has_a_word(
    rows: list[list[float | None]],
) -> None:
    scores = scores_of({f"s{n}": row for n, row in enumerate(rows)}, [2.0] * len(rows[0]) if rows else [])
    for item in item_analysis(scores):
        for figure, least in ((item.facility, 0), (item.discrimination, -1), (item.upper_lower, -1)):
            assert figure is None or least <= figure <= 1
        assert item.word or None not in (item.facility, item.discrimination, item.upper_lower)
    alpha = reliability(scores)
    assert bool(alpha.word) == (alpha.alpha is None)
    assert alpha.alpha is None or alpha.alpha <= 1 + 1e-9


def test_answers_that_wait_for_a_person_are_in_no_figure() -> None:
    rows: dict[str, list[float | None]] = {name: [*own, None if name == "bo" else 0.0] for name, own in BY_HAND.items()}
    items = item_analysis(scores_of(rows, [4, 3, 3, 2]))
    assert (items[3].facility, items[3].word) == (None, "1 answer to be read")
    assert [item.discrimination for item in items[:3]] == [item.discrimination for item in by_hand()]
    assert reliability(scores_of(rows, [4, 3, 3, 2])).alpha == pytest.approx(0.6)


def test_exercise_at_which_the_strong_fail_is_to_be_looked_at() -> None:
    rows: dict[str, list[float | None]] = {"a": [0, 2, 2], "b": [0, 2, 1], "c": [2, 0, 0], "d": [2, 0, 1]}
    item = item_analysis(scores_of(rows, [2, 2, 2]))[0]
    assert item.discrimination is not None and item.discrimination < 0
    assert "look at it" in item.word


def test_records_tell_who_left_what_and_whose_files_could_not_be_read() -> None:
    def notebook(status: str, answered: bool) -> NotebookResult:
        found = ExerciseResult("e1", status, 0, 2)  # type: ignore[arg-type]
        return NotebookResult("l", [found], [WrittenResult("e2", answered, 2)])

    records = {
        "a": {"l": notebook("passed", True)},
        "b": {"l": notebook("failed", False)},
        "c": {"l": notebook("not started", False)},
        "d": {"other": notebook("passed", True)},
        "unreadable": {},
    }
    scores = scores_of({"a": [2, 2], "b": [1, 0], "c": [0, 0], "d": [0, 0], "unreadable": [0, 0]}, [2, 2])
    items = item_analysis(scores, records)
    assert [item.students for item in items] == [4, 4]
    assert [item.not_attempted for item in items] == [0.5, 0.75]
    assert items[0].facility == pytest.approx(3 / 8)
    assert item_analysis(scores)[0].not_attempted is None


def test_scores_that_are_missing_or_double_are_named() -> None:
    scores = scores_of(BY_HAND, [4, 3, 3])
    with pytest.raises(ValueError, match="nothing for 'ada' in l, e1"):
        item_analysis(scores[1:])
    with pytest.raises(ValueError, match="'ada' twice in l, e1"):
        item_analysis([*scores, scores[0]])


def test_exercises_of_one_name_in_two_lessons_are_two(lesson: Lesson) -> None:
    sample = SampleClass(chapter_of(lesson, 2, 2), 12)
    whys = [item for item in item_analysis(sample.scores, sample.records) if item.exercise == "why"]
    assert [item.lesson for item in whys] == ["01_keeping", "02_keeping"]
    assert "to be read" in whys[1].word and "to be read" not in whys[0].word
