"""Sets with a label for each pixel: batches, random views, workers and errors."""

import pytest
import torch

from gpe.data import Augmentation, SegmentationSet, epoch_order
from gpe.data.pixels import named
from gpe.errors import InputError


def sample(number, size=(8, 12)):
    """Pixels hold row, column and number of the image; labels the column."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    image = torch.stack([rows, columns, torch.full(size, number)]).to(torch.uint8)
    return image, columns.to(torch.uint8)


def make(count=5, **options):
    samples = [sample(number) for number in range(count)]
    ids = tuple(f"image-{number}" for number in range(count))
    # Normalised, pixels keep their values.
    usual = {"ids": ids, "palette": ((0, 0, 0),) * 12, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    return SegmentationSet("set", samples, classes=tuple("abcdefghijkl"), **usual | options)


def views(found, *, count=40, size=4, **options):
    augmentation = options.pop("augmentation", Augmentation())
    order = epoch_order(len(found), seed=0, epoch=0, samples=count)
    return list(found.training_batches(order, size, augmentation=augmentation, **options))


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_whole_set_in_order(self, workers):
        batches = list(make(workers=workers).batches(2))
        assert [batch.ids for batch in batches] == [
            ("image-0", "image-1"),
            ("image-2", "image-3"),
            ("image-4",),
        ]
        images = torch.cat([batch.images for batch in batches])
        torch.testing.assert_close(images, torch.stack([sample(n)[0] for n in range(5)]).float())
        assert images.dtype == torch.float32 and batches[0].labels.dtype == torch.uint8

    def test_images_are_normalised(self):
        found = make(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
        image = sample(4)[0]
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (found.mean, found.std))
        (batch,) = found.batches(1, order=[4])
        torch.testing.assert_close(batch.images[0], (image / 255 - mean) / std)

    def test_order_decides(self):
        ids = [batch.ids for batch in make().batches(2, order=torch.tensor([4, 4, 1]))]
        assert ids == [("image-4", "image-4"), ("image-1",)]

    @pytest.mark.parametrize("order", [[5], [-1]])
    def test_indices_outside_are_refused(self, order):
        with pytest.raises(InputError, match="order: expected indices from 0 to 4"):
            make().batches(2, order=order)

    def test_parts_and_ids_keep_images_and_names_together(self):
        part = make().part([3, 0]).part([1])
        assert part.ids == ("image-0",) and part.samples[0][0][2, 0, 0] == 0
        with pytest.raises(InputError, match="images: expected at least 1, got 0"):
            make().part([])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_cached_reads_each_image_once(self, workers):
        found = make(workers=workers).cached()
        assert found.workers == 0 and isinstance(found.samples, list)
        for number, (image, labels) in enumerate(found.samples):
            assert torch.equal(image, sample(number)[0]) and torch.equal(labels, sample(number)[1])

    def test_another_size_is_refused_but_in_a_batch_of_its_own(self):
        found = make(2)
        found.samples.append(sample(2, (8, 10)))
        found = SegmentationSet("set", found.samples, ("a", "b", "c"), found.classes, found.palette)
        assert [batch.labels.shape[2] for batch in found.batches(1)] == [12, 12, 10]
        with pytest.raises(InputError, match=r"batch_size: expected 1 .* got 3 .* 8×10, 8×12"):
            list(found.batches(3))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_what_cannot_be_read_raises_its_own_error(self, workers):
        class Broken(list):
            def __getitem__(self, index):
                raise InputError("data: broken file")

        found = make(workers=workers)
        broken = SegmentationSet(
            "set",
            Broken(found.samples),
            found.ids,
            found.classes,
            found.palette,
            workers=workers,
        )
        for read in (lambda: list(broken.batches(2)), broken.cached, lambda: views(broken)):
            with pytest.raises(InputError, match=r"^data: broken file$"):
                read()

    def test_reading_draws_nothing_from_torchs_generator(self):
        before = torch.get_rng_state()
        list(make(workers=1).batches(2))
        views(make(), augmentation=Augmentation((4, 4), (0.5, 2.0), True))
        assert torch.equal(torch.get_rng_state(), before)


class TestViews:
    def test_crops_lie_inside_and_take_their_labels_along(self):
        offsets = set()
        for batch in views(make(), augmentation=Augmentation((4, 6))):
            assert batch.images.shape[1:] == (3, 4, 6)
            assert torch.equal(batch.images[:, 1], batch.labels.float()), "same columns"
            rows, columns = batch.images[:, 0, 0, 0], batch.images[:, 1, 0, 0]
            assert (batch.images[:, 0, -1, 0] == rows + 3).all()
            offsets |= set(zip(rows.int().tolist(), columns.int().tolist(), strict=True))
            ids = [f"image-{int(image[2, 0, 0])}" for image in batch.images]
            assert tuple(ids) == batch.ids
        assert {row for row, _ in offsets} == set(range(5))
        assert {column for _, column in offsets} == set(range(7))

    def test_without_a_crop_images_are_whole(self):
        for batch in views(make()):
            assert torch.equal(batch.images[:, 1], sample(0)[1].float().expand(4, -1, -1))

    def test_half_of_the_views_are_mirrored_where_asked(self):
        first = torch.cat([b.labels[:, 0, 0] for b in views(make(), augmentation=flipped())])
        assert set(first.tolist()) == {0, 11} and 8 <= (first == 0).sum() <= 32
        for batch in views(make(), augmentation=flipped()):
            assert torch.equal(batch.images[:, 1], batch.labels.float())
        first = torch.cat([batch.labels[:, 0, 0] for batch in views(make())])
        assert (first == 0).all()

    def test_scales_resize_image_and_labels_alike(self):
        for batch in views(make(), augmentation=Augmentation((16, 24), (2.0, 2.0))):
            assert torch.equal(batch.labels[0, 0], torch.arange(12).repeat_interleave(2).byte())
            assert (batch.images[:, 1] - batch.labels).abs().max() <= 1

    def test_small_images_get_a_border_that_is_ignored(self):
        found = make(mean=(0.1, 0.2, 0.4), std=(0.5,) * 3)
        for batch in views(found, augmentation=Augmentation((10, 16))):
            inside = torch.zeros(10, 16, dtype=torch.bool)
            inside[:8, :12] = True
            assert torch.equal(batch.labels == 255, ~inside.expand(4, -1, -1))
            border = batch.images.masked_select(~inside)
            assert border.abs().max() < 0.5 / 255 / 0.5 + 1e-6, "the mean, but for rounding"

    @pytest.mark.parametrize("workers", [0, 2])
    def test_views_are_a_function_of_seed_epoch_and_place(self, workers):
        how = Augmentation((4, 4), (0.5, 2.0), True)

        def all_of(**options):
            found = views(make(workers=options.pop("workers", 0)), augmentation=how, **options)
            return torch.cat([batch.images for batch in found])

        reference = all_of(seed=1, epoch=2)
        assert torch.equal(reference, all_of(seed=1, epoch=2, workers=workers, size=3))
        assert not torch.equal(reference, all_of(seed=2, epoch=2))
        assert not torch.equal(reference, all_of(seed=1, epoch=3))

    def test_an_image_that_comes_again_gives_another_view(self):
        order = torch.zeros(20, dtype=torch.int64)
        (batch,) = make(1).training_batches(order, 20, augmentation=Augmentation((2, 2)))
        assert len({tuple(view.flatten().tolist()) for view in batch.images}) > 10


def flipped():
    return Augmentation(flip=True)


@pytest.mark.parametrize(
    ("make_wrong", "complaint"),
    [
        (lambda: make(workers=-1), "workers: expected at least 0, got -1"),
        (lambda: make(0), "images: expected at least 1, got 0"),
        (lambda: make(palette=()), "palette: expected 12, got 0"),
        (lambda: make(ids=("a",)), "ids: expected 5, got 1"),
        (lambda: make().batches(0), "batch_size: expected at least 1, got 0"),
        (lambda: Augmentation((0, 4)), "crop: expected at least 1, got 0"),
        (lambda: Augmentation(scales=(2.0, 1.0)), "scales: expected two rising numbers"),
        (lambda: Augmentation(scales=(0.0, 1.0)), "scales: expected two rising numbers above 0"),
    ],
)
def test_wrong_options_are_refused(make_wrong, complaint):
    with pytest.raises(InputError, match=complaint):
        make_wrong()


def test_many_names_are_cut_short():
    assert named(["a", "b"]) == "a, b"
    assert named(list("abcde")) == "a, b, c and 2 more"
