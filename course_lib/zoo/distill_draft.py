"""Make the small draft of SmolLM2-135M: `course fetch smollm2-135m`, then `python -m course_lib.zoo.distill_draft`.

A draft is a small model that guesses what a large one will write (lesson 2 of chapter 9). It has to know the large
model's habits, not the world: so its training text is what SmolLM2 itself writes (sequence-level distillation, Kim &
Rush 2016, "Sequence-Level Knowledge Distillation"), and beside each word that was written the draft sees which other
words SmolLM2 thought likely (word-level distillation, Hinton et al. 2015). Distilling a draft for speculative decoding:
DistillSpec, Zhou et al. 2023.

1. `write`: SmolLM2 goes on from first words of passages of Python's documentation, and answers questions about them;
   half of it greedily, half drawn at random from the likeliest words.
2. `first_draft`: a Llama of the same vocabulary. Nearly all of it is its word table, which comes from SmolLM2's by SVD.
3. `distill`: cross-entropy with SmolLM2's likeliest words at each place.

Settings are judged on prompts from the validation part of `data.documentation.entries`; no module of it, and none of
the test's, is in training. A run that was interrupted goes on: written pages and finished epochs are kept.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.data import written_whole
from course_lib.data.documentation import Entry, entries
from course_lib.decoding.engine import Engine, Work
from course_lib.language.shape import LlamaShape
from course_lib.nets.llama import Llama, smollm2
from course_lib.zoo.small_draft import FILE, decoded, encode_draft, encoded
from course_lib.zoo.train import cpu_name
from course_lib.zoo.wheels import fetch

QUESTIONS = (
    "What does {place} do in Python?",
    "Explain {place} to a beginner.",
    "Write a short Python example that uses {place}.",
    "Say this in simpler words: {summary}",
    "When would you need this? {summary}",
    "Write a Python function for this: {summary}",
)


@dataclass(frozen=True)
class Settings:
    """How the text is written and the draft is trained."""

    pages: int = 19  # batches of texts that SmolLM2 writes
    page: int = 48  # texts of a batch
    opening: int = 16  # tokens of a passage from which SmolLM2 goes on
    answer: int = 128  # tokens that it writes at most
    temperature: float = 0.7  # of every second page; the others are greedy
    likeliest: int = 16  # words of each place whose probabilities are kept
    taught: int = 4  # of these words, from which the draft learns
    width: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    inner: int = 384
    epochs: int = 3
    batch: int = 8  # texts of a training step
    others: int = 1024  # words, beside those that SmolLM2 used, that each step pushes down
    learning_rate: float = 2e-3
    warmup: float = 0.05  # of all steps
    seed: int = 9


class Page(NamedTuple):
    """Texts that SmolLM2 wrote, all from prompts of one length."""

    prompt: int  # tokens of each prompt
    tokens: Tensor  # (texts, prompt + answer) int32; what follows an end is 0
    lengths: Tensor  # (texts,) int64: prompt and answer, the end included
    likeliest: Tensor  # (texts, answer, k) int32: the words that it thought likeliest at each place of the answer
    probabilities: Tensor  # (texts, answer, k) float16: how likely
    seconds: float


class Speaks(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]: ...


def make_prompts(tokenizer: Speaks, found: Sequence[Entry], opening: int, seed: int) -> list[list[int]]:
    """Prompts from documentation, mixed: every second one the first words of a passage, the others questions.

    Args:
        tokenizer: of the model that will write.
        found: entries of the documentation.
        opening: tokens of a passage; shorter passages are left out.
        seed: of the order.
    """
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    made = []
    for number, position in enumerate(order):
        entry = found[position]
        if number % 2:
            question = QUESTIONS[number // 2 % len(QUESTIONS)].format(place=entry.place, summary=entry.summary)
            made.append(tokenizer.chat([{"role": "user", "content": question}]))
        else:
            passage = tokenizer.encode(f"{entry.summary} {entry.body}".replace("\n", " "))
            if len(passage) >= opening:
                made.append(passage[:opening])
    return made


def equal_batches(prompts: Sequence[list[int]], size: int, seed: int) -> list[list[list[int]]]:
    """Batches of `size` prompts of equal length, mixed; no padding is needed. What does not fill one is left out."""
    by_length: dict[int, list[list[int]]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt), []).append(prompt)
    batches = [
        group[start : start + size]
        for _, group in sorted(by_length.items())
        for start in range(0, len(group) - size + 1, size)
    ]
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed)).tolist()
    return [batches[number] for number in order]


def write(
    engine: Engine,
    prompts: Sequence[list[int]],
    answer: int,
    likeliest: int,
    temperature: float,
    end: Collection[int],
    generator: torch.Generator,
) -> Page:
    """Let the engine's model go on from prompts of one length, greedily where `temperature` is 0.

    Else it draws from its `likeliest` words. The probabilities that are kept are those of temperature 1 among all.
    """
    start = time.perf_counter()
    texts, prompt = len(prompts), len(prompts[0])
    size = prompt + answer
    pool = engine.pool(texts * size)
    tokens = torch.zeros(texts, size, dtype=torch.int32)
    tokens[:, :prompt] = torch.tensor(prompts)
    lengths = torch.full((texts,), size)
    words = torch.zeros(texts, answer, likeliest, dtype=torch.int32)
    shares = torch.zeros(texts, answer, likeliest, dtype=torch.float16)
    going_on, read = list(range(texts)), 0  # texts that have not ended, tokens that each of them has read
    for place in range(prompt, size):
        work = [
            Work(
                range(i * size, i * size + read),
                tokens[i, read:place].tolist(),
                range(i * size + read, i * size + place),
                "last",
            )
            for i in going_on
        ]
        logits = torch.from_numpy(np.concatenate(engine.forward(pool, work)))  # (texts that go on, vocabulary)
        read, best = place, logits.topk(likeliest)
        words[going_on, place - prompt] = best.indices.int()
        shares[going_on, place - prompt] = (best.values - logits.logsumexp(1, keepdim=True)).exp().half()
        chosen = best.indices[:, 0]
        if temperature:
            drawn = torch.multinomial((best.values / temperature).softmax(1), 1, generator=generator)
            chosen = best.indices.gather(1, drawn)[:, 0]
        tokens[going_on, place] = chosen.int()
        for i, token in zip(list(going_on), chosen.tolist(), strict=True):
            if token in end:
                lengths[i] = place + 1
                going_on.remove(i)
        if not going_on:
            break
    return Page(prompt, tokens, lengths, words, shares, time.perf_counter() - start)


def write_all(
    engine: Engine,
    batches: Sequence[list[list[int]]],
    end: Collection[int],
    settings: Settings,
    folder: Path,
    log: Callable[[str], None] = print,
) -> list[Page]:
    """The pages of all batches; those that lie in `folder` already are read, the others are written and kept there."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for number, prompts in enumerate(batches):
        path = folder / f"page-{number:04}.pt"
        if path.exists():
            pages.append(Page(*torch.load(path, weights_only=True)))
            continue
        temperature = settings.temperature if number % 2 else 0.0
        generator = torch.Generator().manual_seed(1000 * settings.seed + number)
        page = write(engine, prompts, settings.answer, settings.likeliest, temperature, end, generator)
        with written_whole(path) as beside:
            torch.save(tuple(page), beside)
        pages.append(page)
        log(f"page {number + 1}/{len(batches)}  {int((page.lengths - page.prompt).sum())} tokens  {page.seconds:.0f} s")
    return pages


def used_words(pages: Sequence[Page], taught: int) -> Tensor:
    """The words that the teacher wrote or had among the `taught` likeliest of a place, in order."""
    words = [torch.cat([page.tokens.flatten(), page.likeliest[..., :taught].flatten()]).unique() for page in pages]
    return torch.cat(words).unique()


def draft_shape(teacher: LlamaShape, settings: Settings) -> LlamaShape:
    """The draft's shape: the teacher's vocabulary and positions, everything else from the settings."""
    return replace(
        teacher,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        key_value_heads=settings.key_value_heads,
        inner=settings.inner,
    )


@torch.no_grad()
def first_draft(teacher: Llama, pages: Sequence[Page], settings: Settings) -> Llama:
    """A draft whose word table is the teacher's along the directions that matter most for the words it uses (SVD)."""
    torch.manual_seed(settings.seed)
    draft = Llama(draft_shape(teacher.shape, settings))
    for module in draft.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 if module.out_features != settings.width else 0.01)
    table = teacher.embed_tokens.weight.float()
    counts = torch.ones(len(table))  # a word that was never used counts once
    for page in pages:
        counts += torch.bincount(page.tokens.flatten(), minlength=len(table))
    weighted = table * counts.sqrt().sqrt()[:, None]  # the root of a count, in the sum of squares
    _, directions = torch.linalg.eigh(weighted.T @ weighted)  # (width, width), the most important one last
    narrow = table @ directions[:, -settings.width :]
    draft.embed_tokens.weight.copy_(narrow * (0.05 * narrow.numel() ** 0.5 / narrow.norm()))
    return draft


def texts_of(pages: Sequence[Page], size: int, generator: torch.Generator) -> Iterator[tuple[Page, Tensor]]:
    """Training batches: a page and positions of texts in it; all texts of all pages, mixed."""
    made = [
        (page, part) for page in pages for part in torch.randperm(len(page.tokens), generator=generator).split(size)
    ]
    for number in torch.randperm(len(made), generator=generator).tolist():
        yield made[number]


def word_loss(draft: Llama, page: Page, chosen: Tensor, words: Tensor, place_of: Tensor, taught: int) -> Tensor:
    """Cross-entropy of the draft with the teacher's likeliest words, in the mean over the answers' places.

    Args:
        draft: the student.
        page, chosen: the texts.
        words: numbers of the words among which the draft chooses: all that the teacher used, and some others.
        place_of: (vocabulary,), the position in `words` of each word that the teacher used.
        taught: how many of the teacher's likeliest words count.
    """
    lengths = page.lengths[chosen]
    longest = int(lengths.max())
    hidden = draft.hidden(page.tokens[chosen, : longest - 1].long())[:, page.prompt - 1 :]  # (texts, places, width)
    real = torch.arange(page.prompt, longest) < lengths[:, None]
    count = longest - page.prompt
    logits = hidden[real] @ draft.embed_tokens.weight[words].T  # (real places, words)
    theirs = place_of[page.likeliest[chosen, :count, :taught][real].long()]
    shares = page.probabilities[chosen, :count, :taught][real].float()
    shares = shares / shares.sum(1, keepdim=True)
    return (logits.logsumexp(1) - (shares * logits.gather(1, theirs)).sum(1)).mean()


def distill(
    draft: Llama,
    pages: Sequence[Page],
    settings: Settings,
    state_file: Path,
    judge: Callable[[Llama], str],
    log: Callable[[str], None] = print,
) -> float:
    """Train `draft` in place, going on from `state_file` where it exists. Returns the seconds that it took.

    `judge` describes the draft after each epoch, for the log.
    """
    optimizer = torch.optim.AdamW(draft.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=0.0)
    vocabulary = len(draft.embed_tokens.weight)
    used = used_words(pages, settings.taught).long()
    place_of = torch.zeros(vocabulary, dtype=torch.int64)
    place_of[used] = torch.arange(len(used))
    unused = torch.ones(vocabulary, dtype=torch.bool)
    unused[used] = False
    others = unused.nonzero().flatten()
    each = sum(math.ceil(len(page.tokens) / settings.batch) for page in pages)
    seconds, begun = 0.0, 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["settings"] != asdict(settings):
            raise ValueError(f"{state_file} was made with other settings: {state['settings']}. Cure: move it away.")
        draft.load_state_dict(state["draft"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, begun = state["seconds"], state["epoch"]
    for epoch in range(begun, settings.epochs):
        start, sums = time.perf_counter(), 0.0
        draft.train()
        generator = torch.Generator().manual_seed(1000 * settings.seed + epoch)
        for step, (page, chosen) in enumerate(texts_of(pages, settings.batch, generator), epoch * each):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule(step, settings.epochs * each, settings.warmup)
            drawn = others[
                torch.randint(max(1, len(others)), (min(len(others), settings.others),), generator=generator)
            ]
            loss = word_loss(draft, page, chosen, torch.cat([used, drawn.unique()]), place_of, settings.taught)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
            optimizer.step()
            sums += loss.item()
        seconds += time.perf_counter() - start
        draft.eval()
        log(f"epoch {epoch + 1}/{settings.epochs}  loss {sums / each:.4f}  {judge(draft)}  {seconds:.0f} s")
        state = {
            "settings": asdict(settings),
            "draft": draft.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    draft.eval()
    return seconds


def schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: it rises linearly for a while, then falls as half a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.inference_mode()
def acceptance(draft: Llama, pages: Sequence[Page]) -> dict[str, float]:
    """How often the draft's guess would be accepted at the places of the pages, in percent.

    - "greedy": its likeliest word is the teacher's likeliest word;
    - "sampled": the sum of min(p, q) over the words, at temperature 1. The teacher's probabilities beyond its likeliest
      words were not kept and count as 0, so the true figure is a little higher.
    """
    greedy, sampled = [], []
    for page in pages:
        for chosen in torch.arange(len(page.tokens)).split(8):
            lengths = page.lengths[chosen]
            longest = int(lengths.max())
            real = torch.arange(page.prompt, longest) < lengths[:, None]
            hidden = draft.hidden(page.tokens[chosen, : longest - 1].long())[:, page.prompt - 1 :][real]
            logits = draft.head(hidden).float()
            words = page.likeliest[chosen, : longest - page.prompt][real].long()
            shares = page.probabilities[chosen, : longest - page.prompt][real].float()
            greedy.append(logits.argmax(1) == words[:, 0])
            sampled.append(torch.minimum(logits.softmax(1).gather(1, words), shares).sum(1))
    return {
        name: round(100 * float(torch.cat(each).float().mean()), 2)
        for name, each in (("greedy", greedy), ("sampled", sampled))
    }


def main() -> None:
    """Write, train and save; what it prints tells how the draft becomes better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path("build/zoo"), help="folder for what interrupted runs keep")
    parser.add_argument("--held-out", action="store_true", help="judge settings on the validation part; writes no file")
    parser.add_argument(
        "--try", dest="tried", default="{}", help='with --held-out: other settings in JSON, e.g. {"layers": 2}'
    )
    arguments = parser.parse_args()
    changes = json.loads(arguments.tried)
    if changes and not arguments.held_out:
        parser.error("--try goes with --held-out: what is written has the settings of this file")
    settings = replace(Settings(), **changes)

    def log(line: str) -> None:
        print(line, flush=True)

    path = fetch("smollm2-135m")
    teacher, tokenizer = smollm2()
    engine = Engine.from_gguf(path, threads=1)
    texts: dict[str, list[Page]] = {}
    for part, count in (("train", settings.pages), ("validation", 1), ("test", 1)):
        prompts = make_prompts(tokenizer, entries(part), settings.opening, settings.seed)
        batches = equal_batches(prompts, settings.page, settings.seed)[:count]
        folder = arguments.state / f"draft-pages-{part}"
        texts[part] = write_all(engine, batches, tokenizer.end, settings, folder, log)
    pages = texts["train"]
    draft = first_draft(teacher, pages, settings)
    log(f"{len(used_words(pages, settings.taught))} words used")
    called = "-".join(["small-draft", *(f"{key}-{value}" for key, value in sorted(changes.items()))])
    state_file = arguments.state / f"{called}.pt"
    seconds = distill(draft, pages, settings, state_file, lambda d: str(acceptance(d, texts["validation"])), log)
    if not arguments.held_out:
        log(publish(draft, texts, settings, seconds / 60).read_text(encoding="utf-8"))


def publish(draft: Llama, texts: dict[str, list[Page]], settings: Settings, minutes: float, path: Path = FILE) -> Path:
    """Write the draft's file, and beside it its card, which is returned. Scores are those of the file, in 8 bits."""
    rounded = Llama(draft.shape)
    rounded.load_state_dict(decoded(encoded(draft.state_dict())))
    pages = texts["train"]
    described = {
        "name": "small-draft",
        "teacher": "SmolLM2-135M-Instruct, 4-bit (course fetch smollm2-135m), Apache-2.0",
        "method": "sequence-level and word-level distillation; word table from the teacher's by SVD; 8-bit rows",
        "data": f"{sum(len(page.tokens) for page in pages)} texts, "
        f"{sum(int((page.lengths - page.prompt).sum()) for page in pages)} tokens written by the teacher, from prompts "
        f"made of docstrings of the standard library, Python {platform.python_version()}",
        "recipe": asdict(settings),
        "minutes_writing": round(sum(page.seconds for page in pages) / 60, 1),
        "minutes_training": round(minutes, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, shared; torch {torch.__version__}",
        "acceptance": {part: acceptance(rounded.eval(), texts[part]) for part in ("validation", "test")},
        "licence": "MIT, as the course; the teacher is Apache-2.0",
        "made_by": "python -m course_lib.zoo.distill_draft",
    }
    content = encode_draft(draft, described)
    with written_whole(path) as beside:
        beside.write_bytes(content)
    told = path.with_suffix(".md")
    told.write_text(card_text({"network": asdict(draft.shape), **described}, len(content)), encoding="utf-8")
    return told


def card_text(card: dict[str, Any], size: int) -> str:
    """The model card as Markdown."""
    lines = [
        "# small-draft: guesses what SmolLM2-135M writes next",
        "",
        f"{size:,} bytes, weights of 8 bits. How many of its guesses would be accepted, in percent, on prompts of "
        "modules that took no part in training:",
        "",
        "| part | greedy | sampled, temperature 1 |",
        "|---|---:|---:|",
    ]
    lines += [f"| {part} | {rates['greedy']} | {rates['sampled']} |" for part, rates in card["acceptance"].items()]
    lines.append("")
    lines += [f"- {key}: {value}" for key, value in card.items() if not key.endswith("acceptance")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
