"""Peak memory."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import bench, nets
from course_lib.bench import memory

FIFTY_MB = 50_000_000


def test_a_temporary_of_50_mb_is_seen():
    def wasteful(x):
        return x + torch.ones(FIFTY_MB // 4).sum()

    assert FIFTY_MB <= bench.peak_memory(wasteful, torch.zeros(1)) < 1.02 * FIFTY_MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what others than torch allocate")
def test_a_temporary_of_numpy_is_seen_too():
    assert 0.9 * FIFTY_MB < bench.peak_memory(lambda: np.ones(FIFTY_MB // 8).sum()) < 1.2 * FIFTY_MB


def test_two_temporaries_one_after_the_other_need_the_memory_of_one():
    def in_turns():
        torch.ones(FIFTY_MB // 4).sum()
        torch.ones(FIFTY_MB // 4).sum()

    def at_once():
        return torch.ones(FIFTY_MB // 4) is torch.ones(FIFTY_MB // 4)

    assert bench.peak_memory(in_turns) < 1.1 * FIFTY_MB
    assert bench.peak_memory(at_once) >= 2 * FIFTY_MB


def test_what_exists_already_does_not_count():
    weight = torch.ones(FIFTY_MB // 4)
    assert bench.peak_memory(lambda x: x[:1], weight) < 1_000_000


def test_a_network_needs_more_for_a_larger_batch_and_the_figure_repeats():
    network = nets.build("lenet-5").eval()
    with torch.no_grad():
        one = [bench.peak_memory(network, torch.zeros(8, 1, 28, 28)) for _ in range(2)]
        assert one[0] == one[1]
        assert bench.peak_memory(network, torch.zeros(64, 1, 28, 28)) > 4 * one[0]


def test_nothing_appears_on_the_screen(capfd):
    bench.peak_memory(nn.Linear(3, 3), torch.zeros(1, 3))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_temporary_on_cuda_is_seen():
    x = torch.zeros(1, device="cuda")
    assert bench.peak_memory(lambda x: x + torch.ones(FIFTY_MB // 4, device="cuda").sum(), x) >= FIFTY_MB


def test_cuda_is_waited_for_before_and_after_the_call_and_its_peak_set_back_between(monkeypatch):
    """A stand-in for the card, so that this branch runs in every test: it notes the order of what is asked of it."""
    asked = []
    monkeypatch.setattr(memory, "_on_cuda", lambda value: value == "on the card")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, result in (
        ("synchronize", None),
        ("reset_peak_memory_stats", None),
        ("memory_allocated", 1000),
        ("max_memory_allocated", 1700),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda name=name, result=result: (asked.append(name), result)[1])
    assert bench.peak_memory(lambda x: asked.append("call"), "on the card") == 700
    before, after = asked[: asked.index("call")], asked[asked.index("call") + 1 :]
    assert before == ["synchronize", "reset_peak_memory_stats", "memory_allocated"]
    assert after == ["synchronize", "max_memory_allocated"]
