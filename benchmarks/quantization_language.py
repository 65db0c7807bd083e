"""SmolLM2's matrices at few bits, by this library and by its peers: `python benchmarks/quantization_language.py`.

Every method gets the same model, the same calibration texts, the same bits and the same groups, and every result is
judged by the same function on the same held-out text. The peers are not among the course's packages: `pip install
llmcompressor`; one that is missing gets a row that says so. Each result is kept in a folder, so a run that was
interrupted goes on from there.
"""

import argparse
import copy
import json
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_lib import quantization
from course_lib.data.documentation import passages
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import Llama, smollm2
from course_lib.quantization import Grouped, block_layers
from course_lib.zoo.train import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "quantization-language.md"
TEXTS, LENGTH, TEST_TEXTS = 16, 512, 8


class Setting(NamedTuple):
    """Bits of a code, weights of a group, kind of grid."""

    bits: int
    size: int
    symmetric: bool

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        cost = quantization.bits_per_weight(self.bits, self.size, self.symmetric)
        return f"{self.bits} bits, {kind}, groups of {self.size} ({cost:.2f} bits a weight with scales and zero points)"


SETTING = Setting(3, 64, False)

Method = Callable[[Llama, Tensor, Setting], None]  # rounds the matrices of the model, in place


@torch.no_grad()
def nearest(model: Llama, tokens: Tensor, setting: Setting) -> None:
    for layer in block_layers(model).values():
        layer.weight.copy_(quantization.round_to_nearest(layer.weight, *setting).weight())


def fitted(model: Llama, tokens: Tensor, setting: Setting) -> None:
    def rounding(name: str, weight: Tensor, moments: Tensor) -> Grouped:
        grid = quantization.fitted_grid(weight, moments.diagonal(), *setting)
        return Grouped(quantization.grid_codes(weight, *grid, setting.bits), *grid, setting.bits)

    quantization.quantize_blocks(model, tokens, rounding)


def gptq(**options: Any) -> Method:
    def method(model: Llama, tokens: Tensor, setting: Setting) -> None:
        def rounding(name: str, weight: Tensor, moments: Tensor) -> Grouped:
            return quantization.gptq_matrix(weight, moments, *setting, **options)

        quantization.quantize_blocks(model, tokens, rounding)

    return method


def awq(then: Method) -> Method:
    def method(model: Llama, tokens: Tensor, setting: Setting) -> None:
        def run() -> None:
            for part in tokens.split(4):
                model.hidden(part)

        quantization.awq_model(model, run, lambda weight, _: quantization.round_to_nearest(weight, *setting).weight())
        then(model, tokens, setting)

    return method


def onnxruntime_gptq(model: Llama, tokens: Tensor, setting: Setting) -> None:
    from onnxruntime.quantization.neural_compressor.weight_only import gptq as solve

    def rounding(name: str, weight: Tensor, moments: Tensor) -> Grouped:
        scheme = "sym" if setting.symmetric else "asym"
        matrix, about = weight.T.contiguous().numpy().copy(), moments.double().numpy().copy()
        found = solve(matrix, about, num_bits=setting.bits, group_size=setting.size, scheme=scheme)
        return Rounded(torch.from_numpy(found.T.copy()).float())  # type: ignore[return-value]

    quantization.quantize_blocks(model, tokens, rounding)


class Rounded(NamedTuple):
    """Weights that a peer gives as numbers, without codes."""

    values: Tensor

    def weight(self) -> Tensor:
        return self.values


def llmcompressor(recipe: Callable[[dict[str, Any]], list[Any]]) -> Method:
    def method(model: Llama, tokens: Tensor, setting: Setting) -> None:
        with tempfile.TemporaryDirectory() as folder:
            compress(model, tokens, setting, Path(folder))

    def compress(model: Llama, tokens: Tensor, setting: Setting, folder: Path) -> None:
        from datasets import Dataset
        from llmcompressor import oneshot
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast

        unused = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel({"?": 0}, "?"))
        )  # the data are tokens already
        theirs = as_transformers(model, folder)
        weights = {"num_bits": setting.bits, "type": "int", "symmetric": setting.symmetric}
        weights |= {"strategy": "group", "group_size": setting.size}
        scheme = {"config_groups": {"all": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
        data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()})
        oneshot(
            model=theirs,
            dataset=data,
            recipe=recipe(scheme),
            processor=unused,
            max_seq_length=tokens.shape[1],
            num_calibration_samples=len(tokens),
            shuffle_calibration_samples=False,
        )
        found = {name: layer for name, layer in theirs.model.named_modules() if isinstance(layer, nn.Linear)}
        with torch.no_grad():
            for name, layer in block_layers(model).items():
                layer.weight.copy_(rounded_by_compressed_tensors(found[name]))
            for name, value in theirs.model.named_parameters():
                if "norm" in name:  # AWQ folds its scales into them
                    model.get_parameter(name).copy_(value)

    return method


def rounded_by_compressed_tensors(layer: nn.Linear) -> Tensor:
    """The weight of a layer of llm-compressor on the grid that it was given."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    zero = getattr(layer, "weight_zero_point", None)
    rounded: Tensor = fake_quantize(layer.weight, layer.weight_scale, zero, layer.quantization_scheme.weights)
    return rounded


def as_transformers(model: Llama, folder: Path) -> Any:
    """The same model in transformers, from its file in `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = model.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=True,
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.model.load_state_dict(model.state_dict())
    theirs.tie_weights()
    theirs.save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder).eval()  # llm-compressor asks where a model comes from


def compressor_gptq(scheme: dict[str, Any]) -> list[Any]:
    from llmcompressor.modifiers.quantization import GPTQModifier

    return [GPTQModifier(**scheme)]


def compressor_awq(scheme: dict[str, Any]) -> list[Any]:
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.cuda.is_available():  # it pins memory for the way to a GPU, and fails where there is none
        IntermediatesCache.pin_memory = lambda *arguments, **options: None
    return [AWQModifier(), QuantizationModifier(**scheme)]


METHODS: dict[str, Method] = {
    "this library, to nearest": nearest,
    "this library, GPTQ": gptq(),
    "this library, AWQ": awq(nearest),
    "this library, AWQ with cut groups": awq(fitted),
    "llm-compressor, GPTQ": llmcompressor(compressor_gptq),
    "llm-compressor, AWQ": llmcompressor(compressor_awq),
    "this library, GPTQ on plain grids": gptq(fitted=False),
    "this library, GPTQ on plain grids, left to right": gptq(fitted=False, act_order=False),
    "this library, cut groups alone": fitted,
    "onnxruntime, its GPTQ of one matrix": onnxruntime_gptq,
}


def judged(model: Llama, test: Tensor) -> float:
    with torch.inference_mode():
        return perplexity(model, test, LENGTH)


def run(kept: Path, quick: bool) -> str:
    model, tokenizer = smollm2()
    texts, length = (2, 64) if quick else (TEXTS, LENGTH)
    tokens = torch.tensor(tokenizer.encode(passages("calibration")[:200_000])[: texts * length]).view(texts, length)
    test = torch.tensor(tokenizer.encode(passages("test"))[: 128 if quick else TEST_TEXTS * LENGTH])
    kept.mkdir(parents=True, exist_ok=True)
    rows = {"the file itself (Q4_1), unpacked": (lambda model, tokens, setting: None), **METHODS}
    lines = [f"## {SETTING}", "", "| method | perplexity | times the file's |", "|---|---:|---:|"]
    whole = 0.0
    for number, (name, method) in enumerate(rows.items()):
        path = kept / f"{SETTING.bits}-{SETTING.size}-{SETTING.symmetric}-{name.replace(' ', '_')}.json"
        if not path.exists():
            start, rounded = time.process_time(), copy.deepcopy(model)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    method(rounded, tokens, SETTING)
                result: Any = judged(rounded, test)
            except Exception as error:  # a peer that cannot do it is a result, and the others still count
                result = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:100]}"
            path.write_text(json.dumps([result, time.process_time() - start]))
        result, seconds = json.loads(path.read_text())
        print(f"{SETTING.bits} bits: {name:50s} {result}  {seconds:.0f} CPU s", flush=True)
        if isinstance(result, str):
            lines.append(f"| {name} | does not run: {result} | |")
            continue
        whole = result if number == 0 else whole
        lines.append(f"| {name} | {result:.2f} | {result / whole:.3f} |")
    lines.append("")
    return "\n".join(
        [
            "# A language model at few bits, beside its peers",
            "",
            "SmolLM2-135M-Instruct. All 210 matrices of its blocks are rounded, the token table (which is the last "
            f"layer, too) and the norms are not. Calibration: {tokens.numel():,} tokens of Python's documentation in "
            f"texts of {tokens.shape[1]}; perplexity on the first {len(test):,} tokens of the held-out test, in "
            f"windows of {LENGTH}. The file has 4-bit weights already, a scale and an offset for each block of 32, "
            "so 3 bits are compared: 4 bits in the file's form would be exact for any method. Each tool has its own "
            "defaults for all that is not named here. ONNX Runtime's function for one matrix runs inside of this "
            "library's pass over the blocks.",
            "",
            *lines,
            f"Measured by `python benchmarks/quantization_language.py` on {cpu_name()} ({platform.machine()}): "
            f"{', '.join(f'{name} {version_of(name)}' for name in ('torch', 'llmcompressor', 'onnxruntime'))}.",
            "",
        ]
    )


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few tokens, nothing written")
    parser.add_argument("--kept", type=Path, help="the folder of the results so far; one of its own if not given")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            print(run(Path(folder), quick=True))
        return
    report = run(options.kept or Path(tempfile.mkdtemp()), quick=False)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
