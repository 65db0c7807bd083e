"""Calibration: choose the range of real numbers that codes shall cover, from what a few batches of data show.

Weights are known, so their range can be read off. What flows between layers depends on the input; so a few hundred
images are sent through the network, an `Observer` at each place keeps the extremes and a histogram, and one of four
rules chooses the range: min-max, percentile, least squared error, least loss of information. A histogram is two
tensors, as `torch.histogram` gives them: counts (bins,) and edges (bins + 1,).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.bench.modes import device_of, evaluating
from course_lib.quantization.affine import (
    affine_parameters,
    code_range,
    dequantize,
    quantize,
    read_back,
    symmetric_scale,
)

RANGE_METHODS = ("min-max", "percentile", "mse", "entropy")

_AT_A_TIME = 1024  # ranges whose losses are computed together


def min_max_range(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of all batches: nothing is clipped, and one outlier decides.

    Args:
        batches: finite float32 tensors of any shapes; not all of them empty.

    Returns:
        (low, high), float32 without axes.

    Raises:
        ValueError: there is no value at all, or one is NaN or infinite.
    """
    filled = [batch for batch in batches if batch.numel()]
    if not filled:
        raise ValueError("batches must hold at least one value: is the calibration set empty?")
    low = torch.stack([batch.min() for batch in filled]).min()
    high = torch.stack([batch.max() for batch in filled]).max()
    if not (torch.isfinite(low) and torch.isfinite(high)):  # the minimum of anything and NaN is NaN
        raise ValueError("batches must be finite, got NaN or infinity: does the network work on this data?")
    return low, high


def percentile_range(counts: Tensor, edges: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """The range that is left when a few of the smallest and as many of the largest values are cut off.

    With cut = (1 - percentile / 100) / 2, low is the lower edge of the first bin up to whose end more than the share
    cut of all values has been counted, and high the upper edge of the first bin up to whose end at least the share 1 -
    cut has been. So at least `percentile` percent of the values are within the range, and 100 cuts only empty bins.

    Args:
        counts: how many values each bin holds, (bins,), not negative, not all 0.
        edges: the bins' ends in ascending order, (bins + 1,).
        percentile: above 0, at most 100; the percentage of values that must stay within the range.

    Returns:
        (low, high), two of the edges, without axes.

    Raises:
        ValueError: `percentile` is out of range, the shapes do not fit, or the histogram is empty.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100], got {percentile}")
    if edges.shape != (len(counts) + 1,):
        raise ValueError(f"edges must have {len(counts) + 1} entries, one more than counts, got {tuple(edges.shape)}")
    if counts.sum() <= 0:
        raise ValueError("counts must hold at least one value: is the calibration set empty?")
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    first = int((below <= cut).sum())
    last = int((below < below[-1] - cut).sum())
    return edges[first], edges[last + 1]


def mse_range(counts: Tensor, edges: Tensor, bits: int, candidates: int = 100) -> tuple[Tensor, Tensor]:
    """The range whose codes have the least squared error: clipping a rare outlier may cost less than coarse steps.

    Let low and high be the outer edges of the bins that hold something, and top = max(-low, high). The candidates are
    the ranges from max(low, -t) to min(high, t), for t = top * k / candidates, k = 1 … candidates. The error of each is

        sum over bins of count * (middle - dequantize(quantize(middle)))^2

    with unsigned codes of `bits` bits (`affine_parameters`). The least error wins; of equal ones the widest range.

    Args:
        counts: how many values each bin holds, (bins,), not negative, not all 0.
        edges: the bins' ends in ascending order, (bins + 1,).
        bits: of a code, 1 to 16.
        candidates: how many ranges to try, at least 1.

    Returns:
        (low, high), without axes.

    Raises:
        ValueError: `candidates` is below 1, the shapes do not fit, or the histogram is empty.

    Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1 (MSE), as a grid search.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    if edges.shape != (len(counts) + 1,):
        raise ValueError(f"edges must have {len(counts) + 1} entries, one more than counts, got {tuple(edges.shape)}")
    filled = counts.nonzero().flatten()
    if not len(filled):
        raise ValueError("counts must hold at least one value: is the calibration set empty?")
    low, high = edges[filled[0]], edges[filled[-1] + 1]
    middles = ((edges[:-1] + edges[1:]) / 2)[filled]
    best, least = (low, high), math.inf
    for k in range(candidates, 0, -1):
        threshold = torch.maximum(-low, high) * k / candidates
        candidate = torch.maximum(low, -threshold), torch.minimum(high, threshold)
        if candidate[0] > candidate[1]:  # all values lie beyond the threshold, on one side
            continue
        scale, zero_point = affine_parameters(*candidate, bits)
        codes = quantize(middles, scale, zero_point, 0, 2**bits - 1)
        error = (counts[filled] * (middles - dequantize(codes, scale, zero_point)).double().square()).sum().item()
        if error < least:
            best, least = candidate, error
    return best


def information_loss(counts: Tensor, first: int, last: int, levels: int) -> float:
    """How much of a histogram's information is lost when bins `first` … `last` - 1 share `levels` codes.

    P, what it was: the counts of these bins, with all that lies before added to the first and all that lies behind to
    the last of them, for it saturates. Q, what is left: the n = last - first bins are merged into groups, bin i (from
    0) into group floor(i * levels / n), and the count of each group, outliers left out, is spread evenly over those of
    its bins that P does not have empty; where that leaves 0, it is 0.0001. Both are divided by their sums. The loss is
    the Kullback-Leibler divergence in nats,

        KL(P || Q) = sum over bins with P > 0 of P * ln(P / Q)

    Args:
        counts: (bins,), not negative; something in bins `first` … `last` - 1.
        first, last: 0 <= first < last <= bins.
        levels: the number of codes, 1 to last - first.

    Raises:
        ValueError: `first`, `last` or `levels` is out of range, or nothing is in these bins.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GTC, entropy calibration.
    """
    if not 0 <= first < last <= len(counts):
        raise ValueError(f"first and last must be in order within {len(counts)} bins, got {first} and {last}")
    bins = last - first
    if not 1 <= levels <= bins:
        raise ValueError(f"levels must be in [1, {bins}], the number of bins, got {levels}")
    if counts[first:last].sum() <= 0:
        raise ValueError(f"counts must hold something in bins {first} to {last - 1}")
    return _information_losses(counts, torch.tensor([first]), torch.tensor([last]), levels).item()


def _information_losses(counts: Tensor, first: Tensor, last: Tensor, levels: int) -> Tensor:
    """`information_loss` of many ranges, (ranges,) as `first` and `last`, from running sums over the histogram.

    With p for a count of P and T for their sum, m for the number of bins of a group that P does not have empty, and q
    for what Q gives each of them, before Q is divided by its sum:

        KL(P || Q) = (sum over bins of p * ln(p) - sum over groups of (sum of p) * ln(q)) / T - ln(T) + ln(sum of m * q)
    """
    counts = counts.double()
    whole, filled, with_log = (
        F.pad(values.cumsum(0), (1, 0)) for values in (counts, (counts > 0).double(), counts.xlogy(counts))
    )
    bins = last - first
    before = (torch.arange(levels + 1) * bins[:, None] + levels - 1) // levels  # bins in front of each group
    starts = first[:, None] + before  # (ranges, levels + 1), with the end
    totals, shares = whole[starts].diff(dim=1), filled[starts].diff(dim=1)  # (ranges, levels)
    below, above = whole[first], whole[-1] - whole[last]
    at_first, at_last = counts[first], counts[last - 1]
    shares[:, 0] += (at_first == 0) & (below > 0)  # only outliers lie in this bin
    shares[:, -1] += (at_last == 0) & (above > 0)
    left = (totals / shares.clamp(min=1)).clamp(min=1e-4)
    totals[:, 0] += below
    totals[:, -1] += above
    apart = _gain(at_first, below) + _gain(at_last, above)
    outer = torch.where(bins == 1, _gain(at_first, below + above), apart)
    information = with_log[last] - with_log[first] + outer - (totals * left.log()).sum(1)
    return (information / whole[-1] - whole[-1].log() + (shares * left).sum(1).log()).clamp(min=0)


def _gain(count: Tensor, more: Tensor) -> Tensor:
    """What p * ln(p) grows by when a bin takes in more."""
    return (count + more).xlogy(count + more) - count.xlogy(count)


def entropy_range(counts: Tensor, edges: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The range whose codes keep most of the histogram's information: the least `information_loss` wins.

    The candidates are the ranges from max(low, -t) to min(high, t), where low and high are the outer edges of the bins
    that hold something, and t grows bin by bin. Tried are those that have at least one bin for each level; where even
    the whole has fewer, the whole is the answer. Of equal divergences the widest range wins.

    Args:
        counts: how many values each bin holds, (bins,), not negative, not all 0; the number of bins is even.
        edges: the bins' ends, (bins + 1,), equally spaced from -bound to bound.
        levels: the number of codes, 2^bits, at least 1. TensorRT counts the magnitudes of signed codes, 128 for 8 bits.

    Returns:
        (low, high), two of the edges, without axes.

    Raises:
        ValueError: `levels` is below 1, the shapes do not fit, the edges are not symmetric, or the histogram is empty.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GTC. ONNX Runtime's `CalibrationMethod.Entropy` follows the
    same rule; it puts the bins that are left over into the last group, and its Q holds whole numbers.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    if edges.shape != (len(counts) + 1,):
        raise ValueError(f"edges must have {len(counts) + 1} entries, one more than counts, got {tuple(edges.shape)}")
    if len(counts) % 2 or not torch.allclose(edges, -edges.flip(0)):
        raise ValueError("edges must be symmetric about 0, with an even number of bins")
    filled = counts.nonzero().flatten().tolist()
    if not filled:
        raise ValueError("counts must hold at least one value: is the calibration set empty?")
    lowest, highest, zero = filled[0], filled[-1] + 1, len(counts) // 2
    reach = torch.arange(max(zero - lowest, highest - zero), 0, -1)  # bins on either side of zero
    first, last = (zero - reach).clamp(min=lowest), (zero + reach).clamp(max=highest)
    running = F.pad(counts.cumsum(0), (1, 0))
    tried = (last - first >= levels) & (running[last] > running[first])
    if not tried.any():
        return edges[lowest], edges[highest]
    parts = zip(first[tried].split(_AT_A_TIME), last[tried].split(_AT_A_TIME), strict=True)
    losses = torch.cat([_information_losses(counts, *part, levels) for part in parts])
    best = (losses <= losses.min() + 1e-12).nonzero()[0, 0]  # the running sums are exact to about that
    return edges[first[tried][best]], edges[last[tried][best]]


def mse_scale(weight: Tensor, bits: int, candidates: int = 100) -> Tensor:
    """For each output channel the scale of symmetric codes that has the least squared error.

    The candidates are bound = max |weight of the channel| * k / candidates, for k = 1 … candidates, each with the
    scale of `symmetric_scale` and the signed codes of `bits` bits. Of equal errors the larger scale wins.

    Args:
        weight: finite float32, (channels, …).
        bits: of a code, 2 to 16.
        candidates: how many scales to try, at least 1.

    Returns:
        float32, (channels, 1, …): it broadcasts against `weight`.

    Raises:
        ValueError: `bits` or `candidates` is out of range, or a weight is NaN or infinite.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    rows, (lowest, highest) = weight.detach().flatten(1), code_range(bits, signed=True)
    shares = torch.arange(candidates, 0, -1, device=weight.device)
    scales = symmetric_scale(rows.abs().amax(1, keepdim=True) * shares / candidates, bits)  # (channels, candidates)
    best, least = scales[:, :1], torch.full_like(scales[:, :1], math.inf)
    for scale in scales.split(1, dim=1):
        rounded = (rows / scale).round_().clamp_(lowest, highest).mul_(scale)  # `quantize` and `dequantize`
        error = rounded.sub_(rows).square_().sum(1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best.view(-1, *[1] * (weight.dim() - 1))


class Observer:
    """What passes one place of a network, batch after batch: the extremes, how many values are 0, and a histogram.

    The histogram has bins of equal width from -bound to bound, where bound is the smallest power of two that is not
    below any magnitude seen. When a batch goes beyond it, the bound doubles and neighbouring bins are merged, two and
    two. So the memory stays the same, no count is ever estimated, and the order and the size of the batches do not
    matter.

    Args:
        bins: of the histogram, a power of two, at least 4.

    Raises:
        ValueError: `bins` is no such number.
    """

    def __init__(self, bins: int = 2048) -> None:
        if bins < 4 or bins & (bins - 1):
            raise ValueError(f"bins must be a power of two, at least 4, got {bins}")
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.bound = 0.0  # 0 as long as nothing but zeros has been seen; these are counted in the bin right of 0
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    def update(self, values: Tensor) -> None:
        """Take in one batch: float values of any shape, finite; an empty batch changes nothing.

        Raises:
            ValueError: a value is NaN or infinite; nothing of the batch is taken in.
        """
        if not values.numel():
            return
        values = values.detach().flatten().cpu()
        if values.dtype != torch.float64:
            values = values.float()
        low, high = (end.item() for end in values.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values must be finite, got NaN or infinity: does the network work on this data?")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.zeros += len(values) - int(values.count_nonzero())
        self._widen(max(-low, high))
        bins = len(self.counts)
        if self.bound:
            factor = bins / 2 / self.bound  # a power of two: the product is exact, in float32 where it cannot underflow
            scaled = (values if 1 <= factor < 2**100 else values.double()) * factor
            positions = scaled.floor_().int().add_(bins // 2)
            self.counts += torch.bincount(positions.clamp_(max=bins - 1), minlength=bins)
        else:
            self.counts[bins // 2] += len(values)

    @property
    def edges(self) -> Tensor:
        """The ends of the bins, float32 (bins + 1,).

        Raises:
            ValueError: nothing but zeros has been seen, so that there is no width.
        """
        if not self.bound:
            raise ValueError("edges need a value other than 0: has this place of the network seen any data?")
        return torch.linspace(-self.bound, self.bound, len(self.counts) + 1, dtype=torch.float64).float()

    def range(self, method: str, bits: int = 8, percentile: float = 99.99) -> tuple[Tensor, Tensor]:
        """The range that codes should cover, chosen by one of `RANGE_METHODS`; never wider than what has been seen.

        For "mse" and "entropy" the values that are 0 take no part: they have a code of their own in every range.
        Without them, the half of a ReLU's outputs that is 0 would decide.

        Args:
            method: "min-max", "percentile", "mse" or "entropy".
            bits: of a code; for "mse" and "entropy".
            percentile: for "percentile".

        Returns:
            (low, high), float32 without axes.

        Raises:
            ValueError: there is no such method, or nothing has been seen.
        """
        if method not in RANGE_METHODS:
            raise ValueError(f"method must be one of {', '.join(RANGE_METHODS)}, got {method!r}")
        if self.low > self.high:
            raise ValueError("nothing has been observed: is the calibration set empty?")
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        others = self.counts.clone()
        others[len(others) // 2] -= self.zeros
        if method == "min-max" or not others.any():
            return low, high
        if method == "percentile":
            chosen = percentile_range(self.counts, self.edges, percentile)
        elif method == "mse":
            chosen = mse_range(others, self.edges, bits)
        else:
            chosen = entropy_range(others, self.edges, 2**bits)
        return chosen[0].clamp(low, high), chosen[1].clamp(low, high)

    def _widen(self, magnitude: float) -> None:
        if not magnitude:
            return
        fraction, exponent = math.frexp(magnitude)  # magnitude = fraction * 2^exponent, fraction in [0.5, 1)
        bound = math.ldexp(1.0, exponent - (fraction == 0.5))
        while self.bound and self.bound < bound:
            quarter = len(self.counts) // 4
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[quarter : 3 * quarter] = merged
            self.bound *= 2
        self.bound = max(self.bound, bound)


@torch.no_grad()
def observe(
    network: nn.Module, images: Tensor, side: str = "input", batch: int = 200, bins: int = 2048
) -> dict[str, Observer]:
    """Send images through a network and watch what goes into (or comes out of) its convolutions and linear layers.

    Args:
        network: it is not changed; it runs in evaluation mode.
        images: training images, (n, ...), at least one; a few hundred are enough. Never test images.
        side: "input" or "output" of each layer.
        batch: images at a time.
        bins: of each histogram.

    Returns:
        For the name of each Conv2d and Linear that the images passed, in the order of the network, its observer.

    Raises:
        ValueError: `side` is neither, or there are no images.
    """
    if side not in ("input", "output"):
        raise ValueError(f"side must be 'input' or 'output', got {side!r}")
    observers = {
        name: Observer(bins) for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    }

    def watch(name: str, layer: nn.Module, values: Tensor) -> None:
        observers[name].update(values)

    watch_layers(network, images, batch, observers, watch, side)
    return {name: observer for name, observer in observers.items() if observer.low <= observer.high}


def watch_layers(
    network: nn.Module,
    images: Tensor,
    batch: int,
    names: Iterable[str],
    watch: Callable[[str, nn.Module, Tensor], None],
    side: str,
) -> None:
    """Send images through a network in evaluation mode; for each batch `watch` gets what the named layers see or make.

    Args:
        network: it is not changed.
        images: (n, ...), at least one.
        batch: images at a time.
        names: of the layers.
        watch: called as watch(name, layer, values).
        side: "input" or "output" of the layers.

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("images must hold at least one image: is the calibration set empty?")
    handles = []
    for name in names:

        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            watch(name, layer, inputs[0] if side == "input" else output)

        handles.append(network.get_submodule(name).register_forward_hook(hook))
    try:
        with evaluating(network):
            for part in images.split(batch):
                network(part.to(device_of(network)))
    finally:
        for handle in handles:
            handle.remove()


def round_inputs(network: nn.Module, ranges: Mapping[str, tuple[Tensor, Tensor]], bits: int) -> nn.Module:
    """A copy of a network whose named layers read rounded inputs: what codes of `bits` bits would stand for.

    It computes in float32 and is no faster; it shows what a range does to the accuracy.

    Args:
        network: it is not changed.
        ranges: by the name of a layer (low, high) of its input; the other layers read their inputs as they are.
        bits: of the unsigned codes, 1 to 16.
    """
    rounded = copy.deepcopy(network)
    for name, (low, high) in ranges.items():
        scale, zero_point = affine_parameters(low, high, bits)

        def round_input(
            layer: nn.Module, inputs: tuple[Tensor, ...], scale: Tensor = scale, zero_point: Tensor = zero_point
        ) -> Tensor:
            device = inputs[0].device
            return read_back(inputs[0], scale.to(device), zero_point.to(device), 0, 2**bits - 1)

        rounded.get_submodule(name).register_forward_pre_hook(round_input)
    return rounded
