"""Accuracy and its noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib import bench
from course_lib.data import Split


class Fixed(nn.Module):
    """Says class c for an image filled with c."""

    def forward(self, images):
        return nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()


def split(said, labels):
    images = torch.tensor(said).float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Split(images, torch.tensor(labels))


def test_accuracy_is_the_share_of_right_answers_whatever_the_batch():
    test = split([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 9, 9, 9, 9])
    for batch in (1, 3, 7, 100):
        assert bench.accuracy(Fixed(), test, batch) == pytest.approx(100 * 3 / 7)


def test_accuracy_is_measured_in_evaluation_mode_and_leaves_the_mode():
    network = nn.Sequential(nn.Dropout(1.0), Fixed()).train()
    assert bench.accuracy(network, split([1, 2, 3], [1, 2, 3])) == 100
    assert network.training and network[0].training


def test_accuracy_takes_functions():
    assert bench.accuracy(Fixed().forward, split([1, 2], [1, 3])) == 50


def test_class_changes_are_the_differences_of_the_accuracies_class_by_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (300,), generator=generator)
    before, after = ((labels + (torch.rand(300, generator=generator) < share)) % 3 for share in (0.1, 0.4))
    images = torch.stack([before, after], 1).float().reshape(-1, 1, 1, 2)
    one, other = ((lambda x, i=i: nn.functional.one_hot(x[:, 0, 0, i].long(), 3).float()) for i in (0, 1))
    changes, errors = bench.class_changes(one, other, Split(images, labels))
    for label in range(3):
        own = Split(images[labels == label], labels[labels == label])
        assert changes[label].item() == pytest.approx(bench.accuracy(other, own) - bench.accuracy(one, own), abs=1e-3)
        right = [(said[labels == label] == label).double().numpy() for said in (before, after)]
        error = 100 * np.std(right[1] - right[0], ddof=1) / len(own.labels) ** 0.5
        assert errors[label].item() == pytest.approx(error, rel=1e-5)


def test_a_network_does_not_change_against_itself():
    changes, errors = bench.class_changes(Fixed(), Fixed(), split([0, 0, 1, 2], [0, 0, 1, 1]))
    assert changes.tolist() == errors.tolist() == [0, 0]


def test_the_standard_error_is_that_of_a_simulated_election():
    generator = torch.Generator().manual_seed(0)
    polls = (torch.rand(4000, 500, generator=generator) < 0.9).float().mean(1) * 100
    assert bench.standard_error(90, 500) == pytest.approx(polls.std().item(), rel=0.05)


@settings(deadline=None)
@given(percent=st.integers(0, 100), images=st.integers(1, 10**6))
def test_the_standard_error_halves_with_four_times_the_images(percent, images):
    assert bench.standard_error(percent, 4 * images) == pytest.approx(bench.standard_error(percent, images) / 2)
    assert bench.standard_error(percent, images) == pytest.approx(bench.standard_error(100 - percent, images))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="percent"):
        bench.standard_error(101, 10)
    with pytest.raises(ValueError, match="images"):
        bench.standard_error(50, 0)
