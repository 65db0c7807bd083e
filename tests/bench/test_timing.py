"""Latency. No test looks at how long anything takes: clocks are made up, and calls are counted."""

import gc

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

from course_lib import bench, nets


class Machine:
    """A clock that moves only when work is done, on a machine whose speed drifts."""

    def __init__(self, drift=0.0):
        self.now, self.calls, self.drift = 0.0, [], drift

    def work(self, name, seconds):
        def call():
            self.now += seconds + self.drift * len(self.calls)
            self.calls.append(name)

        return call


@settings(deadline=None)
@given(rounds=st.integers(1, 6), warmup=st.integers(0, 3), count=st.integers(1, 4))
def test_each_candidate_is_warmed_up_and_then_timed_once_a_round(rounds, warmup, count):
    machine = Machine()
    names = [f"candidate {n}" for n in range(count)]
    candidates = {name: machine.work(name, 1.0 + n) for n, name in enumerate(names)}
    times = bench.interleaved_times(candidates, rounds, warmup, lambda: machine.now)
    assert list(times) == names
    assert [times[name] for name in names] == [[1.0 + n] * rounds for n in range(count)]
    timed = machine.calls[count * warmup :]
    for number in range(rounds):
        assert timed[count * number : count * (number + 1)] == (names if number % 2 == 0 else names[::-1])


def test_interleaving_removes_a_steady_drift():
    machine = Machine(drift=0.01)
    candidates = {"a": machine.work("a", 1.0), "b": machine.work("b", 1.0)}
    times = bench.interleaved_times(candidates, 10, 0, lambda: machine.now)
    assert sum(times["a"]) == pytest.approx(sum(times["b"]))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40))
def test_median_and_p90_are_measured_times_in_order(times):
    median, p90 = bench.percentile(times, 0.5), bench.percentile(times, 0.9)
    assert median in times and p90 in times and min(times) <= median <= p90 <= max(times)
    assert sum(t <= p90 for t in times) >= 0.9 * len(times)
    assert sum(t <= median for t in times) >= 0.5 * len(times)


def test_a_latency_is_shown_with_three_digits_and_without_an_exponent():
    shown = [str(bench.Latency(ms, 2 * ms, 30, 1, 1, None)) for ms in (0.1461, 35.04, 1240.4)]
    assert shown == ["0.146 ms (p90 0.292)", "35 ms (p90 70.1)", "1,240 ms (p90 2,481)"]


def test_percentile_by_hand():
    assert bench.percentile([5.0, 1.0, 4.0, 2.0, 3.0], 0.5) == 3.0
    assert bench.percentile([float(n) for n in range(1, 11)], 0.9) == 9.0
    with pytest.raises(ValueError, match="times"):
        bench.percentile([], 0.5)


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((x.shape[0], torch.get_num_threads(), torch.is_grad_enabled(), self.training))
        return x


def test_latency_runs_networks_as_they_would_ship_and_restores_everything():
    network, threads = Watched().train(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = bench.latency({"network": network}, torch.zeros(7, 1), threads=2, rounds=4, warmup=3)["network"]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert network.seen == [(7, 2, False, False)] * 7
    assert network.training
    assert (result.rounds, result.threads, result.batch) == (4, 2, 7)
    assert 0 < result.median_ms <= result.p90_ms


def test_latency_takes_functions_too():
    result = bench.latency({"double": lambda x: 2 * x, "relu": torch.relu}, torch.zeros(3), rounds=2)
    assert set(result) == {"double", "relu"}


def session(threads):
    entry, result = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 3]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [entry], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_latency_takes_a_session_of_onnx_runtime():
    result = bench.latency({"engine": session(1), "torch": torch.relu}, torch.zeros(2, 3), rounds=3)
    assert result["engine"].median_ms > 0


def test_a_latency_says_which_engine_and_which_run_measured_it():
    candidates = {"engine": session(1), "torch": torch.relu}
    first, second = (bench.latency(candidates, torch.zeros(2, 3), rounds=1) for _ in range(2))
    assert [time.engine for time in first.values()] == ["ONNX Runtime", "PyTorch"]
    assert first["engine"].run == first["torch"].run != second["torch"].run


@pytest.mark.parametrize("threads", [0, 2])
def test_a_session_with_other_threads_is_refused_with_the_cure(threads):
    with pytest.raises(ValueError, match="intra_op_num_threads=1"):
        bench.latency({"engine": session(threads)}, torch.zeros(2, 3), threads=1)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="candidates"):
        bench.latency({}, torch.zeros(1))
    with pytest.raises(ValueError, match="rounds"):
        bench.latency({"relu": torch.relu}, torch.zeros(1), rounds=0)
    with pytest.raises(ValueError, match="threads"):
        bench.latency({"relu": torch.relu}, torch.zeros(1), threads=0)
    with pytest.raises(ValueError, match="candidates\\['array'\\]"):
        bench.latency({"array": np.zeros(3)}, torch.zeros(1))


def test_a_failing_candidate_leaves_modes_and_threads_as_they_were():
    network, threads = nets.build("lenet-5").train(), torch.get_num_threads()
    with pytest.raises(RuntimeError):
        bench.latency({"network": network}, torch.zeros(1, 3, 28, 28), threads=threads + 1)
    assert network.training and torch.get_num_threads() == threads


def test_steady_gives_threads_and_the_garbage_collector_back_even_after_an_error():
    threads, collecting, inside = torch.get_num_threads(), gc.isenabled(), []

    def fail_on_other_threads():
        with bench.steady(threads + 1):
            inside.extend([torch.get_num_threads(), gc.isenabled()])
            raise KeyError

    with pytest.raises(KeyError):
        fail_on_other_threads()
    assert inside == [threads + 1, False]
    assert (torch.get_num_threads(), gc.isenabled()) == (threads, collecting)


def test_a_call_on_cuda_ends_when_the_card_is_done(monkeypatch):
    """A stand-in for a tensor on the card: launching a kernel returns at once, so a clock would stop too early."""

    class OnTheCard:
        device = torch.device("cuda", 1)

        def to(self, device):
            assert device == self.device
            return self

        def __len__(self):
            return 1

    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"wait for {device}"))
    bench.latency({"f": lambda x: calls.append("launch")}, OnTheCard(), rounds=3, warmup=1)
    assert calls == ["launch", "wait for cuda:1"] * 4
