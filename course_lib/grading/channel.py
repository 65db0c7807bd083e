"""Messages over a socket: trees of numbers, strings and lists, of limited size, each within a deadline.

    message = structure length (4 bytes), blob length (8 bytes), structure (JSON), blobs (raw bytes)

In the structure {"": length} stands for bytes: the next `length` bytes of the blobs. So every byte that was sent is
used once, and what a message becomes in memory is at most a few dozen times its structure, and its blobs.
"""

import json
import socket
import struct
import time
from typing import Any

LONGEST_STRUCTURE = 8 * 2**20  # bytes of JSON; a list of 400,000 numbers fits
LONGEST_BLOBS = 256 * 2**20  # bytes of tensors, arrays and texts in one message
LONGEST_REASON = 300  # characters
HEADER = struct.Struct(">IQ")

Tree = Any  # None, bool, int, float, str, bytes, and lists of such


class WireError(Exception):
    """A message is not what it should be, or a value has no plain form. No ValueError: checks look for those."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:LONGEST_REASON])  # it may quote the message


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

    def _read(self, length: int) -> bytearray:
        content = bytearray()  # it grows with what comes, not with what was announced
        while len(content) < length:
            self._allow()
            piece = self.stream.recv(min(length - len(content), 1 << 20))
            if not piece:
                raise Gone("it has ended")
            content += piece
        return content

    def _allow(self) -> None:
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.stream.settimeout(left)


def frame(tree: Tree) -> bytes:
    """`tree` as bytes to send.

    Raises:
        WireError: it is too long, or no tree.
    """
    blobs: list[bytes] = []

    def put_aside(thing: object) -> dict[str, int]:
        if type(thing) is not bytes:
            raise TypeError(f"a {type(thing).__name__} in a message")
        blobs.append(thing)
        return {"": len(thing)}

    try:
        writer = json.JSONEncoder(check_circular=False, separators=(",", ":"), default=put_aside)
        structure = writer.encode(tree).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"a value cannot be sent ({error})") from error
    length = sum(map(len, blobs))
    if len(structure) > LONGEST_STRUCTURE or length > LONGEST_BLOBS:
        raise WireError(f"a value of {len(structure) + length:,} bytes is too large to be handed over")
    return b"".join([HEADER.pack(len(structure), length), structure, *blobs])


def lengths(header: bytes | bytearray) -> tuple[int, int]:
    """The lengths of structure and blobs that a header announces.

    Raises:
        WireError: they are longer than allowed.
    """
    structure, blobs = HEADER.unpack(header)
    if structure > LONGEST_STRUCTURE or blobs > LONGEST_BLOBS:
        raise WireError(f"a message of {structure + blobs:,} bytes is too long")
    return structure, blobs


def unframe(structure: bytes | bytearray, blobs: bytes | bytearray) -> Tree:
    """The tree of a message.

    Raises:
        WireError: it is no such message.
    """
    left, used = memoryview(blobs), 0

    def take(entry: dict[str, Any]) -> bytes:
        nonlocal used
        length = entry.get("")
        if len(entry) != 1 or type(length) is not int or not 0 <= length <= len(left) - used:
            raise WireError("an object that stands for no bytes")
        used += length
        return bytes(left[used - length : used])

    try:
        tree = json.loads(structure.decode("ascii"), object_hook=take)
    except WireError:
        raise
    except Exception as error:  # ValueError, RecursionError, MemoryError
        raise WireError(f"no message ({type(error).__name__})") from error
    if used != len(left):
        raise WireError("bytes that nothing stands for")
    return tree
