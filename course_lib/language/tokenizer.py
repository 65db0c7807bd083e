"""Text to tokens and back, by what a GGUF file says of its tokenizer; the work is done by the library `tokenizers`.

SmolLM2's tokenizer is a byte-level BPE (byte pair encoding): text is cut into words, digits one by one; the bytes of a
word are joined in pairs, the most frequent pairs of the training text first.

Sources: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; Radford et al. 2019,
"Language Models are Unsupervised Multitask Learners" (on bytes).
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

import jinja2
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import models, pre_tokenizers

from course_lib.language.gguf import GGUF, GGUFError

ROLES = ("system", "user", "assistant")
_CONTROL = 3  # the type of tokens that stand for no text, as "<|im_start|>"
_ENDS = ("<|im_end|>", "<|endoftext|>")
_PRIVATE = range(0xE000, 0xF900)  # code points that Unicode leaves to whoever wants them


class Tokenizer:
    """The tokenizer of a file.

    Args:
        tokens: as they are written in the file: a letter for each byte.
        merges: pairs of tokens that are joined, the most urgent first, e.g. "Ġ t".
        control: the numbers of those tokens that stand for no text.
        end: the numbers of those that end an answer.
        template: of a conversation, in Jinja's language; None where there is none.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        control: Iterable[int],
        end: Iterable[int],
        template: str | None,
    ) -> None:
        self.vocabulary = len(tokens)
        self.control = {tokens[number]: number for number in control}
        self.end = frozenset(end)
        self._template = template
        self._bytes = [_bytes_of(token) for token in tokens]
        numbers = {token: number for number, token in enumerate(tokens)}
        self._missing = {byte for letter, byte in _LETTERS.items() if letter not in numbers}
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        self._bpe = tokenizers.Tokenizer(models.BPE(numbers, pairs))
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> "Tokenizer":
        """The tokenizer of a GGUF file.

        Raises:
            GGUFError: the file has another kind of tokenizer, or what it says of it makes no sense.
        """
        metadata = gguf.metadata
        for key, known in (("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")):
            if metadata.get(key) != known:
                raise GGUFError(f"{key} must be {known!r} (SmolLM's byte-level BPE), got {metadata.get(key)!r:.60}.")
        tokens, merges = (_strings(metadata, f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
        known_tokens = set(tokens)
        if len(known_tokens) != len(tokens):
            raise GGUFError("tokenizer.ggml.tokens lists a token twice. Cure: get the file anew.")
        for merge in merges:
            left, _, right = merge.partition(" ")
            if not {left, right, left + right} <= known_tokens or not left or not right:
                raise GGUFError(f"tokenizer.ggml.merges has {merge!r:.60}, which joins no two tokens to a third.")
        types = metadata.get("tokenizer.ggml.token_type", ())
        if isinstance(types, str) or not hasattr(types, "__len__") or len(types) != len(tokens):
            raise GGUFError(f"tokenizer.ggml.token_type must hold a type for each of the {len(tokens)} tokens.")
        control = [number for number, kind in enumerate(types) if kind == _CONTROL and tokens[number]]
        end = {number for number in control if tokens[number] in _ENDS}
        for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
            number = metadata.get(key)
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(tokens):
                raise GGUFError(f"{key} must be the number of a token, so below {len(tokens)}, got {number!r:.60}.")
            end.add(number)
        template = metadata.get("tokenizer.chat_template")
        if template is not None and not isinstance(template, str):
            raise GGUFError(f"tokenizer.chat_template must be a string, got {template!r:.60}.")
        return cls(tokens, merges, control, end, template)

    def encode(self, text: str) -> list[int]:
        """The tokens of plain text: "<|im_start|>" in it is letters, not the control token.

        A character of which the vocabulary lacks a byte becomes U+FFFD, as does half of a surrogate pair.
        """
        return self._bpe.encode(self._expressible(text)).ids

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD, control tokens are written out.

        Raises:
            ValueError: there is no such token.
        """
        return b"".join(self._bytes_at(token) for token in tokens).decode("utf-8", "replace")

    def stream(self) -> "TextStream":
        """A decoder to which tokens come one by one."""
        return TextStream(self)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation in the form of the file's template, up to where the assistant's answer begins.

        Control tokens come from the template alone: "<|im_end|>" in a message is letters, so nobody can end their own
        message and go on in the name of another.

        Args:
            messages: each with "role" (system, user or assistant) and "content".

        Raises:
            ValueError: no message, another role, no text, or a template that cannot be filled in.
        """
        if not messages:
            raise ValueError("messages must hold at least one message, got none")
        for message in messages:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise ValueError(
                    f"each message must have a role of {', '.join(ROLES)} and a content, got {message!r:.200}"
                )
        # where a message has the first character of a control token, a private one stands for it until the end
        said = "".join(message["content"] for message in messages)
        free = (chr(code) for code in _PRIVATE if chr(code) not in said)
        veil = {
            ord(first): private
            for first, private in zip(sorted({name[0] for name in self.control}), free, strict=False)
        }
        lift = {ord(private): chr(first) for first, private in veil.items()}
        veiled = [{**message, "content": message["content"].translate(veil)} for message in messages]
        tokens: list[int] = []
        for piece in self._control_pattern.split(self._rendered(veiled)):
            if piece in self.control:
                tokens.append(self.control[piece])
            elif piece:
                tokens += self.encode(piece.translate(lift))
        return tokens

    def _rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        if self._template is None:
            raise ValueError(
                "The file has no chat template. Cure: take a file of a model that was trained on conversations."
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            return environment.from_string(self._template).render(messages=messages, add_generation_prompt=True)
        except (jinja2.TemplateError, TypeError, ArithmeticError, LookupError, OverflowError) as error:
            raise ValueError(f"The file's chat template cannot be filled in: {str(error)[:200]!r}") from None

    @cached_property
    def _control_pattern(self) -> "re.Pattern[str]":
        """Any of the control tokens, the longest first; in brackets, so that `split` keeps them."""
        names = sorted(self.control, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names))})" if names else r"($.)")

    def _expressible(self, text: str) -> str:
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        if self._missing.isdisjoint(text.encode()):
            return text
        return "".join(each if self._missing.isdisjoint(each.encode()) else "\ufffd" for each in text)

    def _bytes_at(self, token: int) -> bytes:
        if not 0 <= token < self.vocabulary:
            raise ValueError(f"tokens must be numbers below {self.vocabulary}, got {token}")
        return self._bytes[token]


class TextStream:
    """Gives out text as its tokens come, and holds back the bytes of a character that is not whole yet."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this token completes; may be none."""
        return self._decoder.decode(self._tokenizer._bytes_at(token))

    def end(self) -> str:
        """What was held back: U+FFFD where a character stayed unfinished."""
        return self._decoder.decode(b"", final=True)


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list):
        raise GGUFError(f"{key} must be a list of strings, got {value!r:.60}.")
    return value


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: itself where it is printable in Latin-1, else one from 256 on, in order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_LETTERS = _byte_letters()


def _bytes_of(token: str) -> bytes:
    """The bytes of a token; one that is not written in the letters of bytes stands for itself."""
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode()
