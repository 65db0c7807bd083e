"""Export: the file computes what the network computes, at any batch size, and does not tell on its maker."""

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from course_lib import bench, nets
from course_lib.nets import build, export

SAMPLE = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network = build("resnet-8").train()
    path = tmp_path_factory.mktemp("export") / "resnet-8.onnx"
    assert nets.export_onnx(network, path, SAMPLE) == path
    return network, path


def test_the_file_computes_what_the_network_computes_at_any_batch_size(exported):
    network, path = exported
    session = nets.onnx_session(path)
    assert network.training  # as it was before the export
    for batch in (1, 2, 7):
        images = torch.randn(batch, 1, 28, 28)
        with torch.no_grad():
            expected = network.eval()(images)
        network.train()
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected)


def test_the_file_is_one_file_of_about_the_size_of_its_weights_without_notes_on_this_machine(exported):
    network, path = exported
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert bench.file_bytes(path) < 4 * bench.parameters(network) + 20_000
    content = path.read_bytes()
    for folder in (Path.cwd(), Path.home(), Path(torch.__file__).parent):
        assert str(folder).encode() not in content
    onnx.checker.check_model(str(path), full_check=True)


def test_a_session_has_the_threads_that_the_measurement_asks_for(exported):
    assert nets.onnx_session(exported[1], threads=2).get_session_options().intra_op_num_threads == 2


def test_the_export_says_nothing_and_warns_of_nothing(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nets.export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), tmp_path / "small.onnx", SAMPLE)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_computes_something_else_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    monkeypatch.setattr(export, "_TOLERANCE", -1.0)
    with pytest.raises(nets.ExportError, match="outputs differ from the network's"):
        nets.export_onnx(network, tmp_path / "small.onnx", SAMPLE)
    assert not list(tmp_path.iterdir())


def test_a_network_that_onnx_cannot_express_and_a_folder_that_is_not_there_are_named(tmp_path):
    class Undecided(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(nets.ExportError, match="cannot be exported"):
        nets.export_onnx(Undecided(), tmp_path / "x.onnx", SAMPLE)
    with pytest.raises(nets.ExportError, match="cannot be written"):
        nets.export_onnx(nn.Flatten(), tmp_path / "missing" / "x.onnx", SAMPLE)
