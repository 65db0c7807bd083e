"""Teach a small network what is inside of a larger one: `python -m course_lib.zoo.distill_hidden`.

The student `resnet-8-half` learns on the course's own 10,000 training images: from the labels alone, from the soft
labels of several teachers, and from three kinds of hidden knowledge. A student that has learned without a teacher is
then made ternary, and pruned, each with a teacher and without. All have the same images, epochs and schedule, and
three seeds; a seed decides the first weights and the order of the images, the same for all.

The student sees images at half the resolution. So its first and second stage have as many places as the teacher's
second and third, and these are compared.

An image is seen as it is or mirrored, so the teacher can be asked beforehand: it sees what the student sees.

How much the teacher counts is chosen first: each candidate trains on the first 4,000 of these images, from two seeds
that are used for nothing else, and is judged by the last 4,000. (The zoo's teachers have seen these, and 50,000 others,
which flatters them.) The test images choose nothing. A run takes half a minute; one that has ended is not repeated.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.bench import accuracy as measure_accuracy
from course_lib.bench.modes import evaluating
from course_lib.data import Split, fashion_mnist, written_whole
from course_lib.distillation.hidden_knowledge import (
    attention_loss,
    attention_map,
    features_of,
    hint_loss,
    mutual_losses,
    relational_loss,
)
from course_lib.distillation.soft_labels import ask_teacher, kd_loss
from course_lib.nets import build
from course_lib.pruning import apply_masks, cubic_sparsity, global_masks, prunable_weights
from course_lib.quantization import TERNARY, code_range, quantized_for_training
from course_lib.zoo.train import Recipe, cpu_name, learning_rate

STUDENT = "resnet-8-half"
STAGES = ("stage1", "stage2", "stage3")
PAIRS = ((0, 1), (1, 2))  # stages of the student and of its teacher that have the same places
HINTS = {"hints": (0, 1), "late hints": (0, 2)}  # which stage of the student learns from which of the teacher
SEEDS = (1, 2, 3)
TRIED, HELD_OUT = 4000, 4000  # of the 10,000 training images: the first and the last
TRIAL_SEEDS = (101, 102)
TEMPERATURE = 4.0
SPARSITY = 0.9
FROM_SCRATCH = Recipe(epochs=5, learning_rate=0.1, batch=64, weight_decay=2e-4, warmup_epochs=0.5, shift=0)
COMPRESSING = replace(FROM_SCRATCH, epochs=3, learning_rate=0.02, warmup_epochs=0.0)


@dataclass(frozen=True)
class Arm:
    """One way to learn."""

    knowledge: str = "labels"  # or "soft labels", "hints", "late hints", "attention", "relations", "each other"
    teacher: str = "resnet-20"  # a checkpoint, or "itself": the untaught student of the same seed
    weight: float = 0.0  # of the teacher's part; of soft labels its share of the loss
    compression: str = ""  # or "ternary", "pruned": of the untaught student of the same seed


UNTAUGHT = "no teacher"
ARMS = {  # their weights are those that `choose` finds
    UNTAUGHT: Arm(),
    "soft labels": Arm("soft labels"),
    "hints": Arm("hints"),
    "late hints": Arm("late hints"),
    "attention": Arm("attention"),
    "relations": Arm("relations"),
    "ternary, no teacher": Arm(compression="ternary"),
    "ternary, soft labels": Arm("soft labels", compression="ternary"),
    "pruned, no teacher": Arm(compression="pruned"),
    "pruned, soft labels": Arm("soft labels", compression="pruned"),
    "each other": Arm("each other", "none"),
    "born again": Arm("soft labels", "itself"),
    "soft labels of resnet-8": Arm("soft labels", "resnet-8"),
}
CANDIDATES = {  # the weights that are tried of each kind of knowledge
    "soft labels": (0.5, 0.9),
    "hints": (0.1, 1.0, 10.0),
    "late hints": (0.1, 1.0, 10.0),
    "attention": (0.1, 1.0, 10.0),
    "relations": (0.1, 1.0, 10.0),
}
SHIPPED = {  # checkpoint: arm and seed
    "resnet-8-half-10k": (UNTAUGHT, 1),
    "resnet-8-half-10k-twin": (UNTAUGHT, 2),
    "resnet-8-half-10k-attention": ("attention", 1),
}


class Answers(NamedTuple):
    """What a teacher says about each image as it is (0) and mirrored (1)."""

    logits: Tensor  # (2, n, classes)
    looks: dict[int, Tensor]  # for each paired stage the root of its attention map, (2, n, 1, height, width): see `ask`
    hints: dict[int, Tensor]  # features of a stage, (2, n, channels, height, width), float16
    embedding: Tensor  # what the last layer reads, (2, n, width)


def seen(images: Tensor, mirrored: Tensor) -> Tensor:
    """Each image as it is, or mirrored where `mirrored` is 1."""
    return torch.where(mirrored.bool().view(-1, 1, 1, 1), images.flip(3), images)


def ask(teacher: nn.Module, data: Split, stages: Sequence[int] = (1, 2)) -> Answers:
    """Ask a teacher about both views of all images; `stages` are those whose features are kept.

    For attention only the map is kept: a channel that holds the root of the map has this map as its own, so
    `attention_loss` takes it in place of all the channels.
    """
    parts: list[list[Tensor]] = []
    with features_of(teacher, STAGES) as features:
        for view in (0, 1):
            for images, _ in data.batches(250):
                logits = ask_teacher(teacher, seen(images, torch.full((len(images),), view)))
                inside = [stage.detach() for stage in features()]
                looks = [attention_map(inside[i]).sqrt().view(-1, 1, *inside[i].shape[2:]) for i in stages]
                parts.append([logits, inside[-1].mean(dim=(2, 3)), *looks, *(inside[i].half() for i in stages)])
    logits, embedding, *rest = (
        torch.cat(part).unflatten(0, (2, len(data.labels))) for part in zip(*parts, strict=True)
    )
    looks, hints = rest[: len(stages)], rest[len(stages) :]
    return Answers(logits, dict(zip(stages, looks, strict=True)), dict(zip(stages, hints, strict=True)), embedding)


def fresh_student(seed: int) -> nn.Module:
    """The student with the first weights of a seed."""
    torch.manual_seed(seed)
    return build(STUDENT)


def ternary(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy with three-valued weights and 8-bit inputs; the first and the last layer have 8-bit weights."""
    names = [name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    codes = {name: TERNARY if name.startswith("stage") else code_range(8, signed=True) for name in names}
    return quantized_for_training(network, images, codes, dict.fromkeys(names, 8))


def train_student(network: nn.Module, arm: Arm, data: Split, answers: Answers | None, recipe: Recipe) -> float:
    """Train `network` in place by `arm`; returns the seconds. Order and views depend on the recipe's seed alone.

    Two students that learn from each other are `network` and one with other first weights, which is thrown away.
    """
    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(recipe.seed)
    learners = [network]
    if arm.knowledge == "each other":
        learners.append(fresh_student(recipe.seed + 1000))
    parameters = [parameter for learner in learners for parameter in learner.parameters()]
    projection = torch.zeros(0)
    if answers is not None and arm.knowledge in HINTS:
        ours, theirs = HINTS[arm.knowledge]
        with features_of(network, [STAGES[ours]]) as features, evaluating(network), torch.no_grad():
            network(data.images[:1])
            width = features()[0].shape[1]
        first = torch.randn(answers.hints[theirs].shape[2], width, generator=torch.Generator().manual_seed(recipe.seed))
        projection = nn.Parameter(first / width**0.5)
        parameters.append(projection)
    optimizer = torch.optim.SGD(
        parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    for learner in learners:
        learner.to(memory_format=torch.channels_last).train()
    count, masks = len(data.labels), {}
    per_epoch = -(-count // recipe.batch)
    with features_of(network, STAGES) as features:
        for step in range(recipe.epochs * per_epoch):
            if step % per_epoch == 0:
                order = torch.randperm(count, generator=generator)
                views = torch.randint(2, (count,), generator=generator)
            chosen = order[step % per_epoch * recipe.batch :][: recipe.batch]
            view, labels = views[chosen], data.labels[chosen]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step / per_epoch)
            images = seen(data.images[chosen], view).contiguous(memory_format=torch.channels_last)
            logits = network(images)
            if arm.knowledge == "each other":
                loss = torch.stack(mutual_losses(logits, learners[1](images), labels)).sum()
            elif arm.knowledge == "labels":
                loss = F.cross_entropy(logits, labels)
            else:
                assert answers is not None
                if arm.knowledge == "soft labels":
                    loss = kd_loss(logits, answers.logits[view, chosen], labels, TEMPERATURE, arm.weight)
                else:
                    stages = features()
                    if arm.knowledge in HINTS:
                        ours, theirs = HINTS[arm.knowledge]
                        hint = answers.hints[theirs][view, chosen].float()
                        extra = hint_loss(F.adaptive_avg_pool2d(stages[ours], hint.shape[-1]), hint, projection)
                    elif arm.knowledge == "attention":
                        looks = [(stages[ours], answers.looks[theirs][view, chosen]) for ours, theirs in PAIRS]
                        extra = attention_loss(*zip(*looks, strict=True))
                    else:
                        extra = relational_loss(stages[-1].mean(dim=(2, 3)), answers.embedding[view, chosen])
                    loss = F.cross_entropy(logits, labels) + arm.weight * extra
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if arm.compression == "pruned":
                end = recipe.epochs * per_epoch // 2
                if step <= end and (step % 20 == 0 or step == end):
                    masks = global_masks(prunable_weights(network), cubic_sparsity(step, 0, end, SPARSITY))
                apply_masks(network, masks)
    network.eval()
    return time.perf_counter() - begin


class Workshop:
    """Trains arms on `data` where that is not done yet, judges them by `judged`, and keeps all in `folder`.

    Args:
        load: gives the zoo's teacher of a name.
    """

    def __init__(
        self, data: Split, judged: Split, folder: Path, load: Callable[[str], nn.Module], log: Callable[[str], None]
    ) -> None:
        self.data, self.judged, self.folder, self.load, self.log = data, judged, folder, load, log
        self.recipes = {"": FROM_SCRATCH, "ternary": COMPRESSING, "pruned": COMPRESSING}
        self.answers: dict[str, Answers] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, arm: Arm, seed: int) -> tuple[nn.Module, float, float]:
        """The trained network of an arm and a seed, its accuracy in percent, and the seconds that it took.

        Raises:
            ValueError: the kept run was made with other settings.
        """
        recipe = replace(self.recipes[arm.compression], seed=seed)
        network = fresh_student(seed)
        if arm.compression:
            network = self.run(Arm(), seed)[0]
        if arm.compression == "ternary":
            network = ternary(network, self.data.images[:256])
        called = "-".join(str(value).replace(" ", "-") for value in (*asdict(arm).values(), seed) if value != "")
        path = self.folder / f"{called}.pt"
        made_by: dict[str, Any] = {"arm": asdict(arm), "recipe": asdict(recipe), "first": asdict(FROM_SCRATCH)}
        made_by |= {"images": len(self.data.labels), "judged": len(self.judged.labels)}
        if not path.exists():
            seconds = train_student(network, arm, self.data, self._answers(arm, seed), recipe)
            state = {
                "made_by": made_by,
                "network": network.state_dict(),
                "seconds": seconds,
                "percent": measure_accuracy(network, self.judged),
            }
            with written_whole(path) as beside:
                torch.save(state, beside)
            self.log(f"{called}: {state['percent']:.2f} %  {seconds:.0f} s")
        state = torch.load(path, weights_only=True)
        if state["made_by"] != made_by:
            raise ValueError(
                f"{path} was made with other settings: {state['made_by']}. Cure: move it away to start anew."
            )
        network.load_state_dict(state["network"])
        return network.eval(), state["percent"], state["seconds"]

    def _answers(self, arm: Arm, seed: int) -> Answers | None:
        if arm.knowledge in ("labels", "each other"):
            return None
        if arm.teacher == "itself":
            return ask(self.run(Arm(), seed)[0], self.data, stages=())
        if arm.teacher not in self.answers:
            self.answers.clear()  # one teacher's answers take some 400 MB
            self.answers[arm.teacher] = ask(self.load(arm.teacher), self.data)
        return self.answers[arm.teacher]


def choose(workshop: Workshop) -> dict[str, dict[float, list[float]]]:
    """Of each kind of knowledge and each candidate weight: the accuracies of both trial seeds."""
    return {
        knowledge: {
            weight: [workshop.run(Arm(knowledge, weight=weight), seed)[1] for seed in TRIAL_SEEDS] for weight in weights
        }
        for knowledge, weights in CANDIDATES.items()
    }


def best(found: Mapping[float, Sequence[float]]) -> float:
    """The weight with the largest mean accuracy, the first of several."""
    return max(found, key=lambda weight: statistics.mean(found[weight]))


def main() -> None:
    from course_lib.zoo import card, load, save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo/distill-hidden"), help="folder for the runs that have ended"
    )
    arguments = parser.parse_args()

    def log(line: str) -> None:
        print(line, flush=True)

    data, test = fashion_mnist("train"), fashion_mnist("test")
    judged = Split(data.images[-HELD_OUT:], data.labels[-HELD_OUT:])
    tried = choose(Workshop(data.first(TRIED), judged, arguments.state / "held-out", load, log))
    weights = {knowledge: best(found) for knowledge, found in tried.items()}
    log(f"chosen: {weights}")
    workshop = Workshop(data, test, arguments.state, load, log)
    runs: dict[str, Any] = {}
    networks: dict[tuple[str, int], tuple[nn.Module, float]] = {}
    arms = {name: replace(arm, weight=weights.get(arm.knowledge, 0.0)) for name, arm in ARMS.items()}
    for (name, arm), seed in itertools.product(arms.items(), SEEDS):
        network, percent, seconds = workshop.run(arm, seed)
        described = {"settings": asdict(arm), "seeds": list(SEEDS), "test_accuracy_percent": []}
        runs.setdefault(name, described)["test_accuracy_percent"].append(round(percent, 2))
        networks[name, seed] = network, seconds
    for name, run in runs.items():
        found = run["test_accuracy_percent"]
        log(f"{name}: {statistics.mean(found):.2f} ± {statistics.stdev(found):.2f} %")
    for called, (name, seed) in SHIPPED.items():
        network, seconds = networks[name, seed]
        card_of: dict[str, Any] = {
            "network": STUDENT,
            "data": f"Fashion-MNIST, the course's {len(data.labels)} training images, as they are and mirrored",
            "recipe": asdict(replace(FROM_SCRATCH, seed=seed)) | asdict(arms[name]),
            "minutes": round(seconds / 60, 1),
            "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
            "test_images": len(test.labels),
            "test_accuracy_percent": runs[name]["test_accuracy_percent"][SEEDS.index(seed)],
            "licence": "MIT, as the course; the data is MIT, copyright Zalando SE",
            "made_by": "python -m course_lib.zoo.distill_hidden",
        }
        if name != UNTAUGHT:
            card_of |= {"made_from": ARMS[name].teacher, "method": f"distillation: labels and {name}"}
        elif seed == SEEDS[0]:
            card_of |= {
                "compressing": asdict(COMPRESSING) | {"sparsity": SPARSITY},
                "teachers_test_accuracy_percent": {
                    teacher: card(teacher)["test_accuracy_percent"] for teacher in ("resnet-8", "resnet-20")
                },
                "tried": {
                    "images": TRIED,
                    "judged_by_training_images": HELD_OUT,
                    "seeds": list(TRIAL_SEEDS),
                    "percent": tried,
                },
                "runs": runs,
            }
        path = save(network, called, card_of)
        log(f"{path}  {json.dumps(card_of)}")


if __name__ == "__main__":
    main()
