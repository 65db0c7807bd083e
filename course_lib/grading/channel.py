"""Messages over a socket: trees of numbers, strings and lists, of limited size, each within a deadline.

    message = structure length (4 bytes), blob length (8 bytes), structure (msgpack), blobs (raw bytes)

The two lengths are limited apart, because a byte of structure may become a hundred bytes of objects, a byte of a blob
stays a byte. msgpack has no code in it, and of what it can hold only the kinds of a tree are let through.
"""

import socket
import struct
import time
from typing import Any

import msgpack

LONGEST_STRUCTURE = 4 * 2**20  # bytes of msgpack; a list of 400,000 numbers fits
LONGEST_BLOBS = 256 * 2**20  # bytes of tensors, arrays and texts in one message
DEEPEST = 250  # levels of a tree
HEADER = struct.Struct(">IQ")

Tree = Any  # None, bool, int, float, str, bytes, and lists of such


class WireError(Exception):
    """A message is not what it should be, or a value has no plain form. No ValueError: checks look for those."""


class Gone(BaseException):
    """The other side has ended, or does not keep to the language. Not an Exception: no check may swallow it."""


class OutOfTime(BaseException):
    """The other side did not answer in time. Not an Exception: no check may swallow it.

    `line` is the line of the learner's cell that was running, 0 where that is not known.
    """

    def __init__(self, line: int = 0) -> None:
        super().__init__(line)
        self.line = line


class Channel:
    """Trees over a socket, each within a deadline (in seconds of `time.monotonic`)."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.deadline: float | None = None

    def send(self, tree: Tree) -> None:
        """Send one message.

        Raises:
            WireError: the message is too large; nothing was sent.
            Gone, OutOfTime: it could not be sent.
        """
        content = frame(tree)
        try:
            self._allow()
            self.stream.sendall(content)
        except TimeoutError:
            raise OutOfTime from None
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(self) -> Tree:
        """The next message.

        Raises:
            Gone: there is none, or it is none.
            OutOfTime: it did not come in time.
        """
        try:
            structure, blobs = lengths(self._read(HEADER.size))
            return unframe(self._read(structure), self._read(blobs))
        except WireError as error:
            raise Gone(f"it says what nobody understands: {error}") from None
        except TimeoutError:
            raise OutOfTime from None
        except OSError as error:
            raise Gone(str(error)) from None

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            self._allow()
            piece = self.stream.recv(min(length - len(content), 1 << 20))
            if not piece:
                raise Gone("it has ended")
            content += piece
        return bytes(content)

    def _allow(self) -> None:
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.stream.settimeout(left)


def frame(tree: Tree) -> bytes:
    """`tree` as bytes to send: bytes in it go to the blobs.

    Raises:
        WireError: it is too long.
    """
    blobs: list[bytes] = []
    try:
        structure = msgpack.packb(_hoisted(tree, blobs, [0]), use_bin_type=True)
    except (ValueError, OverflowError, TypeError) as error:
        raise WireError(f"a value cannot be sent ({error})") from error
    length = sum(map(len, blobs))
    if len(structure) > LONGEST_STRUCTURE or length > LONGEST_BLOBS:
        raise WireError(f"a value of {len(structure) + length:,} bytes is too large to be handed over")
    return b"".join([HEADER.pack(len(structure), length), structure, *blobs])


def lengths(header: bytes) -> tuple[int, int]:
    """The lengths of structure and blobs that a header announces.

    Raises:
        WireError: they are longer than allowed.
    """
    structure, blobs = HEADER.unpack(header)
    if structure > LONGEST_STRUCTURE or blobs > LONGEST_BLOBS:
        raise WireError(f"a message of {structure + blobs:,} bytes is too long")
    return structure, blobs


def unframe(structure: bytes, blobs: bytes) -> Tree:
    """The tree of a message.

    Raises:
        WireError: it is no such message.
    """
    try:
        tree = msgpack.unpackb(structure, raw=False, strict_map_key=True, max_map_len=0, max_bin_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises ValueError, its own exceptions, and RecursionError
        raise WireError(f"no message ({type(error).__name__})") from error
    return _lowered(tree, memoryview(blobs), 0)


def _hoisted(tree: Tree, blobs: list[bytes], so_far: list[int]) -> Tree:
    """`tree` with the place of a blob instead of bytes: a list of one list, which no value looks like."""
    if isinstance(tree, bytes):
        start = so_far[0]
        blobs.append(tree)
        so_far[0] += len(tree)
        return [[start, len(tree)]]
    if isinstance(tree, list):
        return ["L", *[_hoisted(each, blobs, so_far) for each in tree]]
    return tree


def _lowered(tree: Tree, blobs: memoryview, depth: int) -> Tree:
    if not isinstance(tree, list):
        if tree is None or type(tree) in (bool, int, float, str):
            return tree
        raise WireError(f"a {type(tree).__name__} in a message")
    if depth > DEEPEST:
        raise WireError("a message is nested too deeply")
    if tree and tree[0] == "L" and type(tree[0]) is str:
        return [_lowered(each, blobs, depth + 1) for each in tree[1:]]
    if len(tree) == 1 and type(tree[0]) is list and len(tree[0]) == 2:
        start, length = tree[0]
        if type(start) is int and type(length) is int and 0 <= start <= start + length <= len(blobs):
            return bytes(blobs[start : start + length])
    raise WireError("a message has a list that is none")
