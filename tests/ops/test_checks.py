"""Arguments of the wrong kind, and raw operators: what all ops have in common."""

import numpy as np
import pytest
import torch

import gpe
from tests.ops.conftest import compiled_for_cpu

pytestmark = pytest.mark.filterwarnings("ignore:.*(quantize|nested)")
MAPS, IMAGES = torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4, dtype=torch.uint8)
ZEROS = torch.zeros(2, dtype=torch.int64)
STRANGE = {
    "list": MAPS.tolist(),
    "ndarray": MAPS.numpy(),
    "sparse": MAPS.to_sparse(),
    "quantized|quint8": torch.quantize_per_tensor(MAPS, 0.1, 0, torch.quint8),
    "float8": MAPS.to(torch.float8_e4m3fn),
    "meta|torch.uint8": MAPS.to("meta"),
    "nested": torch.nested.nested_tensor([MAPS[0], MAPS[1]]),
    "complex": MAPS.to(torch.complex64),
    "NoneType": None,
}
CALLS = {
    "images": (
        lambda x: gpe.place_on_grid(x, ZEROS, 2),
        lambda x: gpe.dual_crop(x, 2, ZEROS.expand(1, 2, 2), ZEROS[None].bool()),
    ),
    "features_a": (gpe.gap_mse, lambda x: gpe.fused_augshift_loss(x, None, torch.sum, ZEROS)),
    "features": (lambda x: gpe.flip_difference(x, x),),
    "logits": (lambda x: gpe.region_confusion(x, ZEROS, [(0, 0, 1, 1)], num_classes=3),),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", CALLS)
def test_tensors_of_a_strange_kind_are_refused_by_name(name, kind):
    for call in CALLS[name]:
        with pytest.raises(gpe.InputError, match=f"^{name}: expected .*({kind})"):
            call(STRANGE[kind])


@pytest.mark.parametrize("value", ("a", None, True, 2**63, 10**400, 1.5, np.float32(2), [1, 2, 3]))
def test_numbers_that_are_no_integers(value):
    for name, call in {
        "grid_size": lambda n: gpe.place_on_grid(IMAGES, ZEROS, n),
        "num_classes": lambda n: gpe.region_confusion(
            MAPS, torch.zeros(2, 4, 4).long(), [(0, 0, 1, 1)], num_classes=n
        ),
        "size": lambda n: gpe.dual_crop(IMAGES, n, ZEROS.expand(1, 2, 2), ZEROS[None].bool()),
    }.items():
        with pytest.raises(gpe.InputError, match=f"^{name}: expected"):
            call(value)


@pytest.mark.parametrize("value", (float("nan"), np.inf, "a", 1j, 10**400, [1.0, float("nan"), 2]))
def test_numbers_that_are_not_finite(value):
    for name in ("mean", "std"):
        with pytest.raises(gpe.InputError, match=name):
            gpe.place_on_grid(IMAGES, ZEROS, 2, **{name: value})
    for name in ("weight", "label_smoothing"):
        with pytest.raises(gpe.InputError, match=name):
            gpe.AugShiftLoss(**{name: value})


def test_numpy_numbers_are_taken():
    three = np.int32(3)
    same = gpe.place_on_grid(IMAGES, ZEROS, three, mean=np.float32(0.5), std=np.ones(3))
    assert torch.equal(same, gpe.place_on_grid(IMAGES, ZEROS, 3, mean=0.5))
    offsets, flips = ZEROS.expand(1, 2, 2), ZEROS[None].bool()
    assert gpe.dual_crop(IMAGES, np.int64(2), offsets, flips, padding=np.int8(1)).shape[-1] == 2
    assert gpe.dual_crop(IMAGES, np.array([2, 3]), offsets, flips).shape[-2:] == (2, 3)
    regions = np.array([[0, 0, 4, 4]])
    labels = torch.zeros(2, 4, 4).long()
    assert gpe.region_confusion(MAPS, labels, regions, num_classes=three).sum() == 32
    scores = np.array([3, 1, 2])
    masked = gpe.mask_channels(MAPS, np.argsort(scores)[::-1][:2])
    assert masked.sum((0, 2, 3)).tolist() == [0, 32, 0]


def test_totals_are_both_checked_before_either_is_touched():
    total = torch.ones(3, dtype=torch.float64)
    with pytest.raises(gpe.InputError, match="totals"):
        gpe.flip_difference(MAPS, 2 * MAPS, totals=(total, total.float()))
    assert total.eq(1).all()


@compiled_for_cpu
def test_bare_operators_refuse_lengths_sizes_and_devices():
    offsets, flips, ones = ZEROS.expand(1, 2, 2), ZEROS[None].bool(), torch.ones(3)
    crop = gpe.dual_crop and torch.ops.gpe.dual_crop
    options = ("zeros", ones, ones, torch.float32, False)
    for size, padding in (([], [0, 0]), ([1, 1], []), ([1, 1, 1], [0, 0]), ([1, 1], [0])):
        with pytest.raises(ValueError, match="expected two integers"):
            crop(IMAGES, offsets, flips, size, padding, *options)
    with pytest.raises(ValueError, match="padding"):
        crop(IMAGES, offsets, flips, [1, 1], [2**62, 2**62], *options)
    place = gpe.place_on_grid and torch.ops.gpe.place_on_grid
    for grid in (2**32, 2**62):
        with pytest.raises(ValueError, match="grid_size"):
            place(IMAGES, ZEROS, grid, ones, ones, torch.float32, False)
    with pytest.raises(TypeError, match="dtype: expected a floating-point dtype"):
        place(IMAGES, ZEROS, 2, ones, ones, torch.int32, False)
    with pytest.raises(ValueError, match="expected the device of"):
        place(IMAGES, ZEROS.to("meta"), 2, ones, ones, torch.float32, False)
    with pytest.raises(ValueError, match="expected the device of"):
        torch.ops.gpe.mask_channels_(MAPS, torch.ones(3, dtype=torch.bool, device="meta"))
    canvas = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="images: expected memory apart"):
        torch.ops.gpe.place_on_grid_(canvas, ZEROS, canvas[..., :4, :4], ZEROS, 2, ones, ones)


@compiled_for_cpu
def test_bare_operators_bump_versions():
    maps, canvas, ones = MAPS.clone(), torch.zeros(2, 3, 8, 8), torch.ones(3)
    assert gpe.mask_channels and gpe.place_on_grid
    torch.ops.gpe.mask_channels_(maps, ones.bool())
    torch.ops.gpe.place_on_grid_(canvas, None, IMAGES, ZEROS, 2, ones, ones)
    assert maps._version == canvas._version == 1
    with pytest.raises(ValueError, match="requires no gradient"):
        torch.ops.gpe.mask_channels_(maps.requires_grad_() * 1, ones.bool())
