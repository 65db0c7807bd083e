"""Odd answers to the course's own lessons, where tensors and networks cross from the player to the referee."""

from tests.grading.honesty.notebook import Honest

COSTS, PRUNING, STRUCTURED = "01_what_does_a_model_cost", "01_unstructured_pruning", "03_structured_pruning"
STORAGE, BEFORE_TRAINING = "02_sparse_storage", "05_pruning_at_initialization"

MASK = """def magnitude_mask(weight, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite")
    flat = weight.detach().abs().flatten()
    keep = torch.ones(flat.numel(), dtype=torch.bool)
    keep[torch.argsort(flat, stable=True)[: round(sparsity * flat.numel())]] = False
    return keep.view_as(weight)
"""
NORMS = """def filter_norms(weight, order=1.0):
    if order <= 0:
        raise ValueError(f"order must be above 0, got {order}")
    return %s
"""
COST = """def conv2d_cost(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    if inputs %% groups or outputs %% groups:
        raise ValueError("groups must divide inputs and outputs")
    weights = outputs * (inputs // groups) * kernel**2
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return %s
"""
COST_PAIR = "weights + outputs * bias, weights * rows * columns"

ODD_LESSON_ANSWERS = [
    Honest(
        "float64-inside",
        "It works in float64, on a copy, in place.",
        {"magnitude_mask": MASK.replace("weight.detach().abs()", "weight.detach().double().clone().abs_()")},
        lesson=PRUNING,
    ),
    Honest(
        "seeds-and-threads",
        "It seeds torch, switches gradients off and sets the number of threads.",
        {"magnitude_mask": MASK.replace("    flat =", "    torch.manual_seed(3)\n    torch.set_num_threads(2)\n    torch.set_grad_enabled(False)\n    flat =")},
        lesson=PRUNING,
    ),
    Honest("no-grad", "A decorator of torch's.", {"magnitude_mask": f"@torch.no_grad()\n{MASK}"}, lesson=PRUNING),
    Honest(
        "keeps-its-arguments",
        "It keeps every tensor that it was ever given.",
        {"magnitude_mask": "SEEN = []\n" + MASK.replace("    flat", "    SEEN.append(weight)\n    flat", 1)},
        lesson=PRUNING,
    ),
    Honest(
        "returns-a-view",
        "The mask is an expanded and transposed view of something larger.",
        {"magnitude_mask": MASK.replace("keep.view_as(weight)", "torch.stack([keep, keep]).t()[:, 1].view_as(weight)")},
        lesson=PRUNING,
    ),
    Honest(
        "another-dict",
        "An OrderedDict where a dict is asked for, and the earlier exercise at work.",
        {
            "magnitude_mask": MASK,
            "global_masks": "from collections import OrderedDict\n\ndef global_masks(weights, sparsity):\n    if not weights:\n"
            "        raise ValueError('weights must not be empty')\n"
            "    keep = magnitude_mask(torch.cat([w.flatten() for w in weights.values()]), sparsity)\n"
            "    parts = keep.split([w.numel() for w in weights.values()])\n"
            "    return OrderedDict((n, part.view_as(w)) for (n, w), part in zip(weights.items(), parts))\n",
        },
        lesson=PRUNING,
    ),
    Honest(
        "scalar-tensor",
        "A tensor of no dimension where a float is asked for.",
        {
            "cubic_sparsity": "def cubic_sparsity(step, begin, end, final, initial=0.0):\n    if end <= begin:\n"
            "        raise ValueError('end must be after begin')\n    if not (0 <= initial <= 1 and 0 <= final <= 1):\n"
            "        raise ValueError('initial and final must be in [0, 1]')\n"
            "    way = torch.tensor((step - begin) / (end - begin), dtype=torch.float64).clamp(0, 1)\n"
            "    return final + (initial - final) * (1 - way) ** 3\n"
        },
        lesson=PRUNING,
    ),
    Honest("numpy-result", "A numpy array in place of a tensor.", {"filter_norms": NORMS % "np.linalg.norm(weight.numpy().reshape(len(weight), -1), ord=order, axis=1)"}, lesson=STRUCTURED),
    Honest("float64-result", "A result in float64, where the check compares with a tolerance.", {"filter_norms": NORMS % "weight.double().flatten(1).abs().pow(order).sum(1).pow(1 / order)"}, lesson=STRUCTURED),
    Honest("with-a-graph", "The result still belongs to a graph of the learner's own.", {"filter_norms": NORMS.replace("%s", "torch.linalg.vector_norm(nn.Parameter(weight.clone()).flatten(1), order, dim=1).detach()")}, lesson=STRUCTURED),
    Honest("list-for-a-tuple", "A list where a tuple is asked for, and the check accepts both.", {"conv2d_cost": COST % f"[{COST_PAIR}]"}, lesson=COSTS),
    Honest("tensors-for-ints", "Whole numbers as tensors.", {"conv2d_cost": COST % "torch.tensor(weights + outputs * bias), torch.tensor(weights * rows * columns)"}, lesson=COSTS),
    Honest(
        "named-tuple",
        "A tuple with names.",
        {"conv2d_cost": "from typing import NamedTuple\n\nclass Cost(NamedTuple):\n    parameters: int\n    macs: int\n\n" + COST % f"Cost({COST_PAIR})"},
        lesson=COSTS,
    ),
    Honest(
        "own-class",
        "An object of the learner's own that can be unpacked, indexed and measured, as a tuple can.",
        {
            "conv2d_cost": "class Cost:\n    def __init__(self, *numbers):\n        self.numbers = numbers\n    def __len__(self):\n"
            "        return 2\n    def __getitem__(self, place):\n        return self.numbers[place]\n    def __iter__(self):\n"
            "        return iter(self.numbers)\n\n" + COST % f"Cost({COST_PAIR})"
        },
        lesson=COSTS,
    ),
    Honest(
        "fractions",
        "Exact fractions, where the check makes floats of them.",
        {
            "erk_densities": "from fractions import Fraction\n\ndef erk_densities(shapes, sparsity):\n    if not 0 <= sparsity <= 1:\n"
            "        raise ValueError('sparsity must be in [0, 1]')\n"
            "    ratio = {n: Fraction(sum(s), math.prod(s)) for n, s in shapes.items()}\n"
            "    size = {n: math.prod(s) for n, s in shapes.items()}\n    whole, budget = set(), (1 - Fraction(sparsity)) * sum(size.values())\n"
            "    while len(whole) < len(size):\n        free = [n for n in size if n not in whole]\n"
            "        factor = (budget - sum(size[n] for n in whole)) / sum(ratio[n] * size[n] for n in free)\n"
            "        full = {n for n in free if factor * ratio[n] > 1}\n        if not full:\n"
            "            return {n: Fraction(1) if n in whole else factor * ratio[n] for n in size}\n        whole |= full\n"
            "    return dict.fromkeys(size, Fraction(1))\n"
        },
        lesson=BEFORE_TRAINING,
    ),
    Honest(
        "layer-of-its-own-class",
        "The new layer is a subclass of torch's, of the learner's own.",
        {
            "narrow_conv": "class Narrow(nn.Conv2d):\n    pass\n\ndef narrow_conv(conv, keep_inputs, keep_outputs):\n    if conv.groups != 1:\n"
            "        raise ValueError('conv must have groups=1')\n"
            "    for keep, count in ((keep_inputs, conv.in_channels), (keep_outputs, conv.out_channels)):\n"
            "        if len(keep) != count or not keep.any():\n            raise ValueError('masks must fit')\n"
            "    new = Narrow(int(keep_inputs.sum()), int(keep_outputs.sum()), conv.kernel_size, conv.stride, conv.padding,\n"
            "                 conv.dilation, bias=conv.bias is not None, padding_mode=conv.padding_mode)\n    with torch.no_grad():\n"
            "        new.weight.copy_(conv.weight[keep_outputs][:, keep_inputs])\n        if conv.bias is not None:\n"
            "            new.bias.copy_(conv.bias[keep_outputs])\n    return new\n"
        },
        lesson=STRUCTURED,
    ),
    Honest(
        "autograd-function",
        "A gradient of the learner's own making: the check differentiates through it.",
        {
            "slimming_penalty": "class Magnitude(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n"
            "        ctx.save_for_backward(x)\n        return x.abs()\n    @staticmethod\n    def backward(ctx, outer):\n"
            "        return outer * ctx.saved_tensors[0].sign()\n\ndef slimming_penalty(network, strength):\n    if strength < 0:\n"
            "        raise ValueError('strength must not be negative')\n    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)\n"
            "    scales = [m.weight for m in network.modules() if isinstance(m, norms)]\n"
            "    return strength * sum((Magnitude.apply(s).sum() for s in scales), torch.zeros(()))\n"
        },
        lesson=STRUCTURED,
    ),
    Honest(
        "pure-python",
        "Loops over tensors' elements, in plain Python.",
        {
            "csr_encode": "def csr_encode(weight):\n    if weight.dim() != 2:\n        raise ValueError('weight must have two dimensions')\n"
            "    values, columns, starts = [], [], [0]\n    for row in weight:\n        for column, value in enumerate(row):\n"
            "            if value != 0:\n                values.append(value)\n                columns.append(column)\n"
            "        starts.append(len(values))\n    made = torch.stack(values) if values else weight.new_zeros(0)\n"
            "    return made, torch.tensor(columns, dtype=torch.int64), torch.tensor(starts)\n"
        },
        lesson=STORAGE,
    ),
]  # fmt: skip
