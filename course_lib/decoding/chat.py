"""A conversation in the terminal: the answer streams in, and the tokens per second stand below it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from course_lib.decoding.generation import Choose, Text, generate, stream_text
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import EngineSession, Session

if TYPE_CHECKING:
    from course_lib.decoding.engine import Weights
    from course_lib.language.gguf import GGUF

HELP = "/reset forgets the conversation, /quit leaves. Ctrl-C stops an answer."


class ChatTokenizer(Protocol):
    """What a conversation needs of a tokenizer: `course_lib.language.tokenizer.Tokenizer`."""

    end: frozenset[int]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...

    def stream(self) -> Text: ...


@dataclass(frozen=True)
class Spent:
    """What an answer took: tokens that were read and written, and the seconds for each."""

    prompt_tokens: int
    prompt_seconds: float
    answer_tokens: int
    answer_seconds: float

    def __str__(self) -> str:
        read, wrote = (
            f"{count} token{'s' * (count != 1)}" + (f" ({count / seconds:,.0f} tokens/s)" if count and seconds else "")
            for count, seconds in (
                (self.prompt_tokens, self.prompt_seconds),
                (self.answer_tokens, self.answer_seconds),
            )
        )
        return f"read {read}, wrote {wrote}"


class Conversation:
    """Messages that go to and fro, and the session that has read them.

    What the session has read before is not read again: it goes back to the first token that differs, and on from there.
    When a conversation grows too long, its oldest turns are left out.

    Args:
        session: nothing was read yet; its capacity is the longest conversation with its answer.
        tokenizer: knows the form in which the model was taught conversations.
        sampler: chooses the tokens of the answers.
        limit: the most tokens of an answer, fewer than the capacity.

    Attributes:
        messages: what was said.
        left_out: how many of the first messages the model does not see any more.
        spent: what the last answer took; None before the first.

    Raises:
        ValueError: `limit` is smaller than 1, or not smaller than the capacity.
    """

    def __init__(self, session: Session, tokenizer: ChatTokenizer, sampler: Choose, limit: int = 512) -> None:
        if not 1 <= limit < session.capacity:
            raise ValueError(f"limit must be in [1, {session.capacity - 1}], below the capacity, got {limit}")
        self.session, self.tokenizer, self.sampler, self.limit = session, tokenizer, sampler, limit
        self.messages: list[dict[str, str]] = []
        self.left_out = 0
        self.spent: Spent | None = None

    def reset(self) -> None:
        """Forget what was said."""
        self.messages, self.left_out = [], 0

    def ask(self, question: str) -> Iterator[str]:
        """Say something, and get the answer piece by piece.

        Where the iterator is left before its end, or broken off by Ctrl-C, what was said so far is the answer.

        Raises:
            ValueError: the question alone is too long; it was not said then.
        """
        self.messages.append({"role": "user", "content": question})
        try:
            prompt = self._prompt()
        except ValueError:
            self.messages.pop()
            raise
        return self._answer(prompt)

    def _prompt(self) -> list[int]:
        """The tokens of the conversation, of which as many of the oldest turns are left out as have to be."""
        room = self.session.capacity - self.limit
        for first in range(self.left_out, len(self.messages), 2):  # a question and its answer go together
            prompt = self.tokenizer.chat(self.messages[first:])
            if len(prompt) <= room:
                self.left_out = first
                return prompt
        raise ValueError(
            f"The question takes {len(prompt)} tokens, and there is room for {room} beside an answer of {self.limit}. "
            "Cure: ask in fewer words."
        )

    def _answer(self, prompt: list[int]) -> Iterator[str]:
        read = self.session.tokens
        same = 0
        while same < min(len(read), len(prompt) - 1) and read[same] == prompt[same]:
            same += 1
        self.session.rollback(same)
        said: list[str] = []
        times: list[float] = []
        start = time.perf_counter()

        def timed() -> Iterator[int]:
            for token in generate(self.session, prompt[same:], self.sampler, self.limit, self.tokenizer.end):
                times.append(time.perf_counter())
                yield token

        try:
            for piece in stream_text(timed(), self.tokenizer.stream()):
                said.append(piece)
                yield piece
        finally:
            until_first = (times[0] if times else time.perf_counter()) - start
            since = times[-1] - times[0] if times else 0.0  # the first token comes out of the prompt's reading
            self.spent = Spent(len(prompt) - same, until_first, max(len(times) - 1, 0), since)
            self.messages.append({"role": "assistant", "content": "".join(said)})


def conversation_from_gguf(
    path: "str | Path | GGUF",
    weights: "Weights" = "file",
    threads: int | None = None,
    capacity: int = 2048,
    sampler: Choose | None = None,
) -> Conversation:
    """A conversation with the model of a GGUF file, on the course's engine.

    Args:
        path: of the file, or what `read_gguf` made of it.
        weights, threads: as for `Engine.from_gguf`.
        capacity: tokens of the longest conversation, at most the model's positions.
        sampler: None for temperature 0.2 and top-p 0.9, with which SmolLM2's card shows its use.
    """
    from course_lib.decoding.engine import Engine
    from course_lib.language.gguf import read_gguf
    from course_lib.language.tokenizer import Tokenizer

    gguf = read_gguf(path) if isinstance(path, str | Path) else path
    engine = Engine.from_gguf(gguf, weights, threads)
    session = EngineSession(engine, min(capacity, engine.shape.positions))
    return Conversation(
        session, Tokenizer.from_gguf(gguf), sampler or Sampler(0.2, top_p=0.9), min(512, session.capacity // 2)
    )


def converse(
    conversation: Conversation,
    read: Callable[[str], str] = input,
    write: Callable[[str], object] = lambda text: print(text, end="", flush=True),
    prompt: str | None = None,
) -> None:
    """Talk in the terminal until /quit or the end of the input.

    Ctrl-C stops an answer, not the conversation; while a question is typed, it drops what was typed.

    Args:
        conversation: may have begun.
        read: asks for a line; raises EOFError at the end of the input.
        write: shows a piece of text.
        prompt: one question, to be answered without talk around it; afterwards nothing is asked.
    """
    if prompt is not None:
        _show(conversation, prompt, write)
        return
    write(f"{HELP}\n")
    while True:
        try:
            question = read("\n> ").strip()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write(f"\n{HELP}\n")
            continue
        if question == "/quit":
            return
        if question == "/reset":
            conversation.reset()
            write("The conversation is forgotten.\n")
        elif question.startswith("/"):
            write(f"There is no {question.split()[0]}. {HELP}\n")
        elif question:
            _show(conversation, question, write)


def _show(conversation: Conversation, question: str, write: Callable[[str], object]) -> None:
    before = conversation.left_out
    try:
        pieces = conversation.ask(question)
    except ValueError as error:
        write(f"{error}\n")
        return
    if conversation.left_out > before:
        write("(The conversation has grown too long; its oldest turns are left out from now on.)\n")
    stopped = False
    try:
        for piece in pieces:
            write(piece)
    except KeyboardInterrupt:
        stopped = True
        pieces.close()  # type: ignore[attr-defined]
    write(f"{' … stopped' if stopped else ''}\n[{conversation.spent}]\n")
