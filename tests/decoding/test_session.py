"""Sessions: what was fed in pieces, forgotten or kept of a tree gives the logits of the text that is left."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.session import EngineSession, LlamaSession, Session, session
from course_lib.nets.llama import Llama, tiny_llama

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

MODEL = tiny_llama()
TEXT = [5, 9, 40, 3, 3, 17, 60, 22]
Make = Callable[..., LlamaSession | EngineSession]


def on_engine(capacity: int, **options: object) -> EngineSession:
    from course_lib.decoding.engine import Engine
    from course_lib.nets.llama import engine_tensors

    return EngineSession(Engine.from_tensors(MODEL.shape, engine_tensors(MODEL), threads=1), capacity, **options)  # type: ignore[arg-type]


def on_llama(capacity: int, **options: object) -> LlamaSession:
    return LlamaSession(MODEL, capacity, **options)  # type: ignore[arg-type]


@pytest.fixture(params=[on_llama, on_engine], ids=["llama", "engine"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@torch.no_grad()
def truth(text: list[int], model: Llama = MODEL, layers: int | None = None) -> torch.Tensor:
    """Logits of the whole text, read at once and without a cache."""
    return model(torch.tensor([text]), layers=layers)[0]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and bool(torch.allclose(found, expected, atol=2e-3))


def test_pieces_give_the_logits_of_the_whole_text(make: Make) -> None:
    text = make(20)
    parts = [text.feed(TEXT[:3]), text.feed(TEXT[3:4]), text.feed(TEXT[4:])]
    assert close(torch.cat(parts), truth(TEXT))
    assert parts[0].dtype == torch.float32
    assert text.tokens == TEXT


def test_the_last_row_alone_is_the_last_row(make: Make) -> None:
    assert close(make(20).feed(TEXT, last=True), truth(TEXT)[-1:])


def test_after_a_rollback_the_text_goes_on_as_if_nothing_had_been_there(make: Make) -> None:
    text = make(9)
    text.feed([*TEXT[:4], 1, 2, 3])
    text.rollback(4)
    assert text.tokens == TEXT[:4]
    assert close(text.feed(TEXT[4:]), truth(TEXT)[4:])
    text.rollback(0)
    assert close(text.feed(TEXT), truth(TEXT))


def test_a_node_of_a_tree_sees_its_ancestors_alone(make: Make) -> None:
    text = make(20)
    text.feed(TEXT)
    tokens, parents = [7, 8, 9, 10, 11], [-1, 0, 0, -1, 2]
    rows = text.feed_tree(tokens, parents)
    for node, branch in enumerate(([7], [7, 8], [7, 9], [10], [7, 9, 11])):
        assert close(rows[node], truth(TEXT + branch)[-1]), f"node {node}"
    assert text.tokens == TEXT


@pytest.mark.parametrize("path", [[], [0], [0, 1], [0, 2, 4], [3]])
def test_what_is_kept_of_a_tree_is_the_text(make: Make, path: list[int]) -> None:
    text = make(20)
    text.feed(TEXT)
    tokens, parents = [7, 8, 9, 10, 11], [-1, 0, 0, -1, 2]
    text.feed_tree(tokens, parents)
    text.keep(path)
    kept = TEXT + [tokens[node] for node in path]
    assert text.tokens == kept
    assert close(text.feed([1, 2]), truth([*kept, 1, 2])[-2:])


def test_a_tree_may_come_first_and_trees_may_follow_each_other(make: Make) -> None:
    text = make(6)  # whatever is dropped leaves its room
    for round_ in range(4):
        text.feed_tree([7, 8], [-1, -1])
        text.keep([round_ % 2])
    assert text.tokens == [7, 8, 7, 8]
    assert close(text.feed([1, 2]), truth([7, 8, 7, 8, 1, 2])[-2:])


@settings(max_examples=12)
@given(st.data())
def test_any_story_of_feeding_and_forgetting_leaves_a_text_that_was_read_in_one_go(data: st.DataObject) -> None:
    text = on_llama(24)
    token = st.integers(0, 63)
    for _ in range(data.draw(st.integers(1, 6))):
        free = 24 - len(text.tokens)
        action = data.draw(st.sampled_from(["feed", "rollback", "tree"]))
        if action == "rollback":
            text.rollback(data.draw(st.integers(0, len(text.tokens))))
        elif free >= 6 and action == "feed":
            text.feed(data.draw(st.lists(token, min_size=1, max_size=5)))
        elif free >= 6:
            tokens = data.draw(st.lists(token, min_size=1, max_size=5))
            parents = [data.draw(st.integers(-1, node - 1)) for node in range(len(tokens))]
            text.feed_tree(tokens, parents)
            node, path = data.draw(st.integers(-1, len(tokens) - 1)), []
            while node >= 0:
                path.insert(0, node)
                node = parents[node]
            text.keep(path)
    left = list(text.tokens)
    if len(left) == 24:
        text.rollback(23)
        left.pop()
    assert close(text.feed([1])[-1], truth([*left, 1])[-1])


def test_early_exit_stops_after_so_many_layers(make: Make) -> None:
    assert close(make(20, layers=2).feed(TEXT), truth(TEXT, layers=2))


def test_hidden_is_what_the_head_gets() -> None:
    with torch.no_grad():
        expected = MODEL.hidden(torch.tensor([TEXT]))[0]
    for text in (on_llama(20), on_engine(20, hidden=True)):
        assert text.hidden is None
        logits = text.feed(TEXT)
        assert text.hidden is not None and close(text.hidden, expected)
        assert close(logits, truth(TEXT))
        text.feed_tree([1, 2], [-1, -1])
        assert text.hidden.shape == (2, MODEL.shape.width)


def test_engine_gives_equal_bits_however_a_token_was_fed() -> None:
    whole, single, tree = on_engine(20), on_engine(20), on_engine(20)
    rows = whole.feed(TEXT)
    assert torch.equal(rows, torch.cat([single.feed([token]) for token in TEXT]))
    tree.feed(TEXT[:2])
    branch = tree.feed_tree([50, *TEXT[2:5], 51], [-1, -1, 1, 2, 2])
    assert torch.equal(branch[1:4], rows[2:5])
    tree.keep([1, 2, 3])
    assert torch.equal(tree.feed(TEXT[5:]), rows[5:])


def test_session_picks_by_the_model() -> None:
    assert isinstance(session(MODEL, 5), LlamaSession)
    assert isinstance(session(on_engine(5).engine, 5), EngineSession)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda text: text.feed([]), "tokens must hold at least one token"),
        (lambda text: text.feed([1] * 5), "5 more tokens after 2 are more than the capacity of 6"),
        (lambda text: text.feed([64]), r"tokens must be in \[0, 63\], got 64"),
        (lambda text: text.feed([-1]), "got -1"),
        (lambda text: text.rollback(3), r"length must be in \[0, 2\].* got 3"),
        (lambda text: text.rollback(-1), "got -1"),
        (lambda text: text.feed_tree([], []), "at least one token"),
        (lambda text: text.feed_tree([1, 2], [-1]), "parents must be as many as tokens, got 1 for 2"),
        (lambda text: text.feed_tree([1, 2], [-1, 1]), r"parents\[1\] must be .* got 1"),
        (lambda text: text.feed_tree([1], [-2]), r"parents\[0\] must be .* got -2"),
        (lambda text: text.keep([]), "no tree was read"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(make: Make, do: Callable[[Session], object], message: str) -> None:
    text = make(6)
    text.feed(TEXT[:2])
    with pytest.raises(ValueError, match=message):
        do(text)
    assert text.tokens == TEXT[:2]
    assert close(text.feed(TEXT[2:6]), truth(TEXT[:6])[2:])


def test_a_tree_that_waits_has_to_be_settled_first(make: Make) -> None:
    text = make(9)
    text.feed(TEXT[:2])
    text.feed_tree([1, 2, 3], [-1, 0, 0])
    for do in (lambda: text.feed([1]), lambda: text.rollback(0), lambda: text.feed_tree([1], [-1])):
        with pytest.raises(ValueError, match="a tree was read and waits"):
            do()
    for path in ([1], [0, 0], [0, 1, 2], [3], [-1]):
        with pytest.raises(ValueError, match="path must go from parent to child"):
            text.keep(path)
    text.keep([0, 2])
    assert text.tokens == [*TEXT[:2], 1, 3]


@pytest.mark.parametrize("capacity", [0, -1, 257])
def test_capacity_is_that_of_the_model_at_most(make: Make, capacity: int) -> None:
    with pytest.raises(ValueError, match=rf"capacity must be in \[1, 256\].* got {capacity}"):
        make(capacity)


def test_a_break_in_the_middle_leaves_the_text_as_it_was(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    text = make(20)
    text.feed(TEXT[:3])
    with monkeypatch.context() as broken:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        if isinstance(text, LlamaSession):
            broken.setattr(MODEL.layers[1], "forward", interrupt)
        else:
            broken.setattr(text.engine, "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            text.feed(TEXT[3:])
    assert text.tokens == TEXT[:3]
    assert close(text.feed(TEXT[3:]), truth(TEXT)[3:])
