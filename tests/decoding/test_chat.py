"""The conversation: what the model reads, what is reused, what Ctrl-C stops, and what is left out."""

from collections.abc import Mapping, Sequence

import pytest
import torch

from course_lib.decoding.chat import HELP, Conversation, converse
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import LlamaSession
from course_lib.nets.llama import tiny_llama

MODEL = tiny_llama()
USER, ASSISTANT, END = 61, 62, 63


class Letters:
    """A tokenizer whose tokens are letters: 0 is "a", 25 is "z". A message begins with its role and ends with END."""

    end = frozenset({END})

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        tokens = []
        for message in messages:
            role = USER if message["role"] == "user" else ASSISTANT
            tokens += [role, *(ord(letter) - 97 for letter in message["content"]), END]
        return [*tokens, ASSISTANT]

    def stream(self) -> "LetterStream":
        return LetterStream()


class LetterStream:
    def push(self, token: int) -> str:
        return chr(97 + token)

    def end(self) -> str:
        return ""


class Scripted:
    """A sampler that says what it was told, whatever the logits, and remembers the text that it was given."""

    def __init__(self, *answers: str) -> None:
        self.left = [token for answer in answers for token in (*(ord(letter) - 97 for letter in answer), END)]
        self.seen: list[list[int]] = []

    def __call__(self, logits: torch.Tensor, tokens: Sequence[int]) -> int:
        self.seen.append(list(tokens))
        return self.left.pop(0)


def start(*answers: str, capacity: int = 60, limit: int = 20) -> Conversation:
    return Conversation(LlamaSession(MODEL, capacity), Letters(), Scripted(*answers), limit)


def talk(conversation: Conversation, *lines: str | type[BaseException], prompt: str | None = None) -> str:
    """Everything that is shown when these lines are typed; an exception stands for a key."""
    typed, shown = list(lines), []

    def read(ask: str) -> str:
        shown.append(ask)
        line = typed.pop(0) if typed else EOFError
        if isinstance(line, str):
            return line
        raise line

    converse(conversation, read, shown.append, prompt)
    return "".join(shown)


def test_the_answer_streams_and_is_part_of_what_the_model_reads_next() -> None:
    conversation = start("hello", "fine")
    assert list(conversation.ask("hi")) == ["h", "e", "l", "l", "o"]
    assert "".join(conversation.ask("how")) == "fine"
    assert [message["content"] for message in conversation.messages] == ["hi", "hello", "how", "fine"]
    expected = conversation.tokenizer.chat(conversation.messages[:3])
    assert conversation.sampler.seen[6] == expected  # type: ignore[attr-defined]


def test_what_was_read_is_not_read_again() -> None:
    conversation = start("hello", "fine", "yes")
    "".join(conversation.ask("hi"))
    assert conversation.spent is not None and conversation.spent.prompt_tokens == 5  # two letters, three marks
    "".join(conversation.ask("how"))
    # the answer's letters were read when they were written: its end, the question, and where the answer begins
    assert conversation.spent.prompt_tokens == 1 + 5 + 1
    assert conversation.spent.answer_tokens == 3


def test_a_conversation_read_in_pieces_is_answered_like_one_that_is_read_at_once() -> None:
    one = Conversation(LlamaSession(MODEL, 80), Letters(), Sampler(), 5)
    "".join(one.ask("hi"))
    answer = "".join(one.ask("how"))
    other = Conversation(LlamaSession(MODEL, 80), Letters(), Sampler(), 5)
    other.messages = one.messages[:2]
    assert "".join(other.ask("how")) == answer


def test_oldest_turns_go_when_there_is_no_room_left() -> None:
    conversation = start("one", "two", capacity=36, limit=20)
    "".join(conversation.ask("aaaaa"))
    assert conversation.left_out == 0
    shown = talk(conversation, "bbbbb")
    assert "oldest turns are left out" in shown and "two" in shown
    assert conversation.left_out == 2
    assert conversation.session.tokens[:6] == [USER, 1, 1, 1, 1, 1]
    assert len(conversation.messages) == 4


def test_a_question_that_alone_is_too_long_is_refused_and_forgotten() -> None:
    conversation = start("one", capacity=40, limit=30)
    shown = talk(conversation, "a" * 20, "b")
    assert "The question takes 23 tokens, and there is room for 10 beside an answer of 30. Cure: " in shown
    assert [message["content"] for message in conversation.messages] == ["b", "one"]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said() -> None:
    conversation = start("hello", "fine")
    shown: list[str] = []

    def write(text: str) -> None:
        shown.append(text)
        if text == "e":
            raise KeyboardInterrupt

    lines = iter(["hi", "how"])
    converse(conversation, lambda ask: next(lines, "/quit"), write)
    assert "… stopped" in "".join(shown)
    assert [message["content"] for message in conversation.messages][:2] == ["hi", "he"]
    assert len(conversation.messages) == 4


def test_ctrl_c_inside_the_model_stops_the_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = start("hello")
    feed, calls = conversation.session.feed, []

    def interrupted(tokens: Sequence[int], last: bool = False) -> torch.Tensor:
        calls.append(tokens)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return feed(tokens, last)

    monkeypatch.setattr(conversation.session, "feed", interrupted)
    shown = talk(conversation, "hi")
    assert "he … stopped\n[read 5 tokens" in shown
    assert conversation.messages[-1] == {"role": "assistant", "content": "he"}


def test_tokens_per_second_are_shown_after_each_answer() -> None:
    shown = talk(start("hello"), "hi")
    assert "hello\n[read 5 tokens (" in shown and "tokens/s), wrote 4 tokens (" in shown


def test_commands_are_no_questions() -> None:
    conversation = start("hello", "fine")
    shown = talk(conversation, "hi", "", "/what is it", "/reset", KeyboardInterrupt, "how", "/quit", "never")
    assert "There is no /what." in shown and "forgotten" in shown and shown.count(HELP) == 3
    assert [message["content"] for message in conversation.messages] == ["how", "fine"]


def test_one_prompt_is_answered_and_nothing_is_asked() -> None:
    shown = talk(start("hello"), prompt="hi")
    assert shown.startswith("hello\n[read") and "> " not in shown


def test_an_answer_has_to_leave_room_for_the_question() -> None:
    for limit in (0, 60):
        with pytest.raises(ValueError, match=rf"limit must be in \[1, 59\].* got {limit}"):
            start(limit=limit)


def test_an_answer_may_be_empty() -> None:
    shown = talk(start(""), "hi")
    assert "[read 5 tokens (" in shown and "wrote 0 tokens]" in shown
