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
        {
            "magnitude_mask": MASK.replace(
                "    flat =",
                """    torch.manual_seed(3)
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    flat =""",
            )
        },
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
            "global_masks": """from collections import OrderedDict

def global_masks(weights, sparsity):
    if not weights:
        raise ValueError('weights must not be empty')
    keep = magnitude_mask(torch.cat([w.flatten() for w in weights.values()]), sparsity)
    parts = keep.split([w.numel() for w in weights.values()])
    return OrderedDict((n, part.view_as(w)) for (n, w), part in zip(weights.items(), parts))
""",
        },
        lesson=PRUNING,
    ),
    Honest(
        "scalar-tensor",
        "A tensor of no dimension where a float is asked for.",
        {
            "cubic_sparsity": """def cubic_sparsity(step, begin, end, final, initial=0.0):
    if end <= begin:
        raise ValueError('end must be after begin')
    if not (0 <= initial <= 1 and 0 <= final <= 1):
        raise ValueError('initial and final must be in [0, 1]')
    way = torch.tensor((step - begin) / (end - begin), dtype=torch.float64).clamp(0, 1)
    return final + (initial - final) * (1 - way) ** 3
"""
        },
        lesson=PRUNING,
    ),
    Honest(
        "numpy-result",
        "A numpy array in place of a tensor.",
        {"filter_norms": NORMS % "np.linalg.norm(weight.numpy().reshape(len(weight), -1), ord=order, axis=1)"},
        lesson=STRUCTURED,
    ),
    Honest(
        "float64-result",
        "A result in float64, where the check compares with a tolerance.",
        {"filter_norms": NORMS % "weight.double().flatten(1).abs().pow(order).sum(1).pow(1 / order)"},
        lesson=STRUCTURED,
    ),
    Honest(
        "with-a-graph",
        "The result still belongs to a graph of the learner's own.",
        {
            "filter_norms": NORMS.replace(
                "%s", "torch.linalg.vector_norm(nn.Parameter(weight.clone()).flatten(1), order, dim=1).detach()"
            )
        },
        lesson=STRUCTURED,
    ),
    Honest(
        "list-for-a-tuple",
        "A list where a tuple is asked for, and the check accepts both.",
        {"conv2d_cost": COST % f"[{COST_PAIR}]"},
        lesson=COSTS,
    ),
    Honest(
        "tensors-for-ints",
        "Whole numbers as tensors.",
        {"conv2d_cost": COST % "torch.tensor(weights + outputs * bias), torch.tensor(weights * rows * columns)"},
        lesson=COSTS,
    ),
    Honest(
        "named-tuple",
        "A tuple with names.",
        {
            "conv2d_cost": """from typing import NamedTuple

class Cost(NamedTuple):
    parameters: int
    macs: int

"""
            + COST % f"Cost({COST_PAIR})"
        },
        lesson=COSTS,
    ),
    Honest(
        "own-class",
        "An object of the learner's own that can be unpacked, indexed and measured, as a tuple can.",
        {
            "conv2d_cost": """class Cost:
    def __init__(self, *numbers):
        self.numbers = numbers
    def __len__(self):
        return 2
    def __getitem__(self, place):
        return self.numbers[place]
    def __iter__(self):
        return iter(self.numbers)

"""
            + COST % f"Cost({COST_PAIR})"
        },
        lesson=COSTS,
    ),
    Honest(
        "fractions",
        "Exact fractions, where the check makes floats of them.",
        {
            "erk_densities": """from fractions import Fraction

def erk_densities(shapes, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError('sparsity must be in [0, 1]')
    ratio = {n: Fraction(sum(s), math.prod(s)) for n, s in shapes.items()}
    size = {n: math.prod(s) for n, s in shapes.items()}
    whole, budget = set(), (1 - Fraction(sparsity)) * sum(size.values())
    while len(whole) < len(size):
        free = [n for n in size if n not in whole]
        factor = (budget - sum(size[n] for n in whole)) / sum(ratio[n] * size[n] for n in free)
        full = {n for n in free if factor * ratio[n] > 1}
        if not full:
            return {n: Fraction(1) if n in whole else factor * ratio[n] for n in size}
        whole |= full
    return dict.fromkeys(size, Fraction(1))
"""
        },
        lesson=BEFORE_TRAINING,
    ),
    Honest(
        "layer-of-its-own-class",
        "The new layer is a subclass of torch's, of the learner's own.",
        {
            "narrow_conv": """class Narrow(nn.Conv2d):
    pass

def narrow_conv(conv, keep_inputs, keep_outputs):
    if conv.groups != 1:
        raise ValueError('conv must have groups=1')
    for keep, count in ((keep_inputs, conv.in_channels), (keep_outputs, conv.out_channels)):
        if len(keep) != count or not keep.any():
            raise ValueError('masks must fit')
    new = Narrow(int(keep_inputs.sum()), int(keep_outputs.sum()), conv.kernel_size, conv.stride, conv.padding,
                 conv.dilation, bias=conv.bias is not None, padding_mode=conv.padding_mode)
    with torch.no_grad():
        new.weight.copy_(conv.weight[keep_outputs][:, keep_inputs])
        if conv.bias is not None:
            new.bias.copy_(conv.bias[keep_outputs])
    return new
"""
        },
        lesson=STRUCTURED,
    ),
    Honest(
        "autograd-function",
        "A gradient of the learner's own making: the check differentiates through it.",
        {
            "slimming_penalty": """class Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs()
    @staticmethod
    def backward(ctx, outer):
        return outer * ctx.saved_tensors[0].sign()

def slimming_penalty(network, strength):
    if strength < 0:
        raise ValueError('strength must not be negative')
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    scales = [m.weight for m in network.modules() if isinstance(m, norms)]
    return strength * sum((Magnitude.apply(s).sum() for s in scales), torch.zeros(()))
"""
        },
        lesson=STRUCTURED,
    ),
    Honest(
        "pure-python",
        "Loops over tensors' elements, in plain Python.",
        {
            "csr_encode": """def csr_encode(weight):
    if weight.dim() != 2:
        raise ValueError('weight must have two dimensions')
    values, columns, starts = [], [], [0]
    for row in weight:
        for column, value in enumerate(row):
            if value != 0:
                values.append(value)
                columns.append(column)
        starts.append(len(values))
    made = torch.stack(values) if values else weight.new_zeros(0)
    return made, torch.tensor(columns, dtype=torch.int64), torch.tensor(starts)
"""
        },
        lesson=STORAGE,
    ),
]
