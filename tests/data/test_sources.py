"""``load`` and ``stream``: what holds for every source."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gpe.data import load, load_test, stream, stream_test
from gpe.errors import InputError


def test_subset_is_fixed_by_the_seed_and_is_part_of_the_set():
    whole, _ = load("digits", image_size=8)
    first, again, other = (
        load("digits", image_size=8, train_images=100, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert len(first) == 100 and labelled(first) <= labelled(whole)


def labelled(images):
    """Images with their labels, as something to compare."""
    pairs = zip(images.images.flatten(1).tolist(), images.labels.tolist(), strict=True)
    return {(tuple(pixels), label) for pixels, label in pairs}


def test_subset_is_drawn_from_all_classes():
    train, test = load("digits", train_images=500, test_images=200)
    assert train.labels.bincount().min() > 25 and test.labels.bincount().min() > 8


def test_asking_for_more_than_there_is_gives_all():
    train, test = load("digits", train_images=10**6, test_images=10**6)
    assert (len(train), len(test)) == (1437, 360)


def test_test_set_has_the_mean_and_std_of_the_training_set():
    train, test = load("digits", train_images=50)
    pixels = train.images.double() / 255
    assert train.mean == test.mean == pytest.approx([pixels.mean().item()] * 3)
    assert train.std == test.std == pytest.approx([pixels.std(correction=0).item()] * 3)


def test_validation_images_are_a_fifth_of_the_training_images_in_each_class():
    whole, test = load("digits", image_size=8)
    train, held_out = load("digits", image_size=8, split="validation")
    assert len(train) + len(held_out) == len(whole)
    assert labelled(train) | labelled(held_out) == labelled(whole)
    assert not labelled(train) & labelled(held_out)
    assert not labelled(held_out) & labelled(test)
    share = held_out.labels.bincount() / whole.labels.bincount()
    torch.testing.assert_close(share, torch.full((10,), 0.2), atol=0.01, rtol=0)


def test_validation_images_are_the_same_for_every_seed():
    """So nothing is trained on that another run was chosen by."""
    first, other = (
        load("digits", image_size=8, split="validation", train_images=100, seed=seed)
        for seed in (0, 1)
    )
    assert torch.equal(first[1].images, other[1].images)
    assert not torch.equal(first[0].images, other[0].images)


def test_fewer_validation_images_are_some_of_them():
    _, few = load("digits", image_size=8, split="validation", test_images=50)
    _, all_of_them = load("digits", image_size=8, split="validation")
    assert len(few) == 50 and labelled(few) < labelled(all_of_them)


@pytest.mark.parametrize("read", [load, stream])
def test_validation_never_reads_a_test_image(read, tmp_path):
    for name in ("train/a/0.png", "train/a/1.png", "test/a/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "test/a/0.png").write_bytes(b"no image")
    train, held_out = read(tmp_path, split="validation")
    order = torch.arange(1)
    assert len(list(train.batches(order, 1))) == len(list(held_out.batches(order, 1))) == 1
    (tmp_path / "train/a/1.png").unlink()
    with pytest.raises(InputError, match="data: expected two training images or more"):
        read(tmp_path, split="validation")


@pytest.mark.parametrize("read", [load, stream])
def test_unknown_split_is_named(read):
    with pytest.raises(InputError, match="split: expected one of test, validation, got 'val'"):
        read("digits", split="val")


@pytest.mark.parametrize("name", ["train_images", "test_images", "image_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_below_one_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got {value}"):
        load("digits", **{name: value})


@pytest.mark.parametrize("images", [None, 50])
def test_the_test_images_alone_are_those_of_both(images):
    _, expected = load("digits", image_size=8, test_images=images)
    found = load_test("digits", image_size=8, images=images)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels) and found.classes == expected.classes


def test_training_images_are_not_read_to_test(tmp_path):
    for name in ("train/a/0.png", "test/a/0.png", "test/a/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (51, 0, 0)).save(tmp_path / name)
    (tmp_path / "train/a/0.png").write_bytes(b"no image")
    test = load_test(tmp_path, image_size=8)
    assert len(test) == 2 and test.mean == pytest.approx((0.2, 0, 0))


@pytest.mark.parametrize("name", ["digits"])
def test_interpolation_changes_pixels_a_little_and_stays_in_range(name):
    bilinear, bicubic = (
        load_test(name, images=20, interpolation=how).images.int()
        for how in ("bilinear", "bicubic")
    )
    assert torch.equal(bilinear, load_test(name, images=20).images.int())
    assert 0.5 < (bilinear - bicubic).abs().float().mean() < 20
    with pytest.raises(InputError, match="interpolation: expected one of bilinear, bicubic, got"):
        load(name, interpolation="nearest")


def test_a_folder_called_as_a_set_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        Path("digits/cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(f"digits/cat/{number}.png")
    with pytest.warns(
        UserWarning, match=r"digits is the set of that name; \./digits is the folder"
    ):
        assert len(load_test("digits").classes) == 10
    for folder in ("./digits", "digits/", str(tmp_path / "digits"), Path("digits")):
        assert load_test(folder).classes == ("cat",)
        assert len(stream_test(folder, side=8, resize_side=8)) == 2
    with pytest.raises(InputError, match=r"there is no \./cifar10; expected"):
        load_test("./cifar10")


def test_unknown_name_lists_the_known_ones():
    expected = "data: there is no cifar11; expected digits, cifar10, cifar100 or a folder of images"
    with pytest.raises(InputError, match=expected):
        load("cifar11")


CLASSES = {"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",), "n03": ("crane",)}


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's form: 5 training images and 2 others in each of 3 classes."""
    random = np.random.default_rng(0)
    torch.save((CLASSES, ["n01", "n02"]), tmp_path / "meta.bin")
    for part, count in (("train", 5), ("val", 2)):
        for wnid in CLASSES:
            (tmp_path / part / wnid).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (*random.integers(20, 60, 2), 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / wnid / f"{number}.JPEG")
    return tmp_path


def stream_imagenet(root, **options):
    """Small sides, and no workers: they are for test_streamed.py."""
    sides = {"train_side": 16, "test_side": 16, "test_resize_side": 20}
    return stream("imagenet", root=root, **sides | {"workers": 0} | options)


class TestStream:
    def test_imagenet_is_read_with_its_classes(self, imagenet):
        train, test = stream_imagenet(imagenet)
        assert train.classes == test.classes == ("tench", "goldfish", "crane")
        assert train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
        for images in (train, test):
            names = [Path(file).parent.name for file in images.files]
            assert names == [list(CLASSES)[label] for label in images.labels]
            assert images.mean == (0.485, 0.456, 0.406) and images.std == (0.229, 0.224, 0.225)
            for batch in images.batches(torch.arange(len(images)), 4):
                assert batch.images.shape[1:] == (3, 16, 16) and batch.sizes is None
        assert {Path(file).parts[-3] for file in test.files} == {"val"}

    def test_validation_holds_out_training_images(self, imagenet):
        whole, _ = stream_imagenet(imagenet)
        train, held_out = stream_imagenet(imagenet, split="validation", seed=1)
        assert set(train.files) | set(held_out.files) == set(whole.files)
        assert len(train) == 12 and held_out.labels.tolist() == [0, 1, 2]
        assert (train.reading, held_out.reading) == ("resized", "centre")
        assert held_out.files == stream_imagenet(imagenet, split="validation")[1].files

    def test_subsets_are_drawn_by_the_seed(self, imagenet):
        first, again, other = (
            stream_imagenet(imagenet, train_images=6, test_images=2, seed=seed)
            for seed in (0, 0, 1)
        )
        assert first[0].files == again[0].files != other[0].files
        assert (len(first[0]), len(first[1])) == (6, 2)

    def test_any_folder(self, imagenet):
        """train/ and val/ alone: the classes are called as their folders."""
        train, test = stream(imagenet, train_reading="plain", train_side=16, workers=0)
        assert train.classes == test.classes == tuple(CLASSES) and len(train) == 15
        (batch,) = train.batches(torch.arange(15), 15)
        assert (batch.sizes.amin(1) == 16).all()

    @pytest.mark.parametrize("missing", ["meta.bin", "train", "val"])
    def test_what_is_missing_is_named_with_what_to_do(self, imagenet, missing):
        (imagenet / missing).rename(imagenet / "elsewhere")
        with pytest.raises(InputError) as error:
            stream_imagenet(imagenet)
        message = str(error.value)
        assert message.startswith(f"data: no imagenet in {imagenet}: {missing} missing. Put ")
        assert "torchvision.datasets.ImageNet(" in message and "\n" not in message

    @pytest.mark.parametrize("damage", ["file", "wnid", "empty class"])
    def test_damage_is_one_line(self, imagenet, damage):
        if damage == "file":
            (imagenet / "meta.bin").write_bytes(b"nothing")
        elif damage == "wnid":
            (imagenet / "train" / "n03").rename(imagenet / "train" / "n04")
        else:
            (imagenet / "val" / "n04").mkdir()
        with pytest.raises(InputError, match=f"data: no intact imagenet in {imagenet}: ") as error:
            stream_imagenet(imagenet)
        assert "\n" not in str(error.value)

    def test_parts_with_other_classes(self, imagenet):
        (imagenet / "val" / "n03").rename(imagenet / "n03")
        with pytest.raises(InputError, match=r"expected the same classes in .*has n03"):
            stream_imagenet(imagenet)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train_images": 0}, "train_images: expected at least 1, got 0"),
            ({"train_reading": "centre"}, "train_reading: expected one of resized, plain, got"),
            ({"train_side": 0}, "side: expected at least 1, got 0"),
            ({"test_side": 21}, "side: expected at most resize_side, 20, got 21"),
            ({"workers": -1}, "workers: expected at least 0, got -1"),
        ],
    )
    def test_wrong_arguments_are_named(self, imagenet, options, message):
        with pytest.raises(InputError, match=message):
            stream_imagenet(imagenet, **options)

    def test_unknown_source(self):
        expected = "data: there is no cifar10; expected imagenet or a folder of images"
        with pytest.raises(InputError, match=expected):
            stream("cifar10")


class TestStreamTest:
    SIDES = {"side": 16, "resize_side": 20, "workers": 0}  # noqa: RUF012

    def test_images_to_score_on_are_those_of_a_test(self, imagenet):
        """The same files, labels, classes and pixels, of ImageNet as of a folder."""
        for source in ("imagenet", imagenet):
            options = {"train_side": 16, "test_side": 16, "test_resize_side": 20, "workers": 0}
            _, expected = stream(source, root=imagenet, **options)
            images = stream_test(source, root=imagenet, **self.SIDES)
            assert images.files == expected.files and images.classes == expected.classes
            assert torch.equal(images.labels, expected.labels)
            (batch,), (other,) = (s.batches(torch.arange(6), 6) for s in (images, expected))
            assert torch.equal(batch.images, other.images) and batch.images.shape[2:] == (16, 16)

    def test_imagenets_training_images_may_be_missing(self, imagenet):
        (imagenet / "train").rename(imagenet / "elsewhere")
        images = stream_test("imagenet", root=imagenet, **self.SIDES)
        assert len(images) == 6 and images.classes == ("tench", "goldfish", "crane")

    def test_system_entries_of_imagenet_are_left_out(self, imagenet):
        for place in ("train", "val", "val/n02"):
            (imagenet / place / ".ipynb_checkpoints").mkdir()
            (imagenet / place / "._0.JPEG").write_bytes(b"no image")
        train, test = stream_imagenet(imagenet)
        assert (len(train), len(test)) == (15, 6)

    def test_all_images_of_one_tree_are_taken(self, imagenet):
        images = stream_test(imagenet / "train", **self.SIDES)
        assert len(images) == 15 and images.classes == tuple(CLASSES)
        assert images.labels.bincount().tolist() == [5, 5, 5]

    def test_fewer_are_the_same_ones_every_time(self, imagenet):
        first, again = (stream_test(imagenet, images=3, **self.SIDES) for _ in range(2))
        assert len(first) == 3 and first.files == again.files
        assert len(stream_test(imagenet, images=100, **self.SIDES)) == 6

    def test_training_images_are_not_read(self, imagenet):
        for file in (imagenet / "train").rglob("*.JPEG"):
            file.write_bytes(b"no image")
        images = stream_test("imagenet", root=imagenet, **self.SIDES)
        assert len(list(images.batches(torch.arange(6), 3))) == 2

    @pytest.mark.parametrize(
        ("source", "options", "message"),
        [
            ("cifar10", {}, "data: there is no cifar10; expected imagenet or a folder of images"),
            ("imagenet", {"root": Path("absent")}, "data: no imagenet in absent: meta.bin, train"),
            ("absent", {"images": 0}, "images: expected at least 1, got 0"),
        ],
    )
    def test_wrong_arguments_are_named(self, source, options, message):
        with pytest.raises(InputError, match=message):
            stream_test(source, **options)
