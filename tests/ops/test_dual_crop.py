"""dual_crop: a loop over images says what is right, the reference says which bits."""

from functools import partial

import pytest
import torch
from torch.library import opcheck
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional as F

import gpe
from tests.conftest import TOLERANCE
from tests.ops.conftest import (
    assert_same_bits,
    compiled_for_cpu,
    complaint_of_a_gpu,
    needs_gpu,
    skip_without_memory,
    with_reference,
)
from tests.ops.maps import FLOATS, FORMATS, LAYOUTS, MEAN, STD

by_reference = partial(with_reference, gpe.dual_crop)
# Each with what torch.nn.functional.pad calls it.
MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}
SIZE, PADDING = (6, 8), (3, 2)


def sample(seed=0, *, views=2, count=5, channels=3, height=7, width=9, size=SIZE, padding=PADDING):
    """Images, offsets and flips of crops that lie anywhere in the padded images."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ends = (
        side + 2 * pad - crop + 1
        for side, pad, crop in zip((height, width), padding, size, strict=True)
    )
    shape = (views, count)
    offsets = torch.stack([torch.randint(0, end, shape, generator=generator) for end in ends], -1)
    return images, offsets, torch.rand(shape, generator=generator) < 0.5


def loop(images, offsets, flips, mode, mean, std, dtype):
    """One crop at a time in float64, as the formula reads."""
    padded = pad(images.double(), (PADDING[1],) * 2 + (PADDING[0],) * 2, mode=MODES[mode])
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
    crops = torch.empty(*flips.shape, images.shape[1], *SIZE, dtype=dtype)
    for view, image in torch.ones_like(flips).nonzero().tolist():
        top, left = offsets[view, image].tolist()
        crop = padded[image, :, top : top + SIZE[0], left : left + SIZE[1]]
        crop = crop.flip(2) if flips[view, image] else crop
        crops[view, image] = ((crop / 255 - mean) / std).to(dtype)
    return crops


def on(device, tensors):
    images, offsets, flips = (tensor.to(device) for tensor in tensors)
    return {"images": images, "offsets": offsets, "flips": flips}


# Values


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", MODES)
def test_reference_agrees_with_the_loop(mode, dtype):
    tensors = sample(count=20)
    options = {"padding": PADDING, "padding_mode": mode, "mean": MEAN, "std": STD, "dtype": dtype}
    crops = by_reference(size=SIZE, **on("cpu", tensors), **options)
    expected = loop(*tensors, mode, MEAN, STD, dtype)
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(crops, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", MODES)
def test_kernels_give_the_bits_of_the_reference(mode, dtype, memory_format, served, interpreted):
    if interpreted and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter does not round to bfloat16 as a GPU does")
    crop = partial(gpe.dual_crop, size=SIZE, **on(served, sample()))
    options = {"padding": PADDING, "padding_mode": mode, "mean": MEAN, "std": STD}
    options |= {"dtype": dtype, "memory_format": memory_format}
    crops = crop(**options)
    assert crops.dtype == dtype
    assert crops.flatten(0, 1).is_contiguous(memory_format=memory_format)
    assert torch.equal(crops, by_reference(**crop.keywords, **options))


def test_zeros_are_black_pixels_as_torchvision_has_them(served):
    tensors = sample(height=8, width=8, padding=(3, 3))
    crops = gpe.dual_crop(size=SIZE, padding=3, mean=MEAN, std=STD, **on(served, tensors)).cpu()
    images, offsets, flips = tensors
    for view, image in torch.ones_like(flips).nonzero().tolist():
        expected = F.crop(F.pad(images[image], [3]), *offsets[view, image].tolist(), *SIZE)
        if flips[view, image]:
            expected = F.horizontal_flip(expected)
        expected = F.normalize(F.to_dtype(expected, torch.float32, scale=True), MEAN, STD)
        torch.testing.assert_close(crops[view, image], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", (1, 3, 4))
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_images_may_have_any_strides(layout, channels, memory_format, served):
    tensors = on(served, sample(channels=channels))
    tensors["images"] = layout(tensors["images"])
    options = {"size": SIZE, "padding": PADDING, "padding_mode": "reflect"}
    crops = gpe.dual_crop(**tensors, **options, memory_format=memory_format)
    tensors["images"] = tensors["images"].contiguous()
    assert torch.equal(crops, by_reference(**tensors, **options))


def test_offsets_and_flips_may_have_any_strides(served):
    tensors = on(served, sample())
    crop = partial(gpe.dual_crop, tensors["images"], SIZE, padding=PADDING)
    crops = crop(tensors["offsets"], tensors["flips"])
    offsets = tensors["offsets"].permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(crop(offsets, tensors["flips"].T.contiguous().T), crops)


# Edges

SHAPES = (
    {"views": 1},
    {"views": 3},
    {"count": 1},
    {"channels": 5},
    {"size": (1, 1)},
    {"size": (13, 13)},  # all of the padded image
    {"height": 1, "width": 1, "padding": (0, 0), "size": (1, 1)},
    {"height": 40, "width": 200, "size": (37, 150)},
    {"height": 32, "width": 32, "size": (32, 32)},
    {"padding": (0, 0)},
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_shapes_that_fit_no_vector_and_no_tile(shape, memory_format, served):
    options = {"size": SIZE, "padding": PADDING} | {
        name: shape[name] for name in ("size", "padding") if name in shape
    }
    tensors = on(served, sample(**shape))
    crops = gpe.dual_crop(**tensors, **options, memory_format=memory_format)
    assert torch.equal(crops, by_reference(**tensors, **options))


WIDEST = {"zeros": (11, 12), "reflect": (6, 8), "replicate": (11, 12), "circular": (7, 9)}


@pytest.mark.parametrize("size", ((3, 2), (9, 11)))
@pytest.mark.parametrize(("mode", "padding"), WIDEST.items())
def test_wide_padding(mode, padding, size, served):
    """A crop may lie wholly in the padding, or hold the image and padding on both sides."""
    tensors = on(served, sample(count=30, channels=1, size=size, padding=padding))
    options = {"size": size, "padding": padding, "padding_mode": mode}
    crops = gpe.dual_crop(**tensors, **options)
    assert torch.equal(crops, by_reference(**tensors, **options))


def test_one_number_stands_for_both_sides(served):
    tensors = on(served, sample(height=8, width=8, size=(6, 6), padding=(2, 2)))
    pairs = gpe.dual_crop(**tensors, size=(6, 6), padding=[2, 2])
    assert torch.equal(gpe.dual_crop(**tensors, size=6, padding=2), pairs)


@pytest.mark.parametrize("shape", ((0, 3, 6, 8), (2, 0, 6, 8)))
def test_empty_batches_give_empty_crops(shape, served):
    images = torch.zeros(shape, dtype=torch.uint8, device=served)
    offsets = torch.zeros(2, shape[0], 2, dtype=torch.int64, device=served)
    crops = gpe.dual_crop(images, 4, offsets, offsets[..., 0] > 0)
    assert crops.shape == (2, *shape[:2], 4, 4)


def test_indices_past_two_to_the_31(compiled):
    """The image is in the last corner of a crop of 2.1 billion elements."""
    skip_without_memory(compiled, gigabytes=6)
    size = 46342
    images = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8, device=compiled)
    offsets = torch.tensor([[[8, 8]]], device=compiled)
    crops = gpe.dual_crop(
        images, size, offsets, offsets[..., 0] < 0, padding=size, dtype=torch.bfloat16
    )
    assert crops.numel() > 2**31
    assert crops[..., -8:, -8:].eq(1).all()
    assert crops[..., -9, :].eq(0).all()
    assert crops[..., -8:, :-8].eq(0).all()


def test_the_same_bits_twice_and_with_more_threads(served):
    assert_same_bits(gpe.dual_crop, **on(served, sample()), size=SIZE, padding=PADDING)


# Dtypes


def test_default_dtype_follows_autocast(device):
    crop = partial(gpe.dual_crop, size=SIZE, padding=PADDING, **on(device, sample()))
    assert crop().dtype == torch.float32
    with torch.autocast(device, torch.bfloat16):
        assert crop().dtype == torch.bfloat16
        assert crop(dtype=torch.float32).dtype == torch.float32


# torch.library and torch.compile


@pytest.mark.parametrize("channels_last", (False, True))
def test_opcheck(compiled, channels_last):
    scale, shift = torch.full((2, 3), 0.5, device=compiled)
    images, offsets, flips = on(compiled, sample()).values()
    arguments = (images, offsets, flips, SIZE, PADDING, "reflect", scale, shift)
    opcheck(torch.ops.gpe.dual_crop, (*arguments, torch.float32, channels_last))


@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compile_fullgraph(compiler, served):
    crop = partial(gpe.dual_crop, size=SIZE, padding=PADDING, mean=MEAN, std=STD)

    @partial(torch.compile, fullgraph=True, backend=compiler)
    def compiled(images, offsets, flips):
        return crop(images=images, offsets=offsets, flips=flips) * 2

    tensors = on(served, sample())
    expected = crop(**tensors) * 2
    torch.testing.assert_close(compiled(**tensors), expected, rtol=0, atol=1e-6)


def test_inside_a_captured_graph(captured):
    """Replays with other images, offsets and flips."""
    options = {"size": SIZE, "padding": PADDING, "mean": MEAN}
    tensors = on("cuda", sample())
    graph, crops = captured(lambda: gpe.dual_crop(**tensors, **options))
    for seed in range(3):
        for tensor, new in zip(tensors.values(), sample(seed), strict=True):
            tensor.copy_(new)
        graph.replay()
        assert torch.equal(crops, by_reference(**tensors, **options))


# Errors

IMAGES, OFFSETS, FLIPS = sample()
WRONG = {
    "images: expected shape": {"images": IMAGES[0]},
    "images: expected shape .* with pixels": {"images": IMAGES[:, :, :0]},
    "images: expected torch.uint8, got torch.float32": {"images": IMAGES.float()},
    r"offsets: expected torch.int64, got torch.float32": {"offsets": OFFSETS.float()},
    r"offsets: expected shape \[V,5,2\].* got \[2, 4, 2\]": {"offsets": OFFSETS[:, :4]},
    r"offsets: expected shape \[V,5,2\].* got \[5, 2\]": {"offsets": OFFSETS[0]},
    r"offsets: expected shape \[V,5,2\].* got \[0, 5, 2\]": {"offsets": OFFSETS[:0]},
    "offsets: expected the device of images, cpu, got meta": {"offsets": OFFSETS.to("meta")},
    "flips: expected torch.bool, got torch.int64": {"flips": FLIPS.long()},
    r"flips: expected shape \[2, 5\].* got \[1, 5\]": {"flips": FLIPS[:1]},
    "flips: expected the device of images, cpu, got meta": {"flips": FLIPS.to("meta")},
    "size: expected an integer of at least 1.* got 0": {"size": 0},
    r"size: .* got \(3, 0\)": {"size": (3, 0)},
    r"size: .* got \(3, 3, 3\)": {"size": (3, 3, 3)},
    r"size: .* got 3\.0": {"size": 3.0},
    "size: expected at most the 13 rows of the padded image, got 14": {"size": (14, 8)},
    "size: expected at most the 13 columns of the padded image, got 14": {"size": (6, 14)},
    "padding: expected an integer of at least 0.* got -1": {"padding": -1},
    "padding: expected at most 6 rows of reflect padding for an image of 7, got 7": {
        "padding": (7, 2),
        "padding_mode": "reflect",
    },
    "padding: expected at most 9 columns of circular padding for an image of 9, got 10": {
        "padding": (3, 10),
        "padding_mode": "circular",
    },
    "padding_mode: expected one of zeros, .* got 'mirror'": {"padding_mode": "mirror"},
    "mean: .* each of 3 channels, got 2": {"mean": (0.5, 0.5)},
    "std: expected no zeros": {"std": (1, 0, 1)},
    "dtype: expected a floating-point dtype, got torch.uint8": {"dtype": torch.uint8},
    "memory_format: expected": {"memory_format": torch.channels_last_3d},
}


@pytest.mark.parametrize(("message", "change"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, change):
    arguments = {"images": IMAGES, "offsets": OFFSETS, "flips": FLIPS, "size": SIZE}
    with pytest.raises(gpe.InputError, match=message) as raised:
        gpe.dual_crop(**{**arguments, "padding": PADDING, **change})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", ((-1, 0), (0, -1), (8, 0), (0, 6), (2**40, 0)))
def test_a_crop_outside_the_padded_image(wrong, asserts):
    if asserts:
        pytest.skip("a device-side assertion: see the next test")
    offsets = OFFSETS.clone()
    offsets[1, 2] = torch.tensor(wrong)
    message = rf"rows from 0 to 7 and columns from 0 to 5, got \[{wrong[0]}, {wrong[1]}\] at index"
    with pytest.raises(ValueError, match=rf"offsets: expected {message} \[1, 2\]"):
        gpe.dual_crop(IMAGES, SIZE, offsets, FLIPS, padding=PADDING)


@needs_gpu
@pytest.mark.parametrize("name", ("compiled", "triton", "reference"))
def test_a_crop_outside_the_padded_image_on_a_gpu(name, monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", name)
    crop = (
        "images = torch.zeros(1, 1, 4, 4, device='cuda', dtype=torch.uint8);"
        "offsets = torch.tensor([[[0, 1]]], device='cuda');"
        "gpe.dual_crop(images, 4, offsets, offsets[..., 0] > 0)"
    )
    assert "padded image" in complaint_of_a_gpu(crop)


UNSAFE = {
    "images: expected 4 dimensions": {"images": IMAGES[0]},
    "images: expected Byte": {"images": IMAGES.float()},
    "images: expected pixels": {"images": IMAGES[:, :, :0]},
    "offsets: expected shape": {"offsets": OFFSETS[:, :2]},
    "offsets: expected Long": {"offsets": OFFSETS.int()},
    "offsets: expected 3 dimensions": {"offsets": OFFSETS[0]},
    "flips: expected shape": {"flips": FLIPS[:1]},
    "flips: expected Bool": {"flips": FLIPS.byte()},
    "size: expected at least 1": {"size": (0, 1)},
    "size: expected at most 13": {"size": (6, 14)},
    "padding: expected at least 0": {"padding": (-1, 0)},
    "padding: expected less than 7": {"padding": (7, 0), "padding_mode": "reflect"},
    "padding: expected at most 9": {"padding": (0, 10), "padding_mode": "circular"},
    "padding_mode: got mirror": {"padding_mode": "mirror"},
    "scale: expected shape": {"scale": torch.ones(2)},
    "shift: expected Float": {"shift": torch.ones(3).double()},
}


@compiled_for_cpu
@pytest.mark.parametrize(("message", "change"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, change):
    arguments = {"images": IMAGES, "offsets": OFFSETS, "flips": FLIPS, "size": SIZE}
    arguments |= {"padding": PADDING, "padding_mode": "zeros"}
    arguments |= {"scale": torch.ones(3), "shift": torch.ones(3)}
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.gpe.dual_crop(**{**arguments, **change}, dtype=torch.float32, channels_last=False)
