"""Make the small BERT from MiniLM-L6: `course fetch minilm-l6`, then `python -m course_lib.zoo.distill_bert`.

The student has the teacher's shape in small: as many heads, half its layers, half its width, a vocabulary of the
pieces that Python's documentation uses, and a factorised word table (Lan et al. 2020, "ALBERT"). It is trained in the
two steps of TinyBERT (Jiao et al. 2020): first from the teacher's word table, layers and attention, then from its
sentence vectors alone. The first weights come from the teacher, too: its word table by SVD, and the last linear layer
by least squares.

The test is `data.documentation_test`, scored by `data.search_scores`: (MRR + Spearman) / 2. That score was written down
before the first training. Settings were chosen by the same score on other modules (the validation part of
`data.documentation.entries`); the test was scored at the end. It was scored a second time, with the same student, when
a module was taken out of it whose texts stand in the training part under another name. A run that was interrupted goes
on from its last epoch.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data import written_whole
from course_lib.data.documentation import (
    SearchTest,
    documentation_test,
    entries,
    everyday_test,
    make_search_test,
    search_scores,
    training_texts,
)
from course_lib.distillation.shipping import ShippedEncoder, encoder_onnx
from course_lib.distillation.transformer import (
    factorise_table,
    hidden_loss,
    layer_map,
    score_loss,
    similarity_loss,
)
from course_lib.nets.bert import SPECIAL, BertShape, SentenceEncoder, WordPiece, load_minilm, pad
from course_lib.zoo.small_bert import STUDENT, TEACHER, encode_teacher
from course_lib.zoo.train import cpu_name
from course_lib.zoo.wheels import fetch

LONGEST = 64  # tokens of a training text
ASCII = [chr(code) for code in range(33, 127) if not chr(code).isupper()]


@dataclass(frozen=True)
class Settings:
    """How the student is made."""

    width: int = 192
    layers: int = 3
    inner: int = 768
    table_width: int = 128
    positions: int = 128
    layer_epochs: int = 1  # from word table, layers, attention and sentences together
    layer_part: float = 0.5  # of the texts, in these epochs: the teacher has to run along
    sentence_epochs: int = 6  # from the sentence vectors alone
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05  # of all steps
    hidden_weight: float = 0.1
    attention_weight: float = 0.02
    relation_weight: float = 5.0
    seed: int = 5


class Material(NamedTuple):
    """What the student learns from: token ids of the texts, and the teacher's vectors of them."""

    rows: list[list[int]]  # in the student's vocabulary
    kept: Tensor  # (student's vocabulary,): the teacher's number of each piece
    counts: Tensor  # (student's vocabulary,): how often each occurs
    vectors: Tensor  # (texts, 384)


def small_vocabulary(tokenizer: WordPiece, texts: Sequence[str]) -> list[str]:
    """The pieces that `texts` need and those of single ASCII characters, in the tokenizer's order.

    With them a text of `texts` is split as before, and any other ASCII text can be written, in more pieces perhaps.
    """
    used = {number for text in texts for number in tokenizer.encode(text, 10**6)}
    wanted = {*SPECIAL, *ASCII, *(f"##{character}" for character in ASCII)}
    return [piece for number, piece in enumerate(tokenizer.pieces) if number in used or piece in wanted]


def batches(rows: Sequence[Sequence[int]], size: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Positions of the texts of each batch; texts of a batch are about equally long, so that little is padding."""
    count = len(rows)
    order = torch.randperm(count, generator=generator).tolist() if generator else list(range(count))
    chunk = 40 * size if generator else count
    made = []
    for start in range(0, count, chunk):
        sorted_chunk = sorted(order[start : start + chunk], key=lambda position: len(rows[position]))
        made += [torch.tensor(sorted_chunk[i : i + size]) for i in range(0, len(sorted_chunk), size)]
    for number in torch.randperm(len(made), generator=generator).tolist() if generator else range(len(made)):
        yield made[number]


@torch.inference_mode()
def sentence_vectors(encoder: nn.Module, rows: Sequence[Sequence[int]], size: int = 64) -> Tensor:
    """The encoder's vector of each text, in their order."""
    vectors: Tensor | None = None
    for positions in batches(rows, size):
        made = encoder(*pad([rows[position] for position in positions.tolist()])).float()
        if vectors is None:
            vectors = torch.empty(len(rows), made.shape[1])
        vectors[positions] = made
    if vectors is None:
        raise ValueError("rows must hold at least one text, got none")
    return vectors.clone()


def scores_of(encoder: nn.Module, tokenizer: WordPiece, test: SearchTest) -> dict[str, float]:
    """`search_scores` of an encoder, rounded to hundredths."""
    vectors = sentence_vectors(encoder, [tokenizer.encode(text) for text in test.texts])
    return _rounded(search_scores(test, vectors))


def prepare(teacher: SentenceEncoder, tokenizer: WordPiece, texts: Sequence[str], cache: Path) -> Material:
    """The student's vocabulary and token ids, and the teacher's vectors, computed once and kept in `cache`."""
    pieces = small_vocabulary(tokenizer, texts)
    kept = torch.tensor([tokenizer.number[piece] for piece in pieces])
    ours = {number: place for place, number in enumerate(kept.tolist())}
    theirs = [tokenizer.encode(text, LONGEST) for text in texts]
    rows = [[ours[number] for number in row] for row in theirs]
    counts = torch.bincount(torch.tensor([number for row in rows for number in row]), minlength=len(pieces))
    if cache.exists():
        vectors = torch.load(cache, weights_only=True).float()
        if len(vectors) != len(texts):
            raise ValueError(
                f"{cache} holds {len(vectors)} vectors of other texts, not of these {len(texts)}: delete it."
            )
    else:
        vectors = sentence_vectors(teacher, theirs)
        cache.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(cache) as beside:
            torch.save(vectors.half(), beside)
    return Material(rows, kept, counts, vectors)


def first_student(teacher: SentenceEncoder, material: Material, settings: Settings) -> SentenceEncoder:
    """A student whose word table and last layer come from the teacher; its other layers nearly pass their input on."""
    torch.manual_seed(settings.seed)
    shape = BertShape(
        vocabulary=len(material.kept),
        width=settings.width,
        layers=settings.layers,
        heads=teacher.shape.heads,
        inner=settings.inner,
        positions=settings.positions,
        table_width=settings.table_width,
        out=teacher.shape.out,
    )
    student = SentenceEncoder(shape)
    with torch.no_grad():
        for module in student.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        narrow, widen = factorise_table(teacher.words.weight[material.kept], material.counts, settings.table_width)
        up = nn.init.orthogonal_(torch.empty(settings.width, settings.table_width))
        student.words.weight.copy_(narrow)
        student.widen.load_state_dict({"weight": up})
        student.positions.weight.copy_(teacher.positions.weight[: settings.positions] @ widen.T @ up.T)
        chosen = list(range(0, len(material.rows), max(1, len(material.rows) // 8000)))
        inputs = _means(student, [material.rows[position] for position in chosen]).double()
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
        ridge = 1e-3 * inputs.square().mean() * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ material.vectors[chosen].double())
        student.out.load_state_dict({"weight": solved[:-1].T, "bias": solved[-1]})
    return student


def _means(student: SentenceEncoder, rows: Sequence[Sequence[int]]) -> Tensor:
    """The mean of what the last layer puts out, for each text."""
    means = torch.empty(len(rows), student.shape.width)
    for positions in batches(rows, 64):
        ids, mask = pad([rows[position] for position in positions.tolist()])
        last, real = student.trace(ids, mask).hidden[-1], mask[:, :, None].float()
        means[positions] = (last * real).sum(1) / real.sum(1)
    return means


class Projections(nn.Module):
    """Brings the student's embeddings and hidden states to the teacher's width; needed in training alone."""

    def __init__(self, student: BertShape, teacher: BertShape) -> None:
        super().__init__()
        self.of = nn.ParameterList(
            nn.Parameter(torch.randn(student.width, teacher.width) * student.width**-0.5)
            for _ in range(student.layers + 1)
        )


def distill(
    student: SentenceEncoder,
    teacher: SentenceEncoder,
    material: Material,
    settings: Settings,
    state_file: Path,
    judge: Callable[[SentenceEncoder], str],
    log: Callable[[str], None] = print,
) -> float:
    """Train `student` in place, going on from `state_file` where it exists. Returns the seconds that it took.

    `judge` describes the student after each epoch, for the log.
    """
    projections = Projections(student.shape, teacher.shape)
    optimizer = torch.optim.AdamW(
        [*student.parameters(), *projections.parameters()], settings.learning_rate, weight_decay=settings.weight_decay
    )
    parts = [settings.layer_part] * settings.layer_epochs + [1.0] * settings.sentence_epochs
    lengths = [math.ceil(max(1, round(part * len(material.rows))) / settings.batch) for part in parts]
    seconds, begun = 0.0, 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["settings"] != asdict(settings):
            raise ValueError(f"{state_file} was made with other settings: {state['settings']}. Cure: move it away.")
        student.load_state_dict(state["student"])
        projections.load_state_dict(state["projections"])
        optimizer.load_state_dict(state["optimizer"])
        seconds, begun = state["seconds"], state["epoch"]
    for epoch in range(begun, len(parts)):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(1000 * settings.seed + epoch)
        count = max(1, round(parts[epoch] * len(material.rows)))
        chosen = torch.randperm(len(material.rows), generator=generator)[:count].tolist()
        rows, from_layers, sums = [material.rows[place] for place in chosen], epoch < settings.layer_epochs, 0.0
        for step, positions in enumerate(batches(rows, settings.batch, generator), sum(lengths[:epoch])):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, sum(lengths), settings.warmup)
            ids, mask = pad([rows[position] for position in positions.tolist()])
            target = material.vectors[torch.tensor(chosen)[positions]]
            loss = _loss(student, teacher if from_layers else None, projections, ids, mask, target, material, settings)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            sums += loss.item()
        seconds += time.perf_counter() - start
        log(f"epoch {epoch + 1}/{len(parts)}  loss {sums / lengths[epoch]:.4f}  {judge(student)}  {seconds:.0f} s")
        state = {
            "settings": asdict(settings),
            "student": student.state_dict(),
            "projections": projections.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    student.eval()
    return seconds


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: it rises linearly for a while, then falls as half a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _loss(
    student: SentenceEncoder,
    teacher: SentenceEncoder | None,
    projections: Projections,
    ids: Tensor,
    mask: Tensor,
    target: Tensor,
    material: Material,
    settings: Settings,
) -> Tensor:
    traces = student.trace(ids, mask)
    loss = (1 - F.cosine_similarity(traces.sentence, target)).mean()
    if len(ids) > 1:
        loss = loss + settings.relation_weight * similarity_loss(traces.sentence, target)
    if teacher is None:
        return loss
    with torch.inference_mode():
        shown = teacher.trace(material.kept[ids], mask)
    chosen = layer_map(student.shape.layers, teacher.shape.layers)
    ours = [traces.embedded, *traces.hidden]
    theirs = [shown.embedded, *(shown.hidden[number - 1] for number in chosen)]
    for own, shown_to, projection in zip(ours, theirs, projections.of, strict=True):
        loss = loss + settings.hidden_weight * hidden_loss(own, shown_to, projection, mask)
    for own, number in zip(traces.scores, chosen, strict=True):
        loss = loss + settings.attention_weight * score_loss(own, shown.scores[number - 1], mask)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    weights = fetch("minilm-l6")
    teacher = load_minilm(weights)
    tokenizer = WordPiece((weights.parent / "vocab.txt").read_text(encoding="utf-8").splitlines())
    texts = training_texts()
    material = prepare(teacher, tokenizer, texts, arguments.state / "small-bert-teacher.pt")
    pieces = [tokenizer.pieces[number] for number in material.kept.tolist()]
    validation = make_search_test(entries("validation"))

    def log(line: str) -> None:
        print(line, flush=True)

    def judge(encoder: SentenceEncoder) -> str:
        return str(scores_of(encoder, WordPiece(pieces), validation))

    tokens = sum(len(row) for row in material.rows)
    log(f"{len(texts)} texts, {tokens} tokens, {len(pieces)} pieces")
    log(f"teacher {scores_of(teacher, tokenizer, validation)}")
    student = first_student(teacher, material, settings)
    size = len(encoder_onnx(student, pieces, bits=8))
    log(f"{sum(weight.numel() for weight in student.parameters())} parameters, {size} bytes; start {judge(student)}")
    called = "-".join(["small-bert", *(f"{key}-{value}" for key, value in sorted(changes.items()))])
    seconds = distill(student, teacher, material, settings, arguments.state / f"{called}.pt", judge, log)
    if arguments.held_out:
        return
    path = publish(student, teacher, tokenizer, material, settings, seconds / 60)
    log(path.read_text(encoding="utf-8"))


def publish(
    student: SentenceEncoder,
    teacher: SentenceEncoder,
    tokenizer: WordPiece,
    material: Material,
    settings: Settings,
    minutes: float,
) -> Path:
    """Score teacher and student on the tests, and write the student's file, its card and the teacher's vectors."""
    pieces = [tokenizer.pieces[number] for number in material.kept.tolist()]
    tests = {"documentation": documentation_test(), "everyday": everyday_test()}
    shown = {name: sentence_vectors(teacher, [tokenizer.encode(t) for t in test.texts]) for name, test in tests.items()}
    marks = {name: _rounded(search_scores(test, shown[name])) for name, test in tests.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STUDENT.name
        path.write_bytes(encoder_onnx(student, pieces, bits=8))
        shipped = ShippedEncoder(path)
        scores = {name: _rounded(search_scores(test, shipped(test.texts))) for name, test in tests.items()}
    card = {
        "name": "small-bert",
        "network": asdict(student.shape),
        "teacher": "all-MiniLM-L6-v2 (course fetch minilm-l6), Apache-2.0",
        "method": "TinyBERT: word table, layers and attention first, then sentence vectors; weights rounded to 8 bits",
        "data": f"{len(material.rows)} texts, {int(material.counts.sum())} tokens: docstrings of the standard library "
        f"and pydoc's topics, Python {platform.python_version()}",
        "recipe": asdict(settings),
        "minutes": round(minutes, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "scores": scores,
        "float32_scores": {name: scores_of(student, WordPiece(pieces), test) for name, test in tests.items()},
        "teacher_scores": marks,
        "licence": "MIT, as the course; the teacher is Apache-2.0, the text copyright the Python Software Foundation",
        "made_by": "python -m course_lib.zoo.distill_bert",
    }
    table = material.counts.double().sqrt()[:, None] * teacher.words.weight[material.kept].detach().double()
    TEACHER.write_bytes(encode_teacher(shown, marks, torch.linalg.svdvals(table)))
    STUDENT.write_bytes(encoder_onnx(student, pieces, bits=8, note=json.dumps(card)))
    described = STUDENT.with_suffix(".md")
    described.write_text(card_text(card, STUDENT.stat().st_size), encoding="utf-8")
    return described


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in scores.items()}


def card_text(card: dict[str, Any], size: int) -> str:
    """The model card as Markdown."""
    lines = ["# small-bert: a sentence encoder in one ONNX file", ""]
    lines += [
        f"{size:,} bytes, weights of 8 bits. Scores are those of `course_lib.data.search_scores`, in percent.",
        "",
    ]
    lines += ["| test | of | retrieval (MRR) | similarity (Spearman) | score |", "|---|---|---:|---:|---:|"]
    for test in card["scores"]:
        for name, key in (("MiniLM-L6", "teacher_scores"), ("student, float32", "float32_scores"), ("file", "scores")):
            marks = card[key][test]
            lines.append(f"| {test} | {name} | {marks['retrieval']} | {marks['similarity']} | {marks['score']} |")
    lines.append("")
    lines += [f"- {key}: {value}" for key, value in card.items() if not key.endswith("scores")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
