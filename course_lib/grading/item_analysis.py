"""Which exercises tell something about the class: classical item analysis of the points of one chapter.

An item is an exercise or a written answer. Its score is the share of its points that a student earned, from 0 to 1, so
that exercises with many and with few points can be compared; totals are points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from course_lib.grading.results import NotebookResult, Score

EXTREME_SHARE = 0.27  # of a class, that the upper and the lower group each hold (Kelley 1939)
# below it, an exercise hardly tells strong from weak (Ebel & Frisbie 1991, "Essentials of Educational Measurement")
LOW_DISCRIMINATION = 0.2
NEARLY_ALL, NEARLY_NONE = 0.95, 0.1  # mean shares beyond which an exercise tells little about anybody

Records = Mapping[str, Mapping[str, NotebookResult]]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """What the class did with one exercise or written answer.

    A figure that cannot be had is None, and `word` says why; otherwise `word` says what a reader should look at, and is
    empty where there is nothing to say. No figure is ever NaN.

    Attributes:
        lesson, exercise: its names.
        max_points: what it is worth.
        students: how many the figures are about.
        facility: mean share of the points, 0 (nobody has any) to 1 (everybody has all).
        discrimination: correlation of the item with the total of all other items, -1 to 1.
        upper_lower: mean share in the best 27 % of the class less that in the last 27 %, -1 to 1.
        not_attempted: share of the students who left it untouched, 0 to 1; None where no records were given.
        word: see above.
    """

    lesson: str
    exercise: str
    max_points: float
    students: int
    facility: float | None
    discrimination: float | None
    upper_lower: float | None
    not_attempted: float | None
    word: str = ""


@dataclass(frozen=True)
class Reliability:
    """Cronbach's alpha of a chapter; None where it cannot be had, and `word` says why."""

    alpha: float | None
    items: int
    students: int
    word: str = ""


def item_analysis(scores: Sequence[Score], records: Records | None = None) -> list[Item]:
    """Analyse every exercise and written answer in `scores`, in their order.

    With x_is the share of its points that student s has in item i, m_i its points and T_s the points in all:

    - facility: mean of x_is over s, known as the difficulty p (Moodle: "facility index");
    - discrimination: Pearson's correlation of x_i with T - m_i x_i, the total without the item, so that the item is
      not correlated with itself (Henrysson 1963, "Correction of item-total correlations in item analysis",
      Psychometrika 28, 211-218);
    - upper minus lower: the mean of x_i in the upper group less that in the lower group, of round(0.27 n) students each
      (at least one), in order of T (Kelley 1939, "The selection of upper and lower groups for the validation of test
      items", Journal of Educational Psychology 30, 17-24). Students with equal T at the edge of a group count in equal
      parts, so that the order of the students has no effect.

    A written answer that waits for a person in only one notebook has no figures and is in no total: those who have
    been graded so far are no fair sample (whoever left it empty has 0 points at once).

    Args:
        scores: of the whole class; every student has a score for every item.
        records: student -> lesson -> result. They tell who left what untouched; students without any record, whose
            files could not be read, are left out. None counts every student of `scores`.

    Raises:
        ValueError: a student has no score, or two, for an item.
    """
    table = _Table(scores, records)
    return [table.item(position) for position in range(len(table.keys))]


def reliability(scores: Sequence[Score], records: Records | None = None) -> Reliability:
    """Cronbach's alpha of the points: how far the items of a chapter measure one and the same thing.

    alpha = k / (k - 1) * (1 - sum of var(points in item i) / var(total)), over the k items that wait for nobody
    (Cronbach 1951, "Coefficient alpha and the internal structure of tests", Psychometrika 16, 297-334). It is at most
    1, and can be negative. Arguments and errors are those of `item_analysis`.
    """
    table = _Table(scores, records)
    points = table.points[:, table.complete]
    students, items = points.shape
    totals = points.sum(axis=1)
    if students < 2:
        return Reliability(None, items, students, _few(students))
    if items < 2:
        return Reliability(None, items, students, "needs two exercises that are graded")
    if not _varies(totals):
        return Reliability(None, items, students, "everybody has the same points")
    of_items = float(points.var(axis=0, ddof=1).sum())
    alpha = items / (items - 1) * (1 - of_items / float(totals.var(ddof=1)))
    return Reliability(alpha, items, students)


class _Table:
    """Points of students (rows) in items (columns); NaN where a person has to say."""

    def __init__(self, scores: Sequence[Score], records: Records | None) -> None:
        self.records = records
        self.keys = list(dict.fromkeys((score.lesson, score.exercise) for score in scores))
        names = dict.fromkeys(score.student for score in scores)
        self.students = [name for name in names if records is None or records.get(name)]
        self.maxima = np.zeros(len(self.keys))
        self.points: Points = np.full((len(self.students), len(self.keys)), np.nan)
        rows = {student: row for row, student in enumerate(self.students)}
        columns = {key: column for column, key in enumerate(self.keys)}
        given: set[tuple[str, str, str]] = set()
        for score in scores:
            place = (score.student, score.lesson, score.exercise)
            if place in given:
                raise ValueError(f"scores has {score.student!r} twice in {score.lesson}, {score.exercise}.")
            given.add(place)
            column = columns[score.lesson, score.exercise]
            self.maxima[column] = score.max_points
            if score.student in rows and score.points is not None:
                self.points[rows[score.student], column] = score.points
        for student in names:
            for lesson, exercise in self.keys:
                if (student, lesson, exercise) not in given:
                    raise ValueError(f"scores has nothing for {student!r} in {lesson}, {exercise}.")
        self.waiting = np.isnan(self.points).sum(axis=0)
        self.complete = self.waiting == 0
        self.totals = self.points[:, self.complete].sum(axis=1)

    def item(self, column: int) -> Item:
        lesson, exercise = self.keys[column]
        students, maximum = len(self.students), float(self.maxima[column])
        untouched = self._not_attempted(lesson, exercise)

        def item(facility: float | None, discrimination: float | None, upper_lower: float | None, word: str) -> Item:
            return Item(lesson, exercise, maximum, students, facility, discrimination, upper_lower, untouched, word)

        if waiting := int(self.waiting[column]):
            return item(None, None, None, f"{waiting} answer{'s' * (waiting > 1)} to be read")
        if not students or maximum <= 0:
            return item(None, None, None, _few(students) if maximum > 0 else "it is worth nothing")
        shares = self.points[:, column] / maximum
        facility = float(shares.mean())
        rest = self.totals - self.points[:, column]
        if why := self._no_comparison(shares, rest):
            return item(facility, None, None, why)
        discrimination = _correlation(shares, rest)
        return item(
            facility, discrimination, _upper_minus_lower(shares, self.totals), _advice(facility, discrimination)
        )

    def _no_comparison(self, shares: Points, rest: Points) -> str:
        """Why an item cannot be compared with the others; empty when it can."""
        if len(shares) < 2:
            return _few(len(shares))
        if int(self.complete.sum()) < 2:
            return "there is nothing to compare it with"
        if not _varies(shares):
            return "everybody has the same points"
        if not _varies(rest):
            return "everybody has the same points in all else"
        return ""

    def _not_attempted(self, lesson: str, exercise: str) -> float | None:
        if self.records is None or not self.students:
            return None
        untouched = [not _attempted(self.records[student].get(lesson), exercise) for student in self.students]
        return sum(untouched) / len(untouched)


def _attempted(result: NotebookResult | None, exercise: str) -> bool:
    """Whether a notebook has an answer to an exercise or a written question."""
    if result is None:
        return False
    done = any(each.exercise == exercise and each.status != "not started" for each in result.exercises)
    return done or any(each.written == exercise and each.answered for each in result.written)


def _varies(values: Points) -> bool:
    """Whether values differ by more than rounding."""
    return len(values) > 1 and float(np.ptp(values)) > 1e-9 * max(1.0, float(np.abs(values).max()))


def _correlation(values: Points, others: Points) -> float:
    left, right = values - values.mean(), others - others.mean()
    correlation = float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))
    return min(max(correlation, -1.0), 1.0)


def _upper_minus_lower(shares: Points, totals: Points) -> float:
    size = max(1, round(EXTREME_SHARE * len(totals)))
    return _mean_of_best(shares, totals, size) - _mean_of_best(shares, -totals, size)


def _mean_of_best(shares: Points, totals: Points, size: int) -> float:
    """Mean share of the `size` students with the largest totals; equal ones at the edge count in equal parts."""
    edge = np.sort(totals)[-size]
    above, level = totals > edge, totals == edge
    weights = above + level * ((size - above.sum()) / level.sum())
    return float((weights * shares).sum() / size)


def _few(students: int) -> str:
    return "one student only" if students else "no students"


def _advice(facility: float, discrimination: float) -> str:
    if discrimination < 0:
        return "look at it: who does well elsewhere does worse here"
    if facility > NEARLY_ALL:
        return "nearly everybody has it"
    if facility < NEARLY_NONE:
        return "nearly nobody has it"
    if discrimination < LOW_DISCRIMINATION:
        return "tells little about who does well elsewhere"
    return ""
