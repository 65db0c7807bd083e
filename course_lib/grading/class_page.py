"""What an instructor reads about a graded class: points, exercises, misconceptions and what to look at, on one page."""

import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any
from urllib.parse import urlsplit

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from course_lib.authoring import Lesson
from course_lib.grading.item_analysis import Records, item_analysis, reliability
from course_lib.grading.pages import percent, points, render, visible
from course_lib.grading.results import NotebookResult, Problem, Score, points_after_penalty

# What becomes of an exercise, with the colour and the pattern of its bar, and its sign in the table of students.
_KINDS = {
    "all points": ("good-fill", "", "good", "✓"),
    "some points": ("some-fill", "////", "some", "±"),
    "no points": ("bad-fill", "xxxx", "bad", "✕"),
    "no answer": ("none-fill", "....", "plain", "·"),
    "waits for a person": ("main-fill", "----", "wait", "?"),
}
# Colours that matplotlib writes and the page's style replaces, so that one drawing serves light, dark and paper.
_STAND_INS = {name: f"#0102{number:02x}" for number, name in enumerate(("ink", "line", "paper"), 1)} | {
    fill: f"#0103{number:02x}" for number, (fill, *_) in enumerate(_KINDS.values(), 1)
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "class page",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _STAND_INS["line"],
    "text.color": _STAND_INS["ink"],
    "axes.labelcolor": _STAND_INS["ink"],
    "xtick.color": _STAND_INS["ink"],
    "ytick.color": _STAND_INS["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _STAND_INS["line"],
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class _Plot:
    """A drawing, what it shows in words, and its numbers."""

    finding: str
    svg: str
    table: list[tuple[str, int]] | list[tuple[str, list[int]]]
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """A student in the table. A lesson without any score is None."""

    student: str
    earned: float
    waiting: bool
    lessons: list[float | None]
    marks: list[list[tuple[str, str, str]]]
    told: str
    words: list[str]


@dataclass(frozen=True)
class _Misconception:
    said: str
    students: list[str]


@dataclass(frozen=True)
class _Failures:
    """How an exercise was failed: in known ways, and in others, with the most frequent message of these."""

    lesson: str
    name: str
    found: list[_Misconception]
    others: list[str]
    message: str


def class_page(
    chapter: str,
    lessons: Sequence[Lesson],
    records: Records,
    scores: Sequence[Score],
    problems: Sequence[Problem],
    penalties: Mapping[str, Mapping[str, float]] | None = None,
    pages: Mapping[str, str] | None = None,
) -> str:
    """The summary of a graded class: an HTML page in one file, for screen and paper.

    It shows the distribution of points, what became of each exercise, the commonest misconceptions with their students,
    the item analysis, time-outs, flagged answers and files that could not be graded, and a table of students that can
    be sorted and searched. Each drawing has its numbers in a table.

    Args:
        chapter: the chapter's folder.
        lessons: of the chapter, in their order.
        records: student -> lesson -> what the checks found.
        scores: of the class, as the gradebook has them.
        problems: what could not be graded.
        penalties: student -> lesson -> points that are taken off for being late.
        pages: student -> address of the feedback page, relative to this page and percent-encoded.

    Raises:
        ValueError: a student has no score, or two, for an exercise; an address in `pages` is not relative.
    """
    for student, address in (pages or {}).items():
        if urlsplit(address).scheme:
            raise ValueError(f"pages must hold relative addresses, got {address!r} for {student!r}")
    late = penalties or {}
    rows = _rows(lessons, records, scores, problems, late)
    most = sum({(score.lesson, score.exercise): score.max_points for score in scores}.values())
    earned = [row.earned for row in rows]
    items = item_analysis(scores, records)
    return render(
        "class.html.jinja",
        chapter=chapter,
        lessons=lessons,
        rows=rows,
        most=most,
        median=median(earned) if earned else None,
        mean=mean(earned) if earned else None,
        with_all=sum(each >= most > 0 for each in earned),
        waiting=sum(score.points is None for score in scores),
        reliability=reliability(scores, records),
        items=items,
        analysed=items[0].students if items else 0,
        distribution=_distribution(earned, most),
        rates=_rates(lessons, records, scores),
        misconceptions=_failures(lessons, records),
        late=[Problem(*place, name) for place, name, flag, is_late in _flagged(records) if is_late],
        flags=[Problem(*place, f"{name}: {flag}") for place, name, flag, is_late in _flagged(records) if not is_late],
        unread=problems,
        pages=pages or {},
    )


def _flagged(records: Records) -> list[tuple[tuple[str, str], str, str, bool]]:
    """((student, lesson), exercise, flag, whether its time was up) of every answer with a flag."""
    return [
        ((student, lesson), found.exercise, found.flag, found.out_of_time)
        for student, results in sorted(records.items())
        for lesson, result in results.items()
        for found in result.exercises
        if found.flag
    ]


def _kind(score: Score, result: NotebookResult | None) -> str:
    """What became of one answer: a name in `_KINDS`."""
    if score.points is None:
        return "waits for a person"
    if score.max_points and score.points >= score.max_points:
        return "all points"
    if score.points > 0:
        return "some points"
    exercises = result.exercises if result else []
    written = result.written if result else []
    started = any(each.exercise == score.exercise and each.status != "not started" for each in exercises)
    return "no points" if started or any(e.written == score.exercise and e.answered for e in written) else "no answer"


def _rows(
    lessons: Sequence[Lesson],
    records: Records,
    scores: Sequence[Score],
    problems: Sequence[Problem],
    penalties: Mapping[str, Mapping[str, float]],
) -> list[_Row]:
    by_student: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        by_student[score.student][score.lesson].append(score)
    faults = Counter(problem.student for problem in problems)
    rows = []
    for student, own in sorted(by_student.items(), key=lambda item: item[0].casefold()):
        results, late = records.get(student, {}), penalties.get(student, {})
        kinds = [[(score, _kind(score, results.get(lesson.name))) for score in own[lesson.name]] for lesson in lessons]
        counts = Counter(kind for lesson in kinds for _, kind in lesson)
        flags = [found for result in results.values() for found in result.exercises if found.flag]
        words = [
            *(["not graded in part"] if faults[student] else []),
            *(["flagged"] if any(not found.out_of_time for found in flags) else []),
            *(["time-out"] if any(found.out_of_time for found in flags) else []),
            *([f"late: −{points(sum(late.values()))}"] if sum(late.values()) else []),
        ]
        everything = [score for lesson in lessons for score in own[lesson.name]]
        rows.append(
            _Row(
                student=student,
                earned=points_after_penalty(everything, sum(late.values())),
                waiting=counts["waits for a person"] > 0,
                lessons=[
                    points_after_penalty(own[lesson.name], late.get(lesson.name, 0.0))
                    if lesson.name in results or any(score.points for score in own[lesson.name])
                    else None
                    for lesson in lessons
                ],
                marks=[[(*_KINDS[kind][2:], f"{score.exercise}: {kind}") for score, kind in part] for part in kinds],
                told=", ".join(f"{counts[kind]} {kind}" for kind in _KINDS if counts[kind]),
                words=words,
            )
        )
    return rows


def _failures(lessons: Sequence[Lesson], records: Records) -> list[_Failures]:
    """What went wrong in each exercise, the most frequent first."""
    failures = []
    for lesson in lessons:
        for exercise in lesson.exercises:
            known: dict[str, list[str]] = defaultdict(list)
            others, messages = [], Counter[str]()
            for student in sorted(records, key=str.casefold):
                result = records[student].get(lesson.name)
                for found in result.exercises if result else []:
                    if found.exercise != exercise.name or found.status != "failed":
                        continue
                    if found.misconception:
                        known[found.misconception].append(student)
                    elif not found.flag:  # answers with a flag have a place of their own
                        others.append(student)
                        messages[found.message] += 1
            found_here = [_Misconception(said, own) for said, own in known.items()]
            found_here.sort(key=lambda each: -len(each.students))
            if found_here or others:
                message = messages.most_common(1)[0][0] if messages else ""
                failures.append(_Failures(lesson.name, exercise.name, found_here, others, message))
    return failures


def _distribution(earned: Sequence[float], most: float) -> _Plot:
    """How many students have how many per cent of the points, in ten steps."""
    steps = [min(int(10 * each / most + 1e-9), 9) if most else 0 for each in earned]
    counts = [steps.count(step) for step in range(10)]
    labels = [f"{10 * step} to {10 * step + 10} %" for step in range(10)]
    below = sum(counts[:5])
    finding = "Nobody has handed in"
    if earned:
        who = "No student" if not below else f"{below} of {len(earned)} students"
        verb = "has" if below < 2 else "have"
        finding = f"Half of the class has at least {points(median(earned))} of {points(most)} points; "
        finding += f"{who[:1].lower()}{who[1:]} {verb} less than half of them"
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    with rc_context(_SETTINGS):
        axes = figure.add_subplot()
        bars = axes.bar([5 + 10 * step for step in range(10)], counts, width=9.2, color=_STAND_INS["main-fill"])
        axes.bar_label(bars, labels=[str(count) if count else "" for count in counts], padding=2)
        axes.set_xticks(range(0, 101, 10))
        axes.set_xlim(-1, 101)
        axes.set_ylim(0, max([*counts, 1]) * 1.15)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set_xlabel("share of the points (%)")
        axes.set_ylabel("students")
        axes.grid(axis="y", linewidth=0.6)
        svg = _svg(figure, "points")
    return _Plot(finding, svg, list(zip(labels, counts, strict=True)))


def _rates(lessons: Sequence[Lesson], records: Records, scores: Sequence[Score]) -> _Plot:
    """What became of each exercise and written answer, as a share of the class."""
    keys = [(lesson.name, name) for lesson in lessons for name in _names(lesson)]
    counts: dict[tuple[str, str], Counter[str]] = {key: Counter() for key in keys}
    for score in scores:
        if (score.lesson, score.exercise) in counts:
            result = records.get(score.student, {}).get(score.lesson)
            counts[score.lesson, score.exercise][_kind(score, result)] += 1
    functions = {(lesson.name, exercise.name) for lesson in lessons for exercise in lesson.exercises}
    shares = {
        key: found["all points"] / found.total() for key, found in counts.items() if found.total() and key in functions
    }
    finding = "Nobody has handed in"
    if shares:
        hardest, easiest = min(shares, key=lambda key: shares[key]), max(shares, key=lambda key: shares[key])
        finding = f"Hardest: {hardest[1]}, all points for {percent(shares[hardest])} of the class"
        if shares[hardest] < shares[easiest]:
            finding += f"; easiest: {easiest[1]}, {percent(shares[easiest])}"
    places, headings = _places(lessons)
    figure = Figure(figsize=(8, 0.95 + 0.27 * (len(keys) + 1.1 * len(headings))), layout="constrained")
    with rc_context(_SETTINGS):
        axes = figure.add_subplot()
        begin = [0.0] * len(keys)
        for kind, (fill, hatch, *_) in _KINDS.items():
            widths = [100 * counts[key][kind] / max(counts[key].total(), 1) for key in keys]
            if any(widths):
                axes.barh(
                    places,
                    widths,
                    left=begin,
                    height=0.72,
                    label=kind,
                    color=_STAND_INS[fill],
                    hatch=hatch,
                    edgecolor=_STAND_INS["paper"],
                    linewidth=0.8,
                )
            begin = [left + width for left, width in zip(begin, widths, strict=True)]
        axes.set_yticks(places, [_label(name) for _, name in keys])
        for title, place in headings:
            axes.text(0, place, _label(title, 80), va="center", fontweight="bold")
        axes.set_ylim(max([*places, 0]) + 0.6, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the class (%)")
        axes.spines["left"].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
        svg = _svg(figure, "exercises")
    table = [(name, [counts[lesson, name][kind] for kind in _KINDS]) for lesson, name in keys]
    return _Plot(finding, svg, table, tuple(_KINDS))


def _names(lesson: Lesson) -> list[str]:
    return [*(exercise.name for exercise in lesson.exercises), *(question.name for question in lesson.written)]


def _places(lessons: Sequence[Lesson]) -> tuple[list[float], list[tuple[str, float]]]:
    """Where the bars stand, one below the other, and the titles of the lessons, where there are several."""
    places: list[float] = []
    headings: list[tuple[str, float]] = []
    place = 0.0
    for lesson in lessons:
        if len(lessons) > 1:
            headings.append((lesson.title, place + 0.1))
            place += 1.0
        for _ in _names(lesson):
            places.append(place)
            place += 1.0
        place += 0.15
    return places, headings


def _label(name: str, most: int = 34) -> str:
    """A name for a drawing; `$` would begin a formula of matplotlib."""
    shown = visible(name).replace("\n", " ").replace("$", r"\$")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _svg(figure: Figure, name: str) -> str:
    """The drawing as SVG to stand in a page: with the page's colours, and ids that no other drawing has."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for meant, colour in _STAND_INS.items():
        svg = svg.replace(colour, "currentColor" if meant == "ink" else f"var(--{meant})")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)
