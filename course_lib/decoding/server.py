"""A small HTTP server in OpenAI's form: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, streaming or not.

Each connection has a thread, which waits; one thread runs the scheduler, and only that one touches it. A client that
breaks off is noticed while it is waited for, and its request is cancelled, so that its blocks are free for others.

It listens on this machine alone, knows no users, and does not limit how many wait: put nothing else in front of it.

Sources: OpenAI's API reference; the HTML standard, section "Server-sent events".
"""

import json
import queue
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from course_lib.decoding.generation import Text, stream_text
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.scheduling import Event, Request, Scheduler

MOST_BYTES = 4_000_000  # of a request's body
PATIENCE = 60.0  # seconds that a connection may be silent where it is its turn
LOOK = 0.1  # seconds between two looks whether a client is still there


class ClientGoneError(Exception):
    """The client has closed its connection."""


class BadRequestError(ValueError):
    """A request that cannot be served: `status` for HTTP, and the argument that is to blame."""

    def __init__(self, message: str, argument: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.argument, self.status, self.code = argument, status, code


class Tokens(Protocol):
    """What the server asks of a tokenizer; `course_lib.language.tokenizer.Tokenizer` is one."""

    end: frozenset[int]

    def encode(self, text: str) -> list[int]: ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...

    def stream(self) -> Text: ...


class Answer:
    """The tokens of a request, as they come."""

    def __init__(self, serving: "Serving", request: Request) -> None:
        self.request = request
        self.written = 0  # tokens, that which ends the answer included
        self.reason: str | None = None
        self._serving = serving
        self._events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()

    def tokens(self, is_there: Callable[[], bool]) -> Iterator[int]:
        """The tokens, without the one that ends the answer; `reason` is set at the end.

        Args:
            is_there: asked again and again whether somebody still wants them.

        Raises:
            ClientGoneError: nobody does.
            RuntimeError: the engine failed, or the server was closed.
        """
        while self.reason is None:
            if not is_there():
                raise ClientGoneError
            try:
                event = self._events.get(timeout=LOOK)
            except queue.Empty:
                continue
            if isinstance(event, Exception):
                raise RuntimeError(f"the engine failed: {event}") from event
            self.written, self.reason = self.written + 1, event.reason
            if event.reason != "stop":
                yield event.token

    def cancel(self) -> None:
        """Free its blocks; nothing happens where it has finished."""
        self._serving.forget(self)


class Serving:
    """A scheduler in a thread of its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._answers: dict[int, Answer] = {}
        self._to_do: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def start(self, request: Request) -> Answer:
        """Let a request wait for its turn.

        Raises:
            ValueError: the request cannot be served (see `Scheduler.submit`).
            RuntimeError: the server was closed.
        """
        self.scheduler.check(request)
        answer = Answer(self, request)

        def submit() -> None:
            self._answers[id(request)] = answer
            self.scheduler.submit(request)

        self._order(submit)
        return answer

    def forget(self, answer: Answer) -> None:
        """Cancel a request and free its blocks."""

        def cancel() -> None:
            self._answers.pop(id(answer.request), None)
            self.scheduler.cancel(answer.request)

        if not self._closing:
            self._order(cancel)

    def close(self) -> None:
        """End the thread after its step; whoever still waits gets a RuntimeError."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _order(self, action: Callable[[], None]) -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is closed")
            self._to_do.append(action)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._to_do or not self.scheduler.idle)
                actions, self._to_do = self._to_do, []
            for action in actions:
                action()
            if self._closing:
                return self._give_up(RuntimeError("the server is closed"))
            try:
                events = self.scheduler.step()
            except Exception as error:  # whoever waits has to hear of it, and later requests are served
                self._give_up(error)
                continue
            for event in events:
                answer = self._answers[id(event.request)]
                if event.reason is not None:
                    del self._answers[id(event.request)]
                answer._events.put(event)

    def _give_up(self, error: Exception) -> None:
        for answer in self._answers.values():
            self.scheduler.cancel(answer.request)
            answer._events.put(error)
        self._answers.clear()


class Wish(NamedTuple):
    """What a client asks for, checked."""

    request: Request
    stops: list[str]
    stream: bool
    usage: bool  # at the end of a stream, too
    chat: bool


# what OpenAI's API has and this server has not: allowed with the value that changes nothing
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
}
_HARMLESS = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
}
_SAMPLING = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"}
_SHARED = {"model", "stop", "stream", "stream_options", "max_tokens", *_SAMPLING}


def read_wish(content: Any, tokenizer: Tokens, room: int, chat: bool) -> Wish:
    """Check what a client sent, and make a request of it.

    Args:
        content: the JSON of the body.
        tokenizer: turns text into tokens.
        room: how many tokens prompt and answer may take together.
        chat: whether it came to `/v1/chat/completions`.

    Raises:
        BadRequestError: an argument is missing, of another type, out of range, or not supported.
    """
    if not isinstance(content, dict):
        raise BadRequestError('the body must be a JSON object, as in {"prompt": "Hello"}')
    known = _SHARED | ({"messages", "max_completion_tokens"} if chat else {"prompt"})
    for name, value in content.items():
        if value is None or name in known or name in _HARMLESS or value in _NEUTRAL.get(name, ()):
            continue
        raise BadRequestError(f"{name} is not supported by this server. Cure: leave it out", name)
    prompt = _messages(content, tokenizer) if chat else _prompt(content, tokenizer)
    left = room - len(prompt)
    if left < 1:
        raise BadRequestError(
            f"the prompt has {len(prompt)} tokens, and {room} is all there is for prompt and answer. "
            "Cure: a shorter prompt",
            "messages" if chat else "prompt",
            code="context_length_exceeded",
        )
    limit = _whole(content, "max_tokens", 1, room, left if chat else min(16, left))
    limit = _whole(content, "max_completion_tokens", 1, room, limit)
    if limit > left:
        raise BadRequestError(
            f"max_tokens is {limit}, and after a prompt of {len(prompt)} tokens there is room for {left}",
            "max_tokens",
            code="context_length_exceeded",
        )
    sampler = Sampler(
        temperature=_number(content, "temperature", 0, 2, 1.0),
        top_k=_whole(content, "top_k", 1, 2**31, 0) or None,
        top_p=_number(content, "top_p", 0, 1, 1.0, above=True),
        min_p=_number(content, "min_p", 0, 1, 0.0),
        repetition_penalty=_number(content, "repetition_penalty", 0, 10, 1.0, above=True),
        seed=_whole(content, "seed", 0, 2**63 - 1, secrets.randbits(63)),
    )

    def choose(logits: np.ndarray, tokens: Sequence[int]) -> int:
        return sampler(torch.from_numpy(logits), tokens)

    options = content.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequestError("stream_options must be an object", "stream_options")
    return Wish(
        Request(prompt, limit, tokenizer.end, choose),
        _stops(content),
        _flag(content, "stream", "stream"),
        _flag(options or {}, "include_usage", "stream_options"),
        chat,
    )


def _text(value: Any, argument: str) -> str:
    if not isinstance(value, str):
        raise BadRequestError(f"{argument} must be a text", argument)
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates: JSON can write it, UTF-8 cannot
        raise BadRequestError(f"{argument} holds half a character (a lone surrogate)", argument) from None
    return value


def _prompt(content: dict[str, Any], tokenizer: Tokens) -> list[int]:
    prompt = content.get("prompt")
    if isinstance(prompt, list) and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        tokens = prompt
    else:
        tokens = tokenizer.encode(_text(prompt, "prompt"))
    if not tokens:
        raise BadRequestError("prompt must not be empty", "prompt")
    return tokens


def _messages(content: dict[str, Any], tokenizer: Tokens) -> list[int]:
    messages = content.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise BadRequestError('messages must be a list of objects, as in {"role": "user", "content": "Hi"}', "messages")
    read = []
    for number, message in enumerate(messages):
        role, parts = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant"):
            raise BadRequestError(f"messages[{number}].role must be system, user or assistant", "messages")
        if isinstance(parts, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
            parts = "".join(_text(part.get("text"), "messages") for part in parts)
        read.append({"role": role, "content": _text(parts, "messages")})
    return tokenizer.chat(read)


def _stops(content: dict[str, Any]) -> list[str]:
    stop = content.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 4:
        raise BadRequestError("stop must be a text or a list of up to 4 texts", "stop")
    if "" in (stops := [_text(each, "stop") for each in stops]):
        raise BadRequestError("stop must not be empty", "stop")
    return stops


def _flag(content: dict[str, Any], name: str, argument: str) -> bool:
    value = content.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequestError(f"{name} must be true or false", argument)
    return bool(value)


def _number(content: dict[str, Any], name: str, low: float, high: float, default: float, above: bool = False) -> float:
    value = content.get(name)
    if value is None:
        return default
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above and value == low):
        raise BadRequestError(f"{name} must be a number {'above' if above else 'from'} {low} to {high}", name)
    return float(value)


def _whole(content: dict[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = content.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequestError(f"{name} must be a whole number from {low} to {high}", name)
    return value


class Server:
    """The HTTP server. `with Server(scheduler, tokenizer, "smollm2-135m") as server: ...` serves at `server.url`."""

    def __init__(
        self, scheduler: Scheduler, tokenizer: Tokens, name: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Listen; a free port is taken where `port` is 0.

        Raises:
            OSError: the port is taken, or may not be listened on.
        """
        self.serving = Serving(scheduler)
        self.tokenizer, self.name, self.created = tokenizer, name, int(time.time())
        self.room = min(scheduler.engine.shape.positions, scheduler.blocks.blocks * scheduler.size)
        server = self

        class Bound(_Handler):
            owner = server

        try:
            self._http = _HTTP((host, port), Bound)
        except OSError:
            self.serving.close()
            raise
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stop listening, and the scheduler's thread."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self.serving.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is everyday life, and says nothing in the terminal."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "small-and-fast"
    sys_version = ""
    timeout = PATIENCE
    disable_nagle_algorithm = True
    owner: Server

    def log_message(self, *message: object) -> None:
        """Nothing: the terminal belongs to whoever started the server."""

    def do_GET(self) -> None:
        model = {"id": self.owner.name, "object": "model", "created": self.owner.created, "owned_by": "small-and-fast"}
        path = self.path.partition("?")[0]
        if path == "/v1/models":
            self._send(200, {"object": "list", "data": [model]})
        elif path == f"/v1/models/{self.owner.name}":
            self._send(200, model)
        else:
            self._refuse(_no_such_path(path))

    def do_POST(self) -> None:
        try:
            content, path = self._body(), self.path.partition("?")[0]
            if path not in ("/v1/chat/completions", "/v1/completions"):
                raise _no_such_path(path)
            if isinstance(content, dict) and content.get("model") not in (None, self.owner.name):
                message = f"there is no model {content['model']!r} here. Cure: {self.owner.name!r}"
                raise BadRequestError(message, "model", 404, "model_not_found")
            wish = read_wish(content, self.owner.tokenizer, self.owner.room, path == "/v1/chat/completions")
            try:
                answer = self.owner.serving.start(wish.request)
            except ValueError as error:
                raise BadRequestError(str(error), "prompt") from error
        except BadRequestError as error:
            return self._refuse(error)
        except ValueError as error:  # of the tokenizer
            return self._refuse(BadRequestError(str(error)))
        except RuntimeError as error:
            return self._refuse(BadRequestError(str(error), status=503))
        try:
            self._answer(wish, answer)
        except (ClientGoneError, OSError):
            self.close_connection = True
        finally:
            answer.cancel()

    def _body(self) -> Any:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self.close_connection = True
            raise BadRequestError("the request must tell its Content-Length", status=411) from None
        if not 0 <= length <= MOST_BYTES:
            self.close_connection = True
            raise BadRequestError(f"the body may have {MOST_BYTES} bytes", status=413)
        body = self.rfile.read(length)
        if self.headers.get_content_type() != "application/json":
            # so that no page in a browser can send one without asking first
            raise BadRequestError("the body must be of type application/json", status=415)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequestError("the body is no JSON") from None

    def _is_there(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            return False

    def _answer(self, wish: Wish, answer: Answer) -> None:
        pieces = stream_text(answer.tokens(self._is_there), self.owner.tokenizer.stream(), wish.stops)
        kind = "chat.completion" if wish.chat else "text_completion"
        frame = {
            "id": f"{'chatcmpl' if wish.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": f"{kind}.chunk" if wish.chat and wish.stream else kind,
            "created": int(time.time()),
            "model": self.owner.name,
        }
        if wish.stream:
            return self._stream(wish, answer, pieces, frame)
        try:
            text = "".join(pieces)
        except RuntimeError as error:
            return self._refuse(BadRequestError(str(error), status=500))
        content = {"message": {"role": "assistant", "content": text}} if wish.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": answer.reason or "stop"}
        self._send(200, {**frame, "choices": [choice], "usage": _usage(answer)})

    def _stream(self, wish: Wish, answer: Answer, pieces: Iterator[str], frame: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def say(content: dict[str, Any], reason: str | None = None) -> None:
            self._event({**frame, "choices": [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]})

        if wish.chat:
            say({"delta": {"role": "assistant", "content": ""}})
        try:
            for piece in pieces:
                if piece:
                    say({"delta": {"content": piece}} if wish.chat else {"text": piece})
        except RuntimeError as error:
            self._event(_error(BadRequestError(str(error), status=500)))
        else:
            say({"delta": {}} if wish.chat else {"text": ""}, answer.reason or "stop")
            if wish.usage:
                self._event({**frame, "choices": [], "usage": _usage(answer)})
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, content: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(content).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, error: BadRequestError) -> None:
        self._send(error.status, _error(error))


def _no_such_path(path: str) -> BadRequestError:
    return BadRequestError(
        f"there is no {path}. Cure: /v1/chat/completions, /v1/completions (POST) or /v1/models (GET)", status=404
    )


def _error(error: BadRequestError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.argument, "code": error.code}}


def _usage(answer: Answer) -> dict[str, Any]:
    read, written = len(answer.request.prompt), answer.written
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": answer.request.shared},
    }
