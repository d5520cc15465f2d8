"""The set in memory: what it accepts, how epochs are drawn from it, how batches are cut."""

import pytest
import torch

from gpe.data import ImageSet, epoch_order, generator
from gpe.errors import InputError


def image_set(count=10):
    """Every image filled with its own index, which is its label too."""
    labels = torch.arange(count)
    images = labels.to(torch.uint8)[:, None, None, None].repeat(1, 3, 4, 4)
    return ImageSet(images, labels, tuple(map(str, range(count))), (0.5,) * 3, (0.5,) * 3)


class TestImageSet:
    def test_to_moves_both_tensors_and_keeps_the_rest(self):
        moved = image_set().to("meta")
        assert moved.images.is_meta and moved.labels.is_meta
        assert moved.classes == image_set().classes and len(moved) == 10

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("images", torch.zeros(2, 3, 4, 4)),
            ("images", torch.zeros(2, 1, 4, 4, dtype=torch.uint8)),
            ("images", torch.zeros(3, 4, 4, dtype=torch.uint8)),
            ("labels", torch.zeros(2, dtype=torch.int32)),
            ("labels", torch.zeros(3, dtype=torch.int64)),
        ],
    )
    def test_wrong_tensors_are_named(self, field, wrong):
        tensors = {
            "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            "labels": torch.zeros(2, dtype=torch.int64),
        }
        with pytest.raises(InputError, match=f"{field}: expected .* got {str(wrong.dtype)[6:]}"):
            ImageSet(**tensors | {field: wrong}, classes=("a",), mean=(0,) * 3, std=(1,) * 3)


class TestGenerator:
    def draw(self, *key):
        return torch.randint(2**62, (4,), generator=generator(*key)).tolist()

    def test_same_arguments_give_the_same_stream(self):
        assert self.draw(1, 2, 3, "flips") == self.draw(1, 2, 3, "flips")

    def test_every_argument_changes_the_stream(self):
        """(1, 12) and (11, 2) would collide if the arguments were joined without a gap."""
        keys = [
            (1, 12, 0, "flips"),
            (11, 2, 0, "flips"),
            (1, 1, 20, "flips"),
            (12, 1, 0, "flips"),
            (1, 12, 0, "locations"),
        ]
        assert len({tuple(self.draw(*key)) for key in keys}) == len(keys)

    def test_stream_is_the_same_on_every_machine_and_in_every_version(self):
        """The first 8 bytes of SHA-256 of "0 0 0 order"; another value changes every run."""
        assert generator(0, 0, 0, "order").initial_seed() == 13260094535638926148

    def test_global_random_state_is_left_alone(self):
        state = torch.get_rng_state()
        epoch_order(100, seed=0, epoch=0)
        assert torch.equal(state, torch.get_rng_state())


class TestEpochOrder:
    def test_every_image_is_seen_once(self):
        order = epoch_order(101, seed=0, epoch=0)
        assert order.dtype == torch.int64
        assert order.sort().values.tolist() == list(range(101))
        assert order.tolist() != list(range(101))

    def test_is_a_pure_function_of_its_arguments(self):
        torch.manual_seed(1)
        first = epoch_order(50, seed=3, epoch=4)
        torch.manual_seed(2)
        assert torch.equal(first, epoch_order(50, seed=3, epoch=4))

    def test_seed_and_epoch_change_it(self):
        orders = {
            tuple(epoch_order(50, seed=seed, epoch=epoch).tolist())
            for seed in range(3)
            for epoch in range(3)
        }
        assert len(orders) == 9

    def test_fewer_samples_are_the_first_of_the_epoch(self):
        whole = epoch_order(50, seed=0, epoch=0)
        assert torch.equal(epoch_order(50, seed=0, epoch=0, samples=20), whole[:20])

    def test_more_samples_pass_through_the_set_repeatedly_in_new_orders(self):
        order = epoch_order(20, seed=0, epoch=0, samples=50)
        first, second, rest = order.split([20, 20, 10])
        assert torch.equal(first, epoch_order(20, seed=0, epoch=0))
        assert second.sort().values.tolist() == list(range(20))
        assert not torch.equal(first, second)
        assert len(set(rest.tolist())) == 10

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"count": 0}, "count: expected at least 1, got 0"),
            ({"samples": 0}, "samples: expected at least 1, got 0"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, message):
        with pytest.raises(InputError, match=message):
            epoch_order(**{"count": 4, "seed": 0, "epoch": 0} | arguments)


class TestBatches:
    def test_batches_follow_the_order_and_images_keep_their_labels(self):
        order = torch.tensor([7, 0, 3, 3, 9])
        cut = list(image_set().batches(order, 2))
        assert [batch.labels.tolist() for batch in cut] == [[7, 0], [3, 3], [9]]
        for images, labels, sizes, indices, _ in cut:
            assert images.dtype == torch.uint8 and images.shape == (len(labels), 3, 4, 4)
            assert torch.equal(images[:, 2, 3, 3].long(), labels)
            assert torch.equal(indices, labels) and sizes is None

    def test_no_order_no_batch(self):
        assert list(image_set().batches(torch.tensor([], dtype=torch.int64), 2)) == []

    @pytest.mark.parametrize(
        ("order", "batch_size", "message"),
        [
            (torch.arange(4), 0, "batch_size: expected at least 1, got 0"),
            (torch.arange(4.0), 2, r"order: expected int64 \[n\], got float32 \[4\]"),
            (torch.tensor([[1]]), 2, r"order: expected int64 \[n\], got int64 \[1, 1\]"),
            (torch.tensor([0, 10]), 2, "order: expected indices from 0 to 9, got 0 to 10"),
            (torch.tensor([-1, 3]), 2, "order: expected indices from 0 to 9, got -1 to 3"),
        ],
    )
    def test_wrong_arguments_raise_before_the_first_batch(self, order, batch_size, message):
        with pytest.raises(InputError, match=message):
            image_set().batches(order, batch_size)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_batches_of_a_set_on_the_gpu_are_the_same(self):
        order = epoch_order(10, seed=0, epoch=0)
        on_gpu = list(image_set().to("cuda").batches(order, 4))
        for batch, expected in zip(on_gpu, image_set().batches(order, 4), strict=True):
            assert batch.images.is_cuda and batch.labels.is_cuda and batch.indices.is_cpu
            assert torch.equal(batch.images.cpu(), expected.images)
            assert torch.equal(batch.labels.cpu(), expected.labels)
