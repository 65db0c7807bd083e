"""Carry nothing but a learner's answers into the notebook of the course.

Tags, metadata, outputs, edited, deleted, moved or duplicated cells of the course have no effect. Of the code cells that
the learner added the rebuilt notebook has what an answer needs.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from course_lib.authoring import Lesson
from course_lib.grading.preparation import helpers
from course_lib.grading.submission import Submission, grade_id_of

# the beginnings of a tag, of a link's address or label, of a formula that makes HTML
_ACTING = re.compile(r"<(?=[A-Za-z/!?])|\](?=[(\[:])|\\(?=(?:href|style|class|cssId|require)\b)")
OWN_CELLS = "# from your own cells:\n"  # what a cell begins with that holds helpers in a rebuilt notebook


def rebuild(pristine: Mapping[str, Any], submission: Submission, lesson: Lesson) -> dict[str, Any]:
    """The course's notebook with the answers of `submission` in it: what is given to nbgrader.

    The course's experiments are left out, because no check needs them and a class would wait for them.

    Args:
        pristine: the released notebook of `lesson`, as JSON data.
        submission: the answers.
        lesson: what they answer.
    """
    exercises = {exercise.grade_id: exercise for exercise in lesson.exercises}
    notebook = {key: copy.deepcopy(value) for key, value in pristine.items() if key != "cells"}
    notebook["cells"] = []
    for position, original in enumerate(pristine["cells"]):
        grade_id = grade_id_of(original)
        # The imports cell is the one code cell without a grade_id that grading needs: it comes before all others.
        first_code = not any(cell["cell_type"] == "code" for cell in pristine["cells"][:position])
        if original["cell_type"] == "code" and grade_id is None and not first_code:
            continue
        cell = copy.deepcopy(dict(original))
        if grade_id in submission.answers:
            answer = submission.answers[grade_id]
            if grade_id in exercises:
                # in cells of their own: an answer may begin with `%%time` or `from __future__ import …`
                for number, text in enumerate(helpers(submission, lesson, exercises[grade_id]), 1):
                    notebook["cells"].append(_own_cell(f"own-{position}-{number}", text))
            cell["source"] = answer if grade_id in exercises else inert(answer)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        notebook["cells"].append(cell)
    return notebook


def inert(text: str) -> str:
    """A learner's Markdown with nothing in it that acts: formgrader shows it in the instructor's browser, as it is.

    An invisible space takes the meaning from tags, links, pictures and formulas that are links; all look as typed.
    """
    return _ACTING.sub("\\g<0>\u200b", text)


def _own_cell(cell_id: str, text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "metadata": {},
        "source": OWN_CELLS + text,
        "outputs": [],
        "execution_count": None,
    }
