"""Views of a batch: where crops lie, and that they are each image's own in every kind of batch."""

import pytest
import torch
from torch.nn.functional import pad

from gpe.data import Batch, centre_view, random_views
from gpe.errors import InputError
from gpe.ops.dual_crop import dual_crop

SIZES = torch.tensor([[9, 12], [14, 9], [10, 10], [9, 16]])
OPTIONS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(images, sizes=None):
    count = torch.arange(len(images))
    return Batch(images, count, sizes, count)


def padded_batch():
    """Noise of four sizes. What pads it is 255, not 0, so that a crop that reaches it is seen."""
    images = torch.full((4, 3, 14, 16), 255, dtype=torch.uint8)
    for image, (height, width) in zip(images, SIZES.tolist(), strict=True):
        image[:, :height, :width] = torch.randint(
            255, (3, height, width), dtype=torch.uint8, generator=seeded(height * width)
        )
    return batch_of(images, SIZES)


def even_batch(count=5, height=10, width=12):
    pixels = torch.randint(256, (count, 3, height, width), generator=seeded())
    return batch_of(pixels.to(torch.uint8))


def places(batch, size, *, views, padding=0, seed=0):
    """Rows and columns of the crops, [V,n,2], read from what lies in them."""
    count, (height, width) = len(batch.images), batch.images.shape[2:]
    rows = torch.arange(1, height + 1, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1, dtype=torch.uint8).expand(height, width)
    ramps = torch.stack([rows, columns, rows]).expand(count, 3, height, width)
    crops = random_views(
        batch._replace(images=ramps),
        size,
        views=views,
        padding=padding,
        padding_mode="replicate",
        flip=False,
        generator=seeded(seed),
    )
    return (crops[:, :, :2, 0, 0] * 255 - 1).round().long()


def draws(batch, size, padding, views):
    """Offsets [V,n,2] and flips [V,n] as random_views has to draw them from ``seeded()``."""
    generator, count = seeded(), len(batch.images)
    sizes = batch.sizes if batch.sizes is not None else torch.tensor(batch.images.shape[2:])
    uniform = torch.rand(views, count, 2, dtype=torch.float64, generator=generator)
    flips = torch.rand(views, count, generator=generator) < 0.5
    return (uniform * (sizes + 2 * padding - size + 1)).floor().long(), flips


def alone(batch):
    """The images of a batch, each by itself and without what pads it."""
    sizes = batch.sizes if batch.sizes is not None else [batch.images.shape[2:]] * len(batch.images)
    return [
        image[None, :, :height, :width]
        for image, (height, width) in zip(batch.images, sizes, strict=True)
    ]


class TestRandomViews:
    @pytest.mark.parametrize("padding", [0, 2])
    @pytest.mark.parametrize("make", [even_batch, padded_batch])
    def test_crops_are_slices_of_each_image(self, make, padding):
        """Cut by hand, one by one; the border is black, and the image's own."""
        batch = make()
        crops = random_views(batch, 8, views=3, padding=padding, generator=seeded(), **OPTIONS)
        offsets, flips = draws(batch, 8, padding, views=3)
        mean, std = (torch.tensor(OPTIONS[name]).double().view(3, 1, 1) for name in ("mean", "std"))
        for view in range(3):
            for i, image in enumerate(alone(batch)):
                row, column = offsets[view, i].tolist()
                crop = pad(image[0], [padding] * 4)[:, row : row + 8, column : column + 8]
                crop = crop.flip(2) if flips[view, i] else crop
                expected = (crop.double() / 255 - mean) / std
                torch.testing.assert_close(crops[view, i], expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("padding", [0, 3])
    @pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
    def test_batch_of_many_sizes_has_the_bits_of_each_image_alone(self, padding, padding_mode):
        batch, options = padded_batch(), {"padding": padding, "padding_mode": padding_mode}
        crops = random_views(batch, 8, generator=seeded(), **options)
        offsets, flips = draws(batch, 8, padding, views=2)
        for i, image in enumerate(alone(batch)):
            cut = slice(i, i + 1)
            expected = dual_crop(image, 8, offsets[:, cut], flips[:, cut], **options)
            assert torch.equal(crops[:, cut], expected)

    def test_one_call_cuts_images_of_many_sizes_unless_they_are_padded(self, monkeypatch):
        calls = []
        monkeypatch.setattr(
            "gpe.data.views.dual_crop",
            lambda images, *args, **options: (
                calls.append(len(images)) or dual_crop(images, *args, **options)
            ),
        )
        random_views(padded_batch(), 8, generator=seeded())
        random_views(even_batch(), 8, padding=2, generator=seeded())
        assert calls == [4, 5]
        random_views(padded_batch(), 8, padding=2, generator=seeded())
        assert calls == [4, 5, 1, 1, 1, 1]

    @pytest.mark.parametrize("sizes", [None, torch.tensor([[10, 12]] * 5)])
    def test_all_places_are_equally_likely_in_both_axes(self, sizes):
        """3 × 5 places for 8 × 8 in 10 × 12; with padding 1, 5 × 7."""
        batch = even_batch()._replace(sizes=sizes)
        found = places(batch, 8, views=3000).flatten(0, 1)
        counts = torch.bincount(found[:, 0] * 5 + found[:, 1], minlength=15)
        expected = len(found) / 15
        assert len(counts) == 15
        assert ((counts - expected) ** 2 / expected).sum() < 36.1  # chi squared, 14, p = 0.001

    def test_padding_widens_the_range(self):
        ramp = torch.arange(1, 9, dtype=torch.uint8).expand(1, 3, 8, 8)
        crops = random_views(
            batch_of(ramp), 8, views=400, padding=2, flip=False, generator=seeded(), std=1 / 255
        )
        black = (crops[:, 0, 0, 4] == 0).sum(1)  # columns of the border
        assert sorted(set(black.tolist())) == [0, 1, 2]

    def test_rows_and_columns_may_differ(self):
        crops = random_views(even_batch(), (4, 14), padding=(0, 1), generator=seeded())
        assert crops.shape == (2, 5, 3, 4, 14)

    def test_views_of_an_image_are_independent(self):
        first, second = places(even_batch(1000), 8, views=2).double()
        for axis in (0, 1):
            both = torch.stack([first[:, axis], second[:, axis]])
            assert torch.corrcoef(both)[0, 1].abs() < 0.1

    def test_half_of_the_crops_are_mirrored_or_none(self):
        ramp = torch.arange(8, dtype=torch.uint8).expand(1000, 3, 8, 8)
        crops = random_views(batch_of(ramp), 8, generator=seeded())
        mirrored = crops[..., 0] > crops[..., -1]
        assert abs(mirrored[:, :, 0, 0].float().mean() - 0.5) < 0.05
        crops = random_views(batch_of(ramp), 8, flip=False, generator=seeded())
        assert (crops[..., 0] < crops[..., -1]).all()

    def test_seed_decides(self):
        first, again, other = (
            random_views(padded_batch(), 8, generator=seeded(seed)) for seed in (0, 0, 1)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)

    @pytest.mark.parametrize("padding", [0, 2])
    def test_channels_last(self, padding):
        """The slow way too."""
        views = {
            memory_format: random_views(
                padded_batch(), 8, padding=padding, generator=seeded(), memory_format=memory_format
            )
            for memory_format in (torch.contiguous_format, torch.channels_last)
        }
        assert torch.equal(*views.values())
        for memory_format, crops in views.items():
            assert crops.flatten(0, 1).is_contiguous(memory_format=memory_format)

    def test_on_the_device_of_the_batch(self, device):
        batch = padded_batch()
        moved = batch._replace(images=batch.images.to(device))
        crops = random_views(moved, 8, generator=seeded())
        assert crops.device == moved.images.device
        torch.testing.assert_close(crops.cpu(), random_views(batch, 8, generator=seeded()))

    def test_crop_larger_than_an_image_is_an_error_that_says_which_size(self):
        with pytest.raises(InputError, match=r"size: .* one of which is 9×12, got 10"):
            random_views(padded_batch(), 10, generator=seeded())
        with pytest.raises(InputError, match=r"one of which is 12×14, got \(13, 2\)"):
            random_views(even_batch(), (13, 2), padding=1, generator=seeded())
        assert random_views(padded_batch(), 10, padding=1, generator=seeded()).shape[-1] == 10


class TestCentreView:
    def test_is_the_centre_of_each_image(self):
        batch = padded_batch()
        crops = centre_view(batch, 7, std=1 / 255, dtype=torch.float64).round().to(torch.uint8)
        for crop, image, place in zip(
            crops, batch.images, [(1, 2), (4, 1), (2, 2), (1, 4)], strict=True
        ):
            row, column = place
            assert torch.equal(crop, image[:, row : row + 7, column : column + 7])

    def test_of_a_whole_image_is_the_image_normalised(self):
        batch = even_batch()
        crops = centre_view(batch, (10, 12), **OPTIONS)
        mean, std = (torch.tensor(OPTIONS[name]).view(3, 1, 1) for name in ("mean", "std"))
        torch.testing.assert_close(crops, (batch.images.double() / 255 - mean) / std)
