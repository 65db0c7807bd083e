"""The server in OpenAI's form, asked by a real client over a real connection."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from course_lib.decoding.scheduling import Scheduler
from course_lib.decoding.server import Server
from tests.decoding.notebook_engine import VOCABULARY, NotebookEngine, answer_to

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"  # a letter for each token
END = LETTERS.index("X")


class LetterStream:
    def push(self, token: int) -> str:
        return LETTERS[token]

    def end(self) -> str:
        return ""


class LetterTokenizer:
    end = frozenset({END})

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def chat(self, messages: Sequence[Any]) -> list[int]:
        return [0, *self.encode("".join(message["content"] for message in messages)), 1]

    def stream(self) -> LetterStream:
        return LetterStream()


class GatedEngine(NotebookEngine):
    """Makes a step only when it is let, once the gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: threading.Semaphore | None = None

    def forward(self, pool: Any, work: Any) -> list[np.ndarray]:
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        return super().forward(pool, work)


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def server(engine: GatedEngine) -> Iterator[Server]:
    with Server(Scheduler(engine, blocks=100, size=4), LetterTokenizer(), "letters") as server:
        yield server
        if engine.gate is not None:
            engine.gate.release(10_000)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


def text_of(prompt: str, limit: int) -> str:
    return "".join(LETTERS[token] for token in answer_to(LetterTokenizer().encode(prompt), limit, [END]))


def events_of(lines: Iterator[str]) -> list[dict[str, Any]]:
    found = [line.removeprefix("data: ") for line in lines if line]
    assert found[-1] == "[DONE]"
    return [json.loads(line) for line in found[:-1]]


def test_completion_has_text_reason_and_usage(client: httpx.Client) -> None:
    reply = client.post(
        "/v1/completions", json={"model": "letters", "prompt": "abc", "max_tokens": 9, "temperature": 0}
    )
    assert reply.status_code == 200
    content = reply.json()
    assert content["object"] == "text_completion"
    assert content["choices"][0]["text"] == text_of("abc", 9)
    assert content["choices"][0]["finish_reason"] == "length"
    usage = content["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 9, 12)


def test_answer_that_ends_by_itself_says_stop(client: httpx.Client) -> None:
    beginnings = (first + second for first in LETTERS for second in LETTERS)
    prompt = next(p for p in beginnings if 0 < len(text_of(p, 60)) < 60)
    content = client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 60, "temperature": 0}).json()
    assert content["choices"][0] == {
        "index": 0,
        "text": text_of(prompt, 60),
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_streamed_chat_has_a_piece_for_each_token_then_reason_usage_and_done(client: httpx.Client) -> None:
    wish = {"messages": [{"role": "user", "content": "cd"}], "max_completion_tokens": 7, "temperature": 0}
    whole = client.post("/v1/chat/completions", json=wish).json()
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text_of("acdb", 7)}
    wish |= {"stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/chat/completions", json=wish) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        first, *middle, last, usage = events_of(reply.iter_lines())
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["delta"]["content"] for event in middle] == list(text_of("acdb", 7))
    assert {event["object"] for event in middle} == {"chat.completion.chunk"}
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 7
    assert len({event["id"] for event in (first, *middle, last, usage)}) == 1


def test_streamed_completion_says_the_same_as_the_whole_one(client: httpx.Client) -> None:
    wish = {"prompt": [5, 6, 7], "max_tokens": 12, "seed": 3}
    whole = client.post("/v1/completions", json=wish).json()["choices"][0]
    with client.stream("POST", "/v1/completions", json={**wish, "stream": True}) as reply:
        events = events_of(reply.iter_lines())
    assert "".join(event["choices"][0]["text"] for event in events) == whole["text"]
    assert events[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]


def test_stop_string_across_tokens_ends_the_answer_and_is_not_in_it(client: httpx.Client, server: Server) -> None:
    whole = text_of("abc", 20)
    stop = whole[5:8]
    wish = {"prompt": "abc", "max_tokens": 20, "temperature": 0, "stop": ["?!", stop]}
    choice = client.post("/v1/completions", json=wish).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    wait_until_idle(server)


def wait_until_idle(server: Server, let: threading.Semaphore | None = None) -> None:
    for _ in range(500):
        if server.serving.scheduler.idle:
            break
        if let is not None:
            let.release()
        time.sleep(0.02)
    assert server.serving.scheduler.idle
    assert server.serving.scheduler.blocks.free == server.serving.scheduler.blocks.blocks


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_client_that_breaks_off_frees_its_blocks(server: Server, engine: GatedEngine, stream: bool) -> None:
    engine.gate = threading.Semaphore(5)
    body = json.dumps({"prompt": "abcdefgh", "max_tokens": 150, "temperature": 0, "stream": stream}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        if stream:
            assert connection.recv(10)
        for _ in range(500):
            if len(engine.steps) == 5:
                break
            time.sleep(0.02)
        scheduler = server.serving.scheduler
        assert scheduler.blocks.free < scheduler.blocks.blocks
    wait_until_idle(server, let=engine.gate)
    assert len(engine.steps) < 150


def test_httpx_client_that_closes_a_stream_frees_its_blocks(
    client: httpx.Client, server: Server, engine: GatedEngine
) -> None:
    engine.gate = threading.Semaphore(5)
    wish = {"prompt": "abcdefgh", "max_tokens": 150, "stream": True, "temperature": 0}
    with client.stream("POST", "/v1/completions", json=wish) as reply:
        next(reply.iter_lines())
    wait_until_idle(server, let=engine.gate)
    assert len(engine.steps) < 150
    engine.gate.release(1000)
    choice = client.post("/v1/completions", json={"prompt": "abc", "temperature": 0}).json()["choices"][0]
    assert choice["text"] == text_of("abc", 16)


def test_sixteen_at_once_share_the_steps_and_get_what_they_get_alone(
    client: httpx.Client, server: Server, engine: GatedEngine
) -> None:
    engine.gate = threading.Semaphore(0)
    prompts = [f"abcdefgh{letter}" for letter in LETTERS[:16]]

    def ask(prompt: str) -> str:
        wish = {"prompt": prompt, "max_tokens": 30, "temperature": 0}
        return client.post("/v1/completions", json=wish).json()["choices"][0]["text"]

    with ThreadPoolExecutor(16) as crowd:
        answers = crowd.map(ask, prompts)
        for _ in range(500):
            if len(server.serving._answers) + len(server.serving._to_do) == 16:
                break
            time.sleep(0.02)
        engine.gate.release(10_000)
        assert list(answers) == [text_of(prompt, 30) for prompt in prompts]
    assert len(engine.steps) < 16 * 30 / 4
    wait_until_idle(server)


CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


@pytest.mark.parametrize(
    ("path", "content", "argument"),
    [
        (PLAIN, {}, "prompt"),
        (PLAIN, {"prompt": ""}, "prompt"),
        (PLAIN, {"prompt": []}, "prompt"),
        (PLAIN, {"prompt": 5}, "prompt"),
        (PLAIN, {"prompt": [True]}, "prompt"),
        (PLAIN, {"prompt": [VOCABULARY]}, "prompt"),
        (PLAIN, {"prompt": [-1]}, "prompt"),
        (PLAIN, {"prompt": "\ud800"}, "prompt"),
        (PLAIN, {"prompt": "a" * 200}, "prompt"),
        (PLAIN, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        (PLAIN, {"prompt": "a", "max_tokens": 200}, "max_tokens"),
        (PLAIN, {"prompt": "a", "max_tokens": 10**30}, "max_tokens"),
        (PLAIN, {"prompt": "a", "max_tokens": "5"}, "max_tokens"),
        (PLAIN, {"prompt": "a", "temperature": -0.1}, "temperature"),
        (PLAIN, {"prompt": "a", "temperature": True}, "temperature"),
        (PLAIN, {"prompt": "a", "temperature": float("nan")}, "temperature"),
        (PLAIN, {"prompt": "a", "top_p": 0}, "top_p"),
        (PLAIN, {"prompt": "a", "seed": -1}, "seed"),
        (PLAIN, {"prompt": "a", "stop": ""}, "stop"),
        (PLAIN, {"prompt": "a", "stop": ["x"] * 5}, "stop"),
        (PLAIN, {"prompt": "a", "stop": [1]}, "stop"),
        (PLAIN, {"prompt": "a", "stream": "yes"}, "stream"),
        (PLAIN, {"prompt": "a", "stream_options": 1}, "stream_options"),
        (PLAIN, {"prompt": "a", "n": 2}, "n"),
        (PLAIN, {"prompt": "a", "tools": [{}]}, "tools"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": ["hi"]}, "messages"),
        (CHAT, {"messages": [{"role": "wizard", "content": "a"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_bad_argument_is_a_400_that_names_it(client: httpx.Client, path: str, content: Any, argument: str) -> None:
    reply = client.post(path, content=json.dumps(content), headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", argument)
    assert argument in error["message"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[1]", b"[" * 100_000, b""])
def test_body_that_is_no_json_object_is_a_400(client: httpx.Client, body: bytes) -> None:
    reply = client.post(PLAIN, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_other_mistakes_have_their_own_status_as_json(client: httpx.Client) -> None:
    def status(reply: httpx.Response) -> int:
        assert reply.json()["error"]["message"]
        return reply.status_code

    assert status(client.get("/")) == 404
    assert status(client.post("/v1/nothing", json={})) == 404
    assert status(client.post(PLAIN, json={"prompt": "a", "model": "gpt-4"})) == 404
    assert status(client.post(PLAIN, content=b"{}", headers={"Content-Type": "text/plain"})) == 415
    assert status(client.post(PLAIN, content=iter([b"{}"]))) == 411


def test_body_that_is_too_long_is_refused_before_it_is_sent(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_text_that_the_tokenizer_refuses_is_a_400(client: httpx.Client) -> None:
    reply = client.post(PLAIN, json={"prompt": "a!"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_neutral_and_harmless_arguments_are_accepted(client: httpx.Client) -> None:
    extra = {"n": 1, "user": "me", "presence_penalty": 0, "logprobs": None, "stop": None, "top_k": 5, "min_p": 0.1}
    assert client.post(PLAIN, json={"prompt": "a", **extra}).status_code == 200


def test_text_parts_of_a_message_are_joined(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]
    wish = {"messages": [{"role": "user", "content": parts}], "max_tokens": 5, "temperature": 0}
    assert client.post(CHAT, json=wish).json()["choices"][0]["message"]["content"] == text_of("acdb", 5)


def test_model_is_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["letters"]
    assert client.get("/v1/models/letters").json()["object"] == "model"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_engine_that_fails_is_told_and_the_next_request_is_served(
    client: httpx.Client, server: Server, engine: GatedEngine, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pool: Any, work: Any) -> list[np.ndarray]:
        raise OSError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "forward", broken)
        reply = client.post(PLAIN, json={"prompt": "abc", "stream": stream})
        assert "out of memory" in reply.text
        assert reply.status_code == (200 if stream else 500)
    wait_until_idle(server)
    assert client.post(PLAIN, json={"prompt": "abc", "temperature": 0}).json()["choices"][0]["text"] == text_of(
        "abc", 16
    )


def test_closed_server_tells_whoever_waits_and_leaves_no_thread() -> None:
    engine, before = GatedEngine(), threading.active_count()
    engine.gate = threading.Semaphore(3)
    server = Server(Scheduler(engine, blocks=100, size=4), LetterTokenizer(), "letters")
    with ThreadPoolExecutor(1) as crowd, httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        waiting = crowd.submit(client.post, PLAIN, json={"prompt": "abc", "max_tokens": 100, "temperature": 0})
        while len(engine.steps) < 3:
            time.sleep(0.02)
        closing = threading.Thread(target=server.close)
        closing.start()
        while not server.serving._closing:  # the engine is in the middle of a step until then
            time.sleep(0.02)
        engine.gate.release(10_000)
        closing.join()
        assert waiting.result().status_code == 500
    for _ in range(250):
        if threading.active_count() <= before:
            break
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_openai_package_finds_what_it_expects(server: Server) -> None:
    openai = pytest.importorskip("openai")
    transport = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=transport) as client:
        messages = [{"role": "user", "content": "cd"}]
        whole = client.chat.completions.create(model="letters", messages=messages, max_tokens=7, temperature=0)
        assert whole.choices[0].message.content == text_of("acdb", 7)
        assert whole.usage.completion_tokens == 7
        stream = client.chat.completions.create(
            model="letters", messages=messages, max_tokens=7, temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text_of("acdb", 7)
        assert client.completions.create(model="letters", prompt="abc", temperature=0).choices[0].text == text_of(
            "abc", 16
        )
        assert [model.id for model in client.models.list()] == ["letters"]
        with pytest.raises(openai.BadRequestError, match="messages"):
            client.chat.completions.create(model="letters", messages=[])
