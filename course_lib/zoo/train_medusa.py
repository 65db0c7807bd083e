"""Train Medusa heads for SmolLM2: `course fetch smollm2-135m`, then `python -m course_lib.zoo.train_medusa`.

The heads (Cai et al. 2024, "Medusa", Medusa-1: the model itself stays as it is) learn from text that the model writes:
greedy answers to requests about Python's documentation. What they see is the model's last hidden state at each token of
request and answer, what they shall say are the tokens after the next one. Modules are parted as in
`data.documentation.entries`: training, validation (the accuracies that shape the tree are measured there) and test. A
run that was interrupted goes on from its last batch of answers, or its last epoch.
"""

import argparse
import json
import math
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.data import written_whole
from course_lib.data.documentation import Entry, documentation_test, entries, everyday_test
from course_lib.decoding.medusa import MedusaHeads
from course_lib.nets.llama import KeyValueCache, Llama, smollm2
from course_lib.zoo.medusa_heads import HEADS, encode_heads
from course_lib.zoo.train import cpu_name

RANKS = 10  # of the tokens whose accuracy is measured
REQUESTS = (
    "What does {place} do? {summary}",
    "Explain {place} in a few sentences. Its documentation says: {summary} {body}",
    "Write a short example in Python that uses {place}. {summary}",
    "Summarize this: {summary} {body}",
)


@dataclass(frozen=True)
class Settings:
    """How the heads are made."""

    heads: int = 3
    kept: int = 4096  # tokens that the heads may guess
    answers: int = 512  # in training
    together: int = 64  # of them are written at once
    judged: int = 12  # answers in validation and in each test, 4 at once
    length: int = 96  # tokens of an answer at most
    epochs: int = 4
    batch: int = 512  # places in the text
    learning_rate: float = 1e-3
    decay: float = 0.8  # of a head's weight in the loss, beside the head before it
    seed: int = 9


class Answers(NamedTuple):
    """Some answers, with the request before each: all requests are equally long.

    Attributes:
        tokens: (answers, length).
        hidden: (answers, length, width) float16, the last hidden state after each token.
        begin: where the answers begin.
        ends: (answers,) where each ends: tokens from there on mean nothing.
    """

    tokens: Tensor
    hidden: Tensor
    begin: int
    ends: Tensor


def requests(found: Sequence[Entry]) -> list[str]:
    """A request about each entry that says enough, mixed by the CRC-32 of its place."""
    usable = [each for each in found if 4 <= len(each.summary.split()) <= 30 and len(each.body.split()) <= 60]
    usable.sort(key=lambda each: zlib.crc32(each.place.encode()))
    made = []
    for number, each in enumerate(usable):
        template = REQUESTS[number % len(REQUESTS)]
        made.append(" ".join(template.format(place=each.place, summary=each.summary, body=each.body).split()))
    return made


def test_requests() -> list[str]:
    """Requests about modules that are neither in training nor in validation."""
    test = documentation_test()
    beginnings = ("Explain this in a few sentences: ", "Summarize this: ")
    pairs = zip(test.queries, test.documents, strict=True)
    return [f"{beginnings[number % 2]}{query} {document}" for number, (query, document) in enumerate(pairs)]


def equally_long(prompts: Sequence[Sequence[int]], size: int, count: int) -> list[list[Sequence[int]]]:
    """Batches of `size` prompts of the same number of tokens, so that there is no padding.

    Of all full batches, `count` / `size` are taken, spread over the lengths as the prompts are; all if there are fewer.
    """
    groups: dict[int, list[Sequence[int]]] = {}
    for prompt in prompts:
        groups.setdefault(len(prompt), []).append(prompt)
    full = [
        group[start : start + size]
        for _, group in sorted(groups.items())
        for start in range(0, len(group) - size + 1, size)
    ]
    wanted = min(len(full), max(1, count // size))
    return [full[(2 * number + 1) * len(full) // (2 * wanted)] for number in range(wanted)]


@torch.inference_mode()
def write(model: Llama, prompts: Sequence[Sequence[int]], length: int, end: frozenset[int]) -> Answers:
    """Greedy answers to prompts of equal length, with the hidden state after each token.

    Raises:
        ValueError: there is no prompt, or they are not equally long.
    """
    if len({len(prompt) for prompt in prompts}) != 1:
        raise ValueError(f"prompts must be equally long, got the lengths {sorted({len(each) for each in prompts})}")
    tokens = torch.tensor(prompts)
    begin, weight = tokens.shape[1], model.embed_tokens.weight
    cache = KeyValueCache(model.shape, len(tokens), begin + length, weight.dtype)
    ends = torch.full((len(tokens),), begin + length)
    stops = torch.tensor(sorted(end))
    states = [model.hidden(tokens, cache)]
    for place in range(begin, begin + length):
        new = model.head(states[-1][:, -1]).argmax(-1)
        tokens = torch.cat([tokens, new[:, None]], 1)
        ends = torch.where(torch.isin(new, stops) & (ends > place + 1), place + 1, ends)
        states.append(model.hidden(new[:, None], cache))
        if bool((ends <= place + 1).all()):
            break
    return Answers(tokens.int(), torch.cat(states, 1).half(), begin, ends.clamp(max=tokens.shape[1]))


def collect(
    model: Llama,
    batches: Sequence[Sequence[Sequence[int]]],
    length: int,
    end: frozenset[int],
    folder: Path,
    log: Callable[[str], None] = print,
) -> list[Answers]:
    """The answers to all batches of prompts; what is in `folder` is not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    collected = []
    for number, batch in enumerate(batches):
        path = folder / f"{number:04d}.pt"
        if not path.exists():
            start = time.perf_counter()
            made = write(model, batch, length, end)
            with written_whole(path) as beside:
                torch.save(tuple(made), beside)
            log(f"{path}: batch {number + 1}/{len(batches)}, {time.perf_counter() - start:.0f} s")
        answers = Answers(*torch.load(path, weights_only=True))
        if answers.tokens[:, : answers.begin].tolist() != [list(prompt) for prompt in batch]:
            raise ValueError(f"{path} holds answers to other requests. Cure: move its folder away.")
        collected.append(answers)
    return collected


def examples(
    answers: Sequence[Answers], heads: int, skip: int = 0, only_answers: bool = False
) -> tuple[Tensor, Tensor]:
    """What the heads see and what they shall say.

    Args:
        answers: the texts.
        heads: K.
        skip: tokens at the beginning of each text that no head is asked at (they are the same in all).
        only_answers: ask only where all that is to be said belongs to the answer, not the request.

    Returns:
        hidden (places, width) float16, and targets (places, heads) int64: for head k at place t the token t + 1 + k, or
        -1 where the text has ended.
    """
    seen, said = [], []
    for each in answers:
        first = each.begin - 1 if only_answers else skip
        for row, end in enumerate(each.ends.tolist()):
            places = torch.arange(first, end - 2)
            wanted = places[:, None] + 2 + torch.arange(heads)
            tokens = each.tokens[row].long()
            said.append(torch.where(wanted < end, tokens[wanted.clamp(max=len(tokens) - 1)], -1))
            seen.append(each.hidden[row, first : max(first, end - 2)])
    return torch.cat(seen), torch.cat(said)


def frequent_tokens(targets: Tensor, vocabulary: int, count: int) -> Tensor:
    """The `count` tokens that are targets most often, in order of their numbers; rare ones by their numbers."""
    counts = torch.bincount(targets[targets >= 0], minlength=vocabulary)
    return counts.argsort(descending=True, stable=True)[:count].sort().values


def _minibatches(places: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(places, generator=generator).split(size)


def train(
    heads: MedusaHeads,
    hidden: Tensor,
    targets: Tensor,
    settings: Settings,
    state_file: Path,
    judge: Callable[[MedusaHeads], str],
    log: Callable[[str], None] = print,
) -> float:
    """Train `heads` in place, going on from `state_file` where it exists. Returns the seconds that it took.

    The loss is the sum over the heads of decay^k times the cross-entropy; a target that is not among the kept tokens
    teaches nothing.
    """
    place = torch.full((int(max(heads.kept.max(), targets.max())) + 1,), -1)
    place[heads.kept] = torch.arange(len(heads.kept))
    wanted = torch.where(targets >= 0, place[targets.clamp(min=0)], -1)  # numbers among the kept tokens
    optimizer = torch.optim.AdamW(heads.parameters(), settings.learning_rate, weight_decay=0.01)
    steps = settings.epochs * math.ceil(len(hidden) / settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    seconds, begun = 0.0, 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["settings"] != asdict(settings):
            raise ValueError(f"{state_file} was made with other settings: {state['settings']}. Cure: move it away.")
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        seconds, begun = state["seconds"], state["epoch"]
    weights = settings.decay ** torch.arange(1, settings.heads + 1)
    for epoch in range(begun, settings.epochs):
        start, sums, count = time.perf_counter(), 0.0, 0
        generator = torch.Generator().manual_seed(1000 * settings.seed + epoch)
        for chosen in _minibatches(len(hidden), settings.batch, generator):
            with torch.autocast("cpu", torch.bfloat16):
                logits = heads(hidden[chosen].float())
            of_heads = [
                F.cross_entropy(of_head.float(), wanted[chosen, k], ignore_index=-1, reduction="sum")
                for k, of_head in enumerate(logits)
            ]
            loss = (weights * torch.stack(of_heads)).sum() / len(chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            sums, count = sums + loss.item(), count + 1
        seconds += time.perf_counter() - start
        log(f"epoch {epoch + 1}/{settings.epochs}  loss {sums / count:.4f}  {judge(heads)}  {seconds:.0f} s")
        state = {
            "settings": asdict(settings),
            "heads": heads.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    heads.eval()
    return seconds


@torch.inference_mode()
def accuracies(heads: MedusaHeads, hidden: Tensor, targets: Tensor, ranks: int = RANKS) -> list[list[float]]:
    """How often the token of each rank is right, for each head: places with a target count, whatever token it is."""
    hits = torch.zeros(targets.shape[1], ranks)
    for states, wanted in zip(hidden.split(512), targets.split(512), strict=True):
        guesses = heads.kept[heads(states.float()).topk(ranks, dim=2).indices]  # (heads, places, ranks)
        hits += (guesses == wanted.T[:, :, None]).sum(1)
    return [[round(value, 4) for value in row] for row in (hits / (targets >= 0).sum(0)[:, None]).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=Path("build/zoo"), help="folder for what interrupted runs keep")
    parser.add_argument("--held-out", action="store_true", help="judge settings on the validation part; writes no file")
    parser.add_argument(
        "--try", dest="tried", default="{}", help='with --held-out: other settings in JSON, e.g. {"epochs": 2}'
    )
    arguments = parser.parse_args()
    changes = json.loads(arguments.tried)
    if changes and not arguments.held_out:
        parser.error("--try goes with --held-out: what is written has the settings of this file")
    settings = replace(Settings(), **changes)
    model, tokenizer = smollm2(torch.bfloat16)

    def log(line: str) -> None:
        print(line, flush=True)

    def chats(texts: Sequence[str]) -> list[list[int]]:
        return [tokenizer.chat([{"role": "user", "content": text}]) for text in texts]

    parts = {
        "train": (requests(entries("train")), settings.answers),
        "validation": (requests(entries("validation")), settings.judged),
    }
    if not arguments.held_out:
        parts |= {
            "documentation": (test_requests(), settings.judged),
            "everyday": (everyday_test().queries, settings.judged),
        }
    start, written = time.perf_counter(), {}
    for part, (texts, count) in parts.items():
        folder, size = arguments.state / "medusa-answers" / part, settings.together if part == "train" else 4
        batches = equally_long(chats(texts), size, count)
        written[part] = collect(model, batches, settings.length, tokenizer.end, folder, log)
    writing = time.perf_counter() - start
    first, second = chats(["a", "b"])
    skip = next(place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    hidden, targets = examples(written["train"], settings.heads, skip)
    judged = {
        part: examples(answers, settings.heads, only_answers=True)
        for part, answers in written.items()
        if part != "train"
    }
    kept = frequent_tokens(targets, model.shape.vocabulary, settings.kept)
    heads = MedusaHeads(model.embed_tokens.weight.detach(), settings.heads, kept)

    def judge(heads: MedusaHeads) -> str:
        return "right at once: " + " ".join(f"{row[0]:.1%}" for row in accuracies(heads, *judged["validation"]))

    log(f"{len(hidden)} places, {len(judged['validation'][0])} to judge; start {judge(heads)}")
    called = "-".join(["medusa", *(f"{key}-{value}" for key, value in sorted(changes.items()))])
    seconds = train(heads, hidden, targets, settings, arguments.state / f"{called}.pt", judge, log)
    if arguments.held_out:
        return
    described = {
        "name": "medusa-heads",
        "network": {"vocabulary": model.shape.vocabulary, "width": model.shape.width, "heads": settings.heads},
        "model": "SmolLM2-135M-Instruct (course fetch smollm2-135m), Apache-2.0",
        "method": "Medusa-1: residual blocks on the last hidden state, the model's own table for the kept tokens",
        "data": f"{sum(len(each.tokens) for each in written['train'])} greedy answers of the model to requests about "
        f"the standard library's documentation, Python {platform.python_version()}; {len(hidden)} places",
        "recipe": asdict(settings),
        "minutes": round(seconds / 60, 1),
        "minutes_of_writing": round(writing / 60, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "licence": "MIT, as the course; the model is Apache-2.0, the text copyright the Python Software Foundation",
        "made_by": "python -m course_lib.zoo.train_medusa",
    }
    log(publish(heads, judged, described).read_text(encoding="utf-8"))


def publish(heads: MedusaHeads, judged: dict[str, tuple[Tensor, Tensor]], described: dict[str, Any]) -> Path:
    """Round the heads to float16, measure them on each text, and write their file and its card."""
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.copy_(parameter.half().float())
    described = described | {
        "places": {text: len(pair[0]) for text, pair in judged.items()},
        "accuracy": {text: accuracies(heads, *pair) for text, pair in judged.items()},
    }
    HEADS.write_bytes(encode_heads(heads, described))
    path = HEADS.with_suffix(".md")
    path.write_text(card_text(described, HEADS.stat().st_size), encoding="utf-8")
    return path


def card_text(card: dict[str, Any], size: int) -> str:
    """The model card as Markdown."""
    lines = ["# medusa-heads: guesses of the tokens after the next one", ""]
    lines += [f"{size:,} bytes, weights of 16 bits. How often a head's guesses have the right token, in percent:", ""]
    lines += ["| text | head | first | first 2 | first 3 | first 5 |", "|---|---:|---:|---:|---:|---:|"]
    for text, rows in card["accuracy"].items():
        for number, row in enumerate(rows, 1):
            marks = " | ".join(f"{100 * sum(row[:count]):.1f}" for count in (1, 2, 3, 5))
            lines.append(f"| {text} | {number} | {marks} |")
    lines.append("")
    lines += [f"- {key}: {value}" for key, value in card.items() if key != "accuracy"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
