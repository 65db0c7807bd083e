import pytest

from course_lib.workspace.running import Running


@pytest.fixture
def running(tmp_path):
    return Running(tmp_path / "lab.json")


def test_server_that_takes_its_token_is_found_again(running, jupyter):
    address = jupyter.address("right")
    running.record(1, address)
    assert running.address() == address


def test_server_of_somebody_else_on_the_same_port_is_not_taken_for_ours(running, jupyter):
    running.record(1, jupyter.address("of a server that was killed"))
    assert running.address() is None and running.open_notebooks() == set()


def test_notebooks_with_a_kernel_are_open(running, jupyter):
    jupyter.sessions = [{"path": "a/b.ipynb", "type": "notebook"}, {"path": "c.ipynb", "type": "notebook"}]
    running.record(1, jupyter.address("right"))
    assert running.open_notebooks() == {"a/b.ipynb", "c.ipynb"}


@pytest.mark.parametrize("sessions", [{"message": "no"}, [None], [{}], None, 7])
def test_answer_that_makes_no_sense_opens_nothing(running, jupyter, sessions):
    jupyter.sessions = sessions
    running.record(1, jupyter.address("right"))
    assert running.open_notebooks() == set()


def test_record_of_a_later_server_is_not_forgotten_with_an_earlier_one(running):
    running.record(2, "http://127.0.0.1:9/lab/tree/Start.md?token=later")
    running.forget(1)
    assert running.path.exists()
    running.forget(2)
    assert not running.path.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 7}', '{"address": "no address"}'])
def test_record_that_makes_no_sense_is_no_server(running, content):
    running.path.write_text(content)
    assert running.address() is None and running.open_notebooks() == set()
    running.forget(1)
