"""Hostile notebooks, as data: a module for each theme, a line for each on what it tries."""

from tests.grading.attacks import (
    bombs,
    escapes,
    kernel_tricks,
    library_answers,
    lying_values,
    messages,
    notebook_edits,
    searches,
    timed_tricks,
)
from tests.grading.attacks.attack import Attack

THEMES: dict[str, list[Attack]] = {
    theme.__name__.rpartition(".")[2]: theme.ATTACKS
    for theme in (
        notebook_edits,
        kernel_tricks,
        lying_values,
        messages,
        library_answers,
        searches,
        bombs,
        escapes,
        timed_tricks,
    )
}
