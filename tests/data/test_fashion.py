import gzip
import shutil

import pytest
import torch

from course_lib.data import CLASSES, DataError, Split, fashion_mnist
from course_lib.data.fashion import _EMBEDDED, MEAN, STD, _load

TRAIN = "train10k-images-idx3-ubyte.gz"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The embedded files in a folder of their own, taken for the course's own folder."""
    folder = tmp_path / "files"
    shutil.copytree(_EMBEDDED, folder)
    monkeypatch.setattr("course_lib.data.fashion._EMBEDDED", folder)
    _load.cache_clear()
    yield folder
    _load.cache_clear()


def test_the_course_carries_ten_thousand_training_and_test_images_in_twelve_megabytes():
    train, test = fashion_mnist("train"), fashion_mnist("test")
    for split in (train, test):
        assert split.images.shape == (10_000, 1, 28, 28) and split.images.dtype == torch.float32
        assert split.labels.shape == (10_000,) and split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(range(len(CLASSES)))
    assert sum(path.stat().st_size for path in _EMBEDDED.iterdir()) <= 12e6
    assert abs(train.images.mean()) < 0.02 and abs(train.images.std() - 1) < 0.02


def test_test_images_are_those_that_torchvision_reads(tmp_path):
    import torchvision

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3", "labels-idx1"):
        content = gzip.decompress((_EMBEDDED / f"t10k-{kind}-ubyte.gz").read_bytes())
        (raw / f"t10k-{kind}-ubyte").write_bytes(content)
        (raw / f"train-{kind}-ubyte").write_bytes(content)
    theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=False)
    ours = fashion_mnist("test")
    assert torch.equal(((ours.images[:, 0] * STD + MEAN) * 255).round().byte(), theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


def test_the_embedded_training_images_are_the_first_of_the_full_set():
    try:
        full = fashion_mnist("train", full=True)
    except DataError as error:
        pytest.skip(f"no full Fashion-MNIST here: {error}")
    assert len(full.labels) == 60_000
    assert torch.equal(full.images[:10_000], fashion_mnist("train").images)
    assert torch.equal(full.labels[:10_000], fashion_mnist("train").labels)


def test_batches_cover_every_image_once_and_a_seed_decides_their_order():
    split = Split(torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10))
    assert [len(labels) for _, labels in split.batches(4)] == [4, 4, 2]
    orders = [torch.cat([labels for _, labels in split.batches(4, seed=seed)]).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(10))
    assert all(torch.equal(images.flatten().long(), labels) for images, labels in split.batches(3, seed=0))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        next(split.batches(0))


@pytest.mark.parametrize("count", [0, 11])
def test_more_images_than_there_are_cannot_be_taken(count):
    with pytest.raises(ValueError, match=f"between 1 and 10, got {count}"):
        Split(torch.zeros(10, 1, 1, 1), torch.zeros(10)).first(count)


def test_a_truncated_file_is_named_with_the_cure_and_kept_aside(copied):
    path = copied / TRAIN
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{TRAIN} cannot be unpacked.*kept as {TRAIN}.damaged-1.*git checkout"):
        fashion_mnist("train")
    assert (copied / f"{TRAIN}.damaged-1").read_bytes() == whole[: len(whole) // 2]
    with pytest.raises(DataError, match="missing"):
        fashion_mnist("train")
    path.write_bytes(whole)
    assert len(fashion_mnist("train").labels) == 10_000


def test_an_altered_file_is_refused_and_a_second_one_does_not_replace_the_first(copied):
    for number, content in enumerate((b"one", b"two"), 1):
        (copied / TRAIN).write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=rf"SHA-256 differs.*damaged-{number}"):
            fashion_mnist("train")
    assert [gzip.decompress((copied / f"{TRAIN}.damaged-{n}").read_bytes()) for n in (1, 2)] == [b"one", b"two"]


def test_a_damaged_file_of_another_owner_is_left_where_it_is(tmp_path, monkeypatch):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"not gzip")
    monkeypatch.setenv("SMALLFAST_FASHION_MNIST", str(tmp_path))
    with pytest.raises(DataError, match="left as it is.*unset SMALLFAST_FASHION_MNIST"):
        fashion_mnist("train", full=True)
    assert path.read_bytes() == b"not gzip"


def test_without_network_the_full_set_is_missed_in_one_line_with_the_cure(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.delenv("SMALLFAST_FASHION_MNIST", raising=False)
    monkeypatch.setenv("SMALLFAST_CACHE", str(tmp_path))
    monkeypatch.setattr("course_lib.data.fashion._DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", refuse)
    with pytest.raises(DataError, match="no route to host.*dataset-fashion-mnist") as raised:
        fashion_mnist("train", full=True)
    assert "\n" not in str(raised.value)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="got 'validation'"):
        fashion_mnist("validation")
