"""Image folders: their layouts, decoding, and what is said of wrong ones."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gpe.data import folder, load, load_test, stream_test
from gpe.data.folder import decode
from gpe.errors import InputError
from tests.conftest import SHARED_DATA

CIFAR10 = SHARED_DATA / "cifar10.tar.gz"


def write(path, colour=(0, 0, 0), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_tree(root, classes=("cat", "dog"), count=10):
    """``count`` PNGs a class whose red is the class and whose green is the number."""
    for label, name in enumerate(classes):
        for number in range(count):
            write(root / name / f"{number:03}.png", (label, number, 0))


class TestLayouts:
    @pytest.mark.parametrize("other", ["test", "val"])
    def test_train_and_test_folders(self, tmp_path, other):
        write_tree(tmp_path / "train", count=3)
        write_tree(tmp_path / other, count=2)
        train, test = load(tmp_path, image_size=8)
        assert train.classes == test.classes == ("cat", "dog")
        assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert torch.equal(train.images[:, 0, 0, 0].long(), train.labels)
        assert test.images[:, 1, 0, 0].tolist() == [0, 1, 0, 1]
        assert (train.mean, train.std) == (test.mean, test.std)

    def test_test_comes_before_val(self, tmp_path):
        for name, count in (("train", 3), ("test", 2), ("val", 1)):
            write_tree(tmp_path / name, count=count)
        assert len(load(tmp_path)[1]) == 4

    def test_one_tree_is_split_80_to_20_in_each_class(self, tmp_path):
        write_tree(tmp_path)
        train, test = load(tmp_path, image_size=8)
        assert train.labels.bincount().tolist() == [8, 8]
        both = torch.cat([train.images, test.images])[:, :2, 0, 0].tolist()
        assert sorted(both) == [[label, number] for label in range(2) for number in range(10)]

    def test_seed_decides_the_split_of_one_tree(self, tmp_path):
        write_tree(tmp_path)
        first, again, other = (load(tmp_path, seed=seed)[1].images for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_images_to_score_on_are_the_test_part_or_all_of_one_tree(self, tmp_path):
        """As load's test images, where there are two parts."""
        for name, count in (("train", 3), ("val", 2)):
            write_tree(tmp_path / name, count=count)
        test = folder.test_files(tmp_path)
        assert {Path(file).parts[-3] for file in test.paths} == {"val"}
        assert test.labels.tolist() == [0, 0, 1, 1] and test.classes == ("cat", "dog")
        assert len(folder.test_files(tmp_path / "train").paths) == 6
        with pytest.raises(InputError, match=r"expected train/CLASS/IMAGE .* got test"):
            write_tree(tmp_path / "other" / "test")
            folder.test_files(tmp_path / "other")

    def test_images_alone_are_a_set_without_labels(self, tmp_path):
        for number in range(10):
            write(tmp_path / f"{number}.png", (number, 0, 0))
        (tmp_path / "notes").mkdir()
        train, test = load(tmp_path, image_size=8)
        assert (len(train), len(test)) == (8, 2) and train.classes == test.classes == ()
        assert not train.labelled and set(train.labels.tolist() + test.labels.tolist()) == {-1}
        images = stream_test(tmp_path, side=8, resize_side=8, workers=0)
        assert len(images) == 10 and not images.labelled
        (batch,) = images.batches(torch.arange(10), 10)
        assert batch.images[:, 0, 0, 0].tolist() == list(range(10))
        assert batch.labels.tolist() == [-1] * 10
        (tmp_path / "notes").rmdir()
        write_tree(tmp_path)
        with pytest.warns(UserWarning, match=r"10 images beside the class folders of .* left out"):
            assert load_test(tmp_path).labelled

    def test_class_may_be_called_train(self, tmp_path):
        write_tree(tmp_path, classes=("bus", "train"))
        assert load(tmp_path)[0].classes == ("bus", "train")

    def test_path_may_be_a_string(self, tmp_path):
        write_tree(tmp_path)
        assert len(load(str(tmp_path))[0]) == 16


class TestDecoding:
    def test_images_keep_their_places_over_many_threads(self, tmp_path):
        files = [tmp_path / f"{number}.png" for number in range(300)]
        for number, file in enumerate(files):
            write(file, (number % 256, number // 256, 7), size=(2, 2))
        images = decode(files, 2)
        assert images.shape == (300, 3, 2, 2) and images.dtype == torch.uint8
        expected = torch.tensor([[number % 256, number // 256, 7] for number in range(300)])
        assert torch.equal(images.long(), expected[:, :, None, None].expand(-1, -1, 2, 2))

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
    def test_other_modes_become_rgb(self, tmp_path, mode):
        Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(tmp_path / "white.tiff")
        assert (decode([tmp_path / "white.tiff"], 4) == 255).all()

    @pytest.mark.parametrize("size", [(20, 10), (10, 20)])
    def test_longer_side_is_cropped_around_the_centre(self, tmp_path, size):
        """Green in the middle square, red outside: nothing red is left, nothing squeezed."""
        image = Image.new("RGB", size, (255, 0, 0))
        left, top = (size[0] - 10) // 2, (size[1] - 10) // 2
        image.paste((0, 255, 0), (left, top, left + 10, top + 10))
        image.save(tmp_path / "wide.png")
        assert (decode([tmp_path / "wide.png"], 10)[0, 0] == 0).all()
        assert (decode([tmp_path / "wide.png"], 10)[0, 1] == 255).all()

    def test_resizing_is_antialiased(self, tmp_path):
        """A fine checkerboard becomes grey; without antialiasing it stays black or white."""
        board = np.indices((64, 64)).sum(0) % 2 * 255
        Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
        assert (decode([tmp_path / "board.png"], 8).float() - 127.5).abs().max() < 8

    def test_interpolation_is_pils(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise.png")
        found = {}
        for name in ("bilinear", "bicubic"):
            expected = Image.fromarray(noise).resize((16, 16), Image.Resampling[name.upper()])
            found[name] = decode([tmp_path / "noise.png"], 16, interpolation=name)[0]
            assert torch.equal(found[name].permute(1, 2, 0), torch.from_numpy(np.array(expected)))
        assert torch.equal(decode([tmp_path / "noise.png"], 16)[0], found["bilinear"])

    def test_large_jpegs_come_out_as_if_decoded_in_full(self, tmp_path):
        """They are decoded at a reduced scale, which may change a value only a little."""
        waves = np.sin(np.linspace(0, 60, 240)) * 50 + 64
        picture = np.add.outer(waves, waves)[..., None].repeat(3, axis=2)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "large.jpg", quality=95)
        full = Image.open(tmp_path / "large.jpg")
        full.load()
        expected = np.asarray(ImageOps.fit(full, (32, 32), Image.Resampling.BILINEAR))
        image = decode([tmp_path / "large.jpg"], 32)[0].permute(1, 2, 0).numpy()
        assert np.abs(image.astype(int) - expected).max() <= 2


class TestSubset:
    def test_images_that_are_not_drawn_are_not_decoded(self, tmp_path):
        """One of 20 images is damaged: reading all fails, reading 10 fails only if it is drawn."""
        write_tree(tmp_path / "train")
        write_tree(tmp_path / "test")
        (tmp_path / "train" / "cat" / "000.png").write_bytes(b"no image")
        with pytest.raises(InputError):
            load(tmp_path)
        read = 0
        for seed in range(10):
            try:
                read += len(load(tmp_path, train_images=10, seed=seed)[0]) == 10
            except InputError:
                continue
        assert 1 <= read <= 9

    def test_mean_and_std_are_those_of_the_images_drawn(self, tmp_path):
        write_tree(tmp_path / "train", count=40)
        write_tree(tmp_path / "test", count=2)
        train, test = load(tmp_path, train_images=10, image_size=8)
        pixels = train.images.double() / 255
        for channel in range(2):
            assert train.mean[channel] == pytest.approx(pixels[:, channel].mean().item())
            std = pixels[:, channel].std(correction=0).item()
            assert train.std[channel] == pytest.approx(std)
        assert test.mean == train.mean
        assert train.std[2] == 1, "blue is constant; dividing by its std must not give NaN"


class TestErrors:
    def expect(self, path, *parts):
        with pytest.raises(InputError) as error:
            load(path)
        message = str(error.value)
        assert message.startswith("data: ") and message.count("\n") <= 1
        for part in parts:
            assert str(part) in message

    @pytest.mark.parametrize("keep", [0, 45])
    def test_damaged_image_is_named_with_the_reason(self, tmp_path, keep):
        write_tree(tmp_path)
        damaged = tmp_path / "dog" / "003.png"
        damaged.write_bytes(damaged.read_bytes()[:keep])
        self.expect(tmp_path, "cannot read the image", damaged, "image file")

    def test_truncated_jpeg_is_named(self, tmp_path):
        write_tree(tmp_path)
        damaged = tmp_path / "cat" / "half.jpg"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(damaged)
        damaged.write_bytes(damaged.read_bytes()[:-2000])
        self.expect(tmp_path, damaged, "truncated")

    def test_path_that_is_not_there(self, tmp_path):
        self.expect(tmp_path / "x", f"there is no {tmp_path / 'x'}; expected digits, cifar10, ")

    def test_file_instead_of_a_folder(self, tmp_path):
        (tmp_path / "set.tar.gz").write_bytes(b"")
        self.expect(tmp_path / "set.tar.gz", tmp_path / "set.tar.gz", "is a file")

    def test_empty_folder(self, tmp_path):
        self.expect(tmp_path, tmp_path, "train/CLASS/IMAGE")

    def test_class_without_images(self, tmp_path):
        write_tree(tmp_path)
        (tmp_path / "fish").mkdir()
        (tmp_path / "fish" / "notes.txt").write_text("none yet")
        self.expect(tmp_path, tmp_path, "fish", "CLASS/IMAGE", ".png")

    @pytest.mark.parametrize("part", ["train", "test", "val"])
    def test_one_part_alone_is_not_taken_for_a_class(self, tmp_path, part):
        write_tree(tmp_path / part)
        self.expect(tmp_path, tmp_path, "test/CLASS/IMAGE", f"got {part}")

    def test_parts_without_class_folders_are_not_taken_for_classes(self, tmp_path):
        write_tree(tmp_path, classes=("train", "test"))
        self.expect(tmp_path, tmp_path, "train/CLASS/IMAGE", "got train, test")

    def test_other_classes_in_test(self, tmp_path):
        write_tree(tmp_path / "train", classes=("cat", "dog"))
        write_tree(tmp_path / "test", classes=("cat", "fish"))
        self.expect(tmp_path, tmp_path / "train", tmp_path / "test", "dog, fish")

    def test_single_image_cannot_be_split(self, tmp_path):
        write(tmp_path / "cat" / "one.png")
        self.expect(tmp_path, tmp_path, "two images")


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs GPE_TEST_DATA/cifar10.tar.gz")
def test_real_cifar_images_load(tmp_path):
    """Two images a class from the archive, in training and in testing."""
    taken = Counter()
    with tarfile.open(CIFAR10) as archive:
        for member in archive:
            folder = Path(member.name).parent
            if member.isfile() and taken[folder] < 2:
                archive.extract(member, tmp_path, filter="data")
                taken[folder] += 1
            if taken.total() == 40:
                break
    train, test = load(tmp_path / "cifar10")
    assert train.images.shape == test.images.shape == (20, 3, 32, 32)
    assert train.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert train.classes[0] == "airplane" and train.classes[9] == "truck"
    assert all(0.2 < mean < 0.8 for mean in train.mean)
