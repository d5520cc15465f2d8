"""Sets that are read batch by batch: what is read, by whom, and what a wrong file does."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from gpe.data import StreamedSet, epoch_order
from gpe.errors import InputError

SIZES = [(40, 30), (30, 40), (50, 50), (33, 61), (64, 31)]  # height, width


@pytest.fixture
def files(tmp_path):
    """JPEGs of five sizes; the second is grey."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(len(SIZES))]
    for number, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).convert("L" if number == 1 else "RGB").save(path)
    return [str(path) for path in paths]


def streamed(files, reading="resized", side=16, **options):
    options = {"resize_side": 20} | options if reading == "centre" else options
    labels = 10 * torch.arange(len(files))
    return StreamedSet(files, labels, ("cat",), reading, side, **{"workers": 0} | options)


def read(images, order=None, batch_size=2, epoch=0):
    order = torch.arange(len(images)) if order is None else order
    return list(images.batches(order, batch_size, epoch=epoch))


def expect_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.part == other.part
        for tensor, expected in zip(batch[:4], other[:4], strict=True):
            assert (tensor is None) == (expected is None)
            assert tensor is None or torch.equal(tensor, expected)


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class TestReading:
    def test_batches_follow_the_order_and_images_keep_their_labels(self, files):
        images = streamed(files, "centre")
        batches = read(images, torch.tensor([4, 0, 3, 3, 1]))
        assert [batch.indices.tolist() for batch in batches] == [[4, 0], [3, 3], [1]]
        assert [batch.labels.tolist() for batch in batches] == [[40, 0], [30, 30], [10]]
        one_by_one = torch.cat([batch.images for batch in read(images, batch_size=1)])
        for batch in batches:
            assert batch.images.dtype == torch.uint8
            assert torch.equal(batch.images, one_by_one[batch.indices])

    def test_centre_is_what_torchvision_tests_on(self, files):
        recipe = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(16)])
        (batch,) = read(streamed(files, "centre"), batch_size=5)
        assert batch.sizes is None
        for image, file in zip(batch.images, files, strict=True):
            assert torch.equal(image, pixels(recipe(Image.open(file).convert("RGB"))))

    @pytest.mark.parametrize("name", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_interpolation_is_torchvisions(self, files, name, workers):
        how = transforms.InterpolationMode(name)
        options = {"interpolation": name, "workers": workers}
        for reading in ("centre", "plain"):
            (batch,) = read(streamed(files[:1], reading, **options))
            recipe = [transforms.Resize(20 if reading == "centre" else 16, how)]
            recipe += [transforms.CenterCrop(16)] if reading == "centre" else []
            expected = transforms.Compose(recipe)(Image.open(files[0]))
            assert torch.equal(batch.images[0], pixels(expected))
        crops = [
            read(streamed(files[:1], interpolation=other))[0].images
            for other in ("bilinear", "bicubic")
        ]
        assert 0 < (crops[0].int() - crops[1].int()).abs().float().mean() < 40

    def test_plain_keeps_the_aspect_and_pads_with_zeros(self, files):
        (batch,) = read(streamed(files, "plain"), batch_size=5)
        assert batch.sizes.tolist() == [[21, 16], [16, 21], [16, 16], [16, 29], [33, 16]]
        assert batch.images.shape == (5, 3, 33, 29)
        for image, (height, width), file in zip(
            batch.images, batch.sizes.tolist(), files, strict=True
        ):
            expected = transforms.Resize(16)(Image.open(file).convert("RGB"))
            assert torch.equal(image[:, :height, :width], pixels(expected))
            assert not image[:, height:].any() and not image[:, :, width:].any()

    def test_plain_images_of_one_size_have_no_sizes(self, files):
        (batch,) = read(streamed(files, "plain"), torch.tensor([3, 3, 3]), batch_size=3)
        assert batch.sizes is None and batch.images.shape == (3, 3, 16, 29)

    def test_resized_is_what_torchvision_trains_on(self, files):
        """A crop of 8 to 100 % of the area, 3:4 to 4:3: red grows to the right, green downwards."""
        ramp = np.zeros((200, 200, 3), np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(200), np.arange(200)[:, None]
        Image.fromarray(ramp).save(file := files[0] + ".png")
        (batch,) = read(streamed([file] * 300), batch_size=300)
        crops = batch.images.float()
        # From the second of 16 pixels to the last but one: 13/16 of a crop's side.
        width = (crops[:, 0, :, -2] - crops[:, 0, :, 1]).mean(1) * 16 / 13
        height = (crops[:, 1, -2] - crops[:, 1, 1]).mean(1) * 16 / 13
        area, aspect = width * height / 200**2, width / height
        assert area.min() > 0.07 and area.max() < 1.03
        assert aspect.min() > 0.72 and aspect.max() < 1.4
        assert area.min() < 0.15 and area.max() > 0.8, "the range is used"
        assert aspect.min() < 0.85 and aspect.max() > 1.2


class TestDraws:
    @pytest.mark.parametrize("reading", ["resized", "plain"])
    def test_workers_change_nothing(self, files, reading):
        order = epoch_order(5, seed=0, epoch=0, samples=9)
        batches = read(streamed(files, reading), order, epoch=3)
        expect_equal(read(streamed(files, reading, workers=2), order, epoch=3), batches)

    def test_crops_do_not_depend_on_batch_size_or_order(self, files):
        images = streamed(files)
        together = read(images, batch_size=5)[0].images
        for batch in read(images, torch.tensor([2, 4, 0]), batch_size=2):
            assert torch.equal(batch.images, together[batch.indices])

    def test_seed_epoch_and_image_each_change_the_crop(self, files):
        images = streamed([files[2]] * 2)
        first, again = (read(images)[0].images for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first, read(images, epoch=1)[0].images)
        assert not torch.equal(first, read(streamed([files[2]] * 2, seed=1))[0].images)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_torchs_own_generator_is_left_alone(self, files, workers):
        before = torch.get_rng_state()
        read(streamed(files, workers=workers))
        assert torch.equal(torch.get_rng_state(), before)


class TestWorkers:
    def test_they_end_with_the_epoch_or_with_whom_they_work_for(self, files):
        images = streamed(files, workers=2)
        read(images)
        assert not multiprocessing.active_children()
        batches = images.batches(torch.arange(5), 1)
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        del batches
        assert not multiprocessing.active_children()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("workers", [0, 2])
    def test_batches_on_the_gpu_are_the_same(self, files, workers):
        images = streamed(files, "plain", workers=workers)
        on_gpu = read(images.to("cuda"), batch_size=3)
        for batch, expected in zip(on_gpu, read(images, batch_size=3), strict=True):
            assert batch.images.is_cuda and batch.labels.is_cuda
            assert batch.sizes.is_cpu and batch.indices.is_cpu
            assert torch.equal(batch.images.cpu(), expected.images)
            assert torch.equal(batch.labels.cpu(), expected.labels)
            assert torch.equal(batch.sizes, expected.sizes)


class TestErrors:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_damaged_file_is_one_line_with_its_name(self, files, workers):
        with open(files[3], "r+b") as file:
            file.truncate(700)
        with pytest.raises(InputError) as error:
            read(streamed(files, workers=workers))
        message = str(error.value)
        assert message.startswith(f"data: cannot read the image {files[3]}: ")
        assert "\n" not in message and "truncated" in message

    def test_order_and_batch_size_are_checked_before_anything_is_read(self):
        images = streamed(["nowhere.jpg"])
        with pytest.raises(InputError, match="order: expected indices from 0 to 0, got 0 to 1"):
            images.batches(torch.arange(2), 1)
        with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
            images.batches(torch.arange(1), 0)
        assert read(images, torch.tensor([], dtype=torch.int64)) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": torch.zeros(2)}, r"labels: expected int64 \[1\], got float32 \[2\]"),
            ({"reading": "whole"}, "reading: expected one of resized, plain, centre, got 'whole'"),
            ({"side": 0}, "side: expected at least 1, got 0"),
            ({"reading": "centre"}, "resize_side: expected one for 'centre' alone, got None"),
            ({"resize_side": 32}, "resize_side: expected one for 'centre' alone, got 32 for"),
            ({"reading": "centre", "resize_side": 15}, "side: expected at most resize_side, 15"),
            ({"workers": -1}, "workers: expected at least 0, got -1"),
            ({"interpolation": "cubic"}, "interpolation: expected one of bilinear, bicubic, got"),
            ({"max_pixels": 0}, "max_pixels: expected an integer of at least 1, got 0"),
        ],
    )
    def test_wrong_arguments_are_named(self, options, message):
        right = {"labels": torch.tensor([0]), "reading": "plain", "side": 16}
        with pytest.raises(InputError, match=message):
            StreamedSet(files=["a.jpg"], classes=("cat",), **right | options)
