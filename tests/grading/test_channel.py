"""Messages over a socket: what is sent arrives, and what is no message is refused."""

import json
import socket
import threading
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.grading import channel
from course_lib.grading.channel import HEADER, Channel, Gone, OutOfTime, WireError, frame, lengths, unframe

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=40)
)
TREES = st.recursive(LEAVES, lambda trees: st.lists(trees, max_size=5), max_leaves=30)


def opened(message: bytes) -> object:
    structure, blobs = lengths(message[: HEADER.size])
    return unframe(message[HEADER.size : HEADER.size + structure], message[HEADER.size + structure :][:blobs])


@given(TREES)
def test_every_tree_comes_out_as_it_went_in(tree: object) -> None:
    assert repr(opened(frame(tree))) == repr(tree)  # repr tells 1 from True and 0.0 from -0.0


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_are_a_tree_or_refused(structure: bytes, blobs: bytes) -> None:
    with suppress(WireError):
        unframe(structure, blobs)


@given(TREES, st.data())
def test_damaged_message_is_a_tree_or_refused(tree: object, data: st.DataObject) -> None:
    message = bytearray(frame(tree))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(HEADER.size, len(message)))
    with suppress(WireError):
        opened(bytes(message[:cut]))


@pytest.mark.parametrize(
    ("structure", "blobs"),
    [
        (b'[{"":4},{"":4}]', b"four"),  # the same bytes twice
        (b'[{"":2}]', b"four"),  # bytes that nothing stands for
        (b'{"":-1}', b""),
        (b'{"":true}', b"x"),
        (b'{"":1.0}', b"x"),
        (b'{"":{"":1}}', b"x"),
        (b'{"":1,"more":1}', b"x"),
        (b"{}", b""),
        (b'["\xc3\xa4"]', b""),
        (b"[1] [2]", b""),
        (b"1" * 5000, b""),
        (b"[" * 100_000, b""),
        (b"[" * 100_000 + b"]" * 100_000, b""),
        (b"", b""),
    ],
)
def test_what_no_side_sends_is_refused(structure: bytes, blobs: bytes) -> None:
    with pytest.raises(WireError):
        unframe(structure, blobs)


def test_message_takes_no_more_memory_than_a_multiple_of_its_length() -> None:
    dense = b"[" + b"[]," * (2**18) + b"[]]"
    tracemalloc.start()
    try:
        unframe(dense, b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(dense)


def test_announced_length_takes_no_memory_before_it_comes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(HEADER.pack(10, channel.LONGEST_BLOBS) + b"[")
        theirs.close()
        tracemalloc.start()
        try:
            with pytest.raises(Gone):
                Channel(ours).receive()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**20 * 3


@pytest.mark.parametrize(
    "message", [HEADER.pack(2**32 - 1, 0), HEADER.pack(0, 2**64 - 1), HEADER.pack(1, 0) + b"?", b"", b"\0" * 5]
)
def test_side_that_sends_no_message_is_gone(message: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(message)
        theirs.close()
        with pytest.raises(Gone):
            Channel(ours).receive()


def test_message_is_refused_before_a_byte_of_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "LONGEST_BLOBS", 1000)
    monkeypatch.setattr(channel, "LONGEST_STRUCTURE", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for tree in ([b"x" * 1001], ["x"] * 1000, {1, 2}, 10**5000, object()):
            with pytest.raises(WireError):
                Channel(ours).send(tree)
        Channel(ours).send(["next"])
        assert Channel(theirs).receive() == ["next"]


def test_side_that_says_nothing_is_out_of_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waiting = Channel(ours)
        waiting.deadline = 0.0  # long ago
        with pytest.raises(OutOfTime):
            waiting.receive()
        with pytest.raises(OutOfTime):
            waiting.send(["anything"])


def test_long_message_crosses_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        tree = [b"\x07" * 3_000_000, list(range(100_000))]
        sender = threading.Thread(target=Channel(theirs).send, args=(tree,))
        sender.start()
        assert Channel(ours).receive() == tree
        sender.join()


def test_structure_is_json_that_a_person_can_read() -> None:
    message = frame(["call", 3, b"\0\1"])
    structure, blobs = lengths(message[: HEADER.size])
    assert json.loads(message[HEADER.size : HEADER.size + structure]) == ["call", 3, {"": 2}]
    assert message[HEADER.size + structure :] == b"\0\1" and blobs == 2
