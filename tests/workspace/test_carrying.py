import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.workspace.carrying import carry_over

ANSWER = "def double(x):\n    return 2 * x"


@pytest.fixture
def base(make):
    return make.notebook(make.lesson_cells())


@pytest.fixture
def learner(make, base):
    """The base with two answers, one of them in words, and a cell of the learner's own behind the first check."""
    book = copy.deepcopy(base)
    make.write(book, "exercise-double", ANSWER)
    make.write(book, "written-why", "Because *zeros* are stored.")
    position = [cell["id"] for cell in book["cells"]].index("check-double") + 1
    book["cells"].insert(position, make.cell("mine", "double(21)"))
    return book


def ids(book):
    return [cell["id"] for cell in book["cells"]]


def test_answers_and_own_cells_are_in_the_new_release(make, base, learner):
    release = copy.deepcopy(base)
    make.write(release, "text-idea", "## Idea\n\nBetter words.")
    carried = carry_over(learner, release, base)
    assert "".join(make.find(carried.notebook, "exercise-double")["source"]) == ANSWER
    assert "".join(make.find(carried.notebook, "written-why")["source"]) == "Because *zeros* are stored."
    assert "".join(make.find(carried.notebook, "text-idea")["source"]) == "## Idea\n\nBetter words."
    assert ids(carried.notebook).index("mine") == ids(carried.notebook).index("check-double") + 1
    assert (carried.answers, carried.added, carried.kept, carried.reworded) == (
        ["exercise-double", "written-why"], 1, 0, []
    )  # fmt: skip
    assert make.is_valid(carried.notebook)


def test_arguments_stay_as_they_are(base, learner):
    before = copy.deepcopy((learner, base))
    carry_over(learner, copy.deepcopy(base), base).notebook["cells"][0]["source"].append("changed afterwards")
    assert (learner, base) == before


def test_cells_that_were_added_removed_and_moved_do_not_matter(make, base, learner):
    cells = {cell["id"]: cell for cell in copy.deepcopy(base)["cells"]}
    order = ["header", "imports", "about-triple", "exercise-triple", "check-triple-small", "about-double"]
    order += ["exercise-double", "check-double", "text-summary", "question-why", "written-why"]
    release = make.notebook([cells[name] for name in order])
    release["cells"].insert(4, make.text("text-new", "New."))
    carried = carry_over(learner, release, base)
    expected = list(order)
    expected.insert(4, "text-new")
    expected.insert(expected.index("check-double") + 1, "mine")
    assert ids(carried.notebook) == expected
    assert "".join(make.find(carried.notebook, "exercise-double")["source"]) == ANSWER


def test_changed_check_is_taken_from_the_course_and_has_to_run_again(make, base, learner):
    make.run(learner, "check-double")
    make.run(learner, "check-triple-small")
    release = copy.deepcopy(base)
    make.write(release, "check-double", "assert double(3) == 6")
    carried = carry_over(learner, release, base)
    assert make.find(carried.notebook, "check-double") == make.find(release, "check-double")
    assert make.find(carried.notebook, "check-triple-small")["execution_count"] == 1, (
        "an unchanged check keeps its result"
    )


def test_untouched_stub_is_replaced_by_the_new_stub(make, base, learner):
    release = copy.deepcopy(base)
    make.write(release, "exercise-triple", "def triple(x, y):\n    raise NotImplementedError")
    carried = carry_over(learner, release, base)
    assert make.find(carried.notebook, "exercise-triple") == make.find(release, "exercise-triple")
    assert "exercise-triple" not in carried.answers


def test_answered_exercise_with_a_new_text_keeps_the_answer_and_shows_the_new_text(make, base, learner):
    release = copy.deepcopy(base)
    make.write(
        release, "exercise-double", 'def double(x, times=1):\n    """New contract."""\n    raise NotImplementedError'
    )
    carried = carry_over(learner, release, base)
    position = ids(carried.notebook).index("exercise-double")
    assert "".join(carried.notebook["cells"][position]["source"]) == ANSWER
    note = carried.notebook["cells"][position + 1]
    assert note["cell_type"] == "markdown" and "New contract." in "".join(note["source"])
    assert carried.reworded == ["exercise-double"]
    assert make.is_valid(carried.notebook)


def test_experiment_changed_by_the_learner_only_stays_the_learners(make, base, learner):
    make.write(learner, "cell-experiment", "rate = 7\nprint(rate)")
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert "rate = 7" in "".join(make.find(carried.notebook, "cell-experiment")["source"])
    assert carried.kept == 0


def test_experiment_changed_by_both_is_the_courses_with_the_learners_below_not_running(make, base, learner):
    make.write(learner, "cell-experiment", "rate = 7\nprint(rate)")
    release = copy.deepcopy(base)
    make.write(release, "cell-experiment", "rate = 100\nprint(rate)")
    carried = carry_over(learner, release, base)
    position = ids(carried.notebook).index("cell-experiment")
    new, note, mine = carried.notebook["cells"][position : position + 3]
    assert "rate = 100" in "".join(new["source"])
    assert "Kept from your earlier version" in "".join(note["source"])
    assert mine["cell_type"] == "raw" and "rate = 7" in "".join(mine["source"])
    assert carried.kept == 1 and make.is_valid(carried.notebook)


def test_answer_to_an_exercise_that_is_gone_is_kept_at_the_end(make, base, learner):
    release = make.notebook([cell for cell in copy.deepcopy(base)["cells"] if "double" not in cell["id"]])
    carried = carry_over(learner, release, base)
    assert carried.notebook["cells"][-1]["cell_type"] == "raw"
    assert "".join(carried.notebook["cells"][-1]["source"]) == ANSWER
    assert "nbgrader" not in carried.notebook["cells"][-1]["metadata"]
    assert "no place" in "".join(carried.notebook["cells"][-2]["source"])
    assert ids(carried.notebook).index("mine") == ids(carried.notebook).index("text-idea") + 1, (
        "behind what is left before it"
    )


def test_edited_check_is_restored_and_the_edit_kept(make, base, learner):
    make.write(learner, "check-double", "pass")
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert make.find(carried.notebook, "check-double") == make.find(base, "check-double")
    assert "pass" in make.sources(carried.notebook)


def test_deleted_cells_of_the_course_come_back(make, base, learner):
    learner["cells"] = [cell for cell in learner["cells"] if cell["id"] not in ("check-double", "imports")]
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert set(ids(base)) <= set(ids(carried.notebook))


def test_split_answer_keeps_both_halves_in_their_order(make, base, learner):
    position = ids(learner).index("exercise-double")
    half = copy.deepcopy(learner["cells"][position])
    half["id"], half["source"] = "half", ["FACTOR = 2"]
    learner["cells"].insert(position, half)
    carried = carry_over(learner, copy.deepcopy(base), base)
    texts = make.sources(carried.notebook)
    assert texts.index("FACTOR = 2") < texts.index(ANSWER)
    grade_ids = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in carried.notebook["cells"]]
    assert grade_ids.count("exercise-double") == 1
    assert "".join(make.find(carried.notebook, "exercise-double")["source"]) == ANSWER


def test_copy_of_a_cell_with_the_same_id_does_not_take_the_id_of_the_courses_cell(make, base, learner):
    for place, name in ((1, "exercise-double"), (2, "cell-experiment")):
        double = copy.deepcopy(make.find(learner, name))
        double["source"] = [f"# tried with {name}"]
        learner["cells"].insert(place, double)
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert "".join(make.find(carried.notebook, "exercise-double")["source"]) == ANSWER
    assert {"# tried with exercise-double", "# tried with cell-experiment"} <= set(make.sources(carried.notebook))
    assert set(ids(base)) <= set(ids(carried.notebook)) and make.is_valid(carried.notebook)


def test_answer_that_was_emptied_gets_the_new_stub(make, base, learner):
    make.write(learner, "exercise-double", "\n")
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert make.find(carried.notebook, "exercise-double") == make.find(base, "exercise-double")


def test_cell_that_defines_the_function_is_the_answer_even_if_a_copy_of_its_cell_follows(make, base, learner):
    position = ids(learner).index("exercise-double")
    trial = copy.deepcopy(learner["cells"][position])
    trial["id"], trial["source"] = "trial", ["double(4)"]
    learner["cells"].insert(position + 1, trial)
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert "".join(make.find(carried.notebook, "exercise-double")["source"]) == ANSWER
    assert "double(4)" in make.sources(carried.notebook)


def test_without_the_base_nothing_of_the_learners_is_lost(make, base, learner):
    make.write(learner, "cell-experiment", "rate = 7\nprint(rate)")
    release = make.notebook([cell for cell in copy.deepcopy(base)["cells"] if "triple" not in cell["id"]])
    make.write(release, "cell-experiment", "rate = 100\nprint(rate)")
    carried = carry_over(learner, release)
    for words in (ANSWER, "Because *zeros* are stored.", "double(21)", "rate = 7\nprint(rate)"):
        assert words in make.sources(carried.notebook)
    assert make.is_valid(carried.notebook)


def test_notebook_without_cell_ids_is_matched_by_grade_id_and_text(make, base, learner):
    for cell in learner["cells"]:
        del cell["id"]
    learner["nbformat_minor"] = 4
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert [cell for cell in ids(carried.notebook) if cell in ids(base)] == ids(base)
    assert len(carried.notebook["cells"]) == len(base["cells"]) + 1, "the course's texts are not doubled"
    assert make.sources(carried.notebook).count("double(21)") == 1
    assert make.is_valid(carried.notebook)


def test_pasted_picture_stays_with_its_answer(make, base, learner):
    make.find(learner, "written-why")["attachments"] = {"a.png": {"image/png": "AAAA"}}
    carried = carry_over(learner, copy.deepcopy(base), base)
    assert make.find(carried.notebook, "written-why")["attachments"] == {"a.png": {"image/png": "AAAA"}}


def test_second_update_changes_nothing_more(base, learner):
    once = carry_over(learner, copy.deepcopy(base), base).notebook
    assert carry_over(once, copy.deepcopy(base), base).notebook == once


LABELS = ["header", "imports", "text-idea", "exercise-double", "check-double", "cell-experiment", "exercise-triple",
          "check-triple-small", "written-why", "text-summary"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_the_learner_and_the_course_change_no_text_of_the_learners_is_lost(make, data):
    base = make.notebook(make.lesson_cells())
    learner, release = copy.deepcopy(base), copy.deepcopy(base)
    wrote = []
    for name in data.draw(st.lists(st.sampled_from(LABELS), unique=True), label="changed by the learner"):
        wrote.append(f"the learner's {name}")
        make.write(learner, name, wrote[-1])
    for number in range(data.draw(st.integers(0, 3), label="added by the learner")):
        wrote.append(f"added {number}")
        place = data.draw(st.integers(0, len(learner["cells"])))
        learner["cells"].insert(place, make.cell(f"added-{number}", wrote[-1]))
    for name in data.draw(st.lists(st.sampled_from(LABELS), unique=True), label="changed by the course"):
        make.write(release, name, f"the new {name}")
    gone = data.draw(st.lists(st.sampled_from(LABELS), unique=True), label="removed by the course")
    release["cells"] = [cell for cell in release["cells"] if cell["id"] not in gone]
    release["cells"] = data.draw(st.permutations(release["cells"]), label="moved by the course")
    knows_the_base = data.draw(st.booleans(), label="base known")

    carried = carry_over(learner, release, base if knows_the_base else None).notebook

    texts = make.sources(carried)
    if not knows_the_base:  # then an edited check cannot be told from an old one
        wrote = [words for words in wrote if "check-" not in words]
    for words in wrote:
        assert words in texts
    assert [name for name in ids(carried) if name in ids(release)] == ids(release), "the course's cells, in its order"
    assert make.is_valid(carried)
