"""mask_channels: a loop over channels says what is right, and every bit has to be."""

import numpy as np
import pytest
import torch
from torch.library import opcheck

import gpe
from tests.ops.conftest import compiled_for_cpu, with_threads
from tests.ops.maps import FLOATS, FORMATS, WRITABLE

DTYPES = (*FLOATS, torch.uint8, torch.int64)
CHANNELS = [4, 0, 3]


def sample(seed=0, *, shape=(3, 5, 4, 6), dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 9 + 20).to(device, dtype)


def loop(features, channels):
    """A channel at a time."""
    out = features.clone()
    for channel in channels:
        out[:, channel] = 0
    return out


def assert_right(features, channels):
    """Out of place and in place, and never beside the features."""
    expected, before = loop(features, channels), features.clone()
    out = gpe.mask_channels(features, channels)
    assert out.dtype == features.dtype and torch.equal(out, expected)
    assert torch.equal(features, before)
    assert out.stride() == torch.empty_like(features).stride()
    assert gpe.mask_channels(features, channels, inplace=True) is features
    assert torch.equal(features, expected)


# Values

LAYOUTS = WRITABLE | {
    "images inside": lambda maps: maps.movedim(0, -1).contiguous().movedim(-1, 0),
    "one byte off a vector": lambda maps: torch.cat([maps.flatten()[:1], maps.flatten()])[1:].view(
        maps.shape
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(dtype, layout, served):
    assert_right(layout(sample(dtype=dtype, device=served)), CHANNELS)


# Edges


@pytest.mark.parametrize(
    "shape",
    (
        (2, 5),
        (2, 5, 7),
        (2, 5, 3, 4, 6),
        (1, 5, 1, 1),
        (2, 5, 1, 7),
        (2, 5, 7, 1),
        (9, 130, 7, 7),
        (2, 64, 8, 8),
        (1, 7, 50, 61),
    ),
    ids=str,
)
@pytest.mark.parametrize("inside", (False, True), ids=("NCHW", "channels last"))
def test_any_rank_and_shapes_that_fit_no_vector(shape, inside, served):
    features = sample(shape=shape, device=served)
    if inside:
        features = features.movedim(1, -1).contiguous().movedim(-1, 1)
    assert_right(features, CHANNELS)


def test_features_around_a_slice_stay(served):
    """In place on a part of a tensor."""
    whole = sample(shape=(4, 9, 6, 7), device=served)
    expected = whole.clone()
    expected[1:3, 2:7, 1:, ::2][:, CHANNELS] = 0
    gpe.mask_channels(whole[1:3, 2:7, 1:, ::2], CHANNELS, inplace=True)
    assert torch.equal(whole, expected)


@pytest.mark.parametrize("value", (float("nan"), float("inf"), -1.0))
def test_a_zero_is_a_zero_whatever_was_there(value, served):
    """A product would leave NaN, or a zero with a sign."""
    features = torch.full((2, 3, 4, 4), value, device=served)
    for inplace in (False, True):
        out = gpe.mask_channels(features, [1], inplace=inplace)
        assert out[:, 1].eq(0).all() and not out[:, 1].signbit().any()
        assert torch.equal(out[:, 0].isnan(), torch.full((2, 4, 4), value != value).to(served))


@pytest.mark.parametrize(
    "channels",
    ([], [2], range(5), (1, 2), torch.tensor([3, 1]), np.array([3, 1]), torch.tensor([]).long()),
    ids=str,
)
def test_channels_come_in_many_forms(channels, served):
    assert_right(sample(device=served), [int(channel) for channel in channels])
    features = sample(device=served)
    assert torch.equal(gpe.mask_channels(features, channels), loop(features, channels))


def test_channels_on_the_device(served):
    channels = torch.tensor(CHANNELS, device=served)
    assert_right(sample(device=served), channels)


@pytest.mark.parametrize("shape", ((0, 5, 4, 4), (3, 5, 0, 4), (0, 5)))
def test_empty_features(shape, served):
    assert_right(sample(shape=shape, device=served), CHANNELS)


def test_indices_past_two_to_the_31(far_apart):
    assert_right(far_apart.fill_(4), [2, 0])


def test_the_same_bits_with_more_threads(served, interpreted):
    features = sample(shape=(4, 33, 4 if interpreted else 40, 50), device=served)
    for memory_format in FORMATS:
        features = features.contiguous(memory_format=memory_format)
        for threads in (1, 2, 3):
            with_threads(threads, assert_right, features.clone(), CHANNELS)


# Gradient


@pytest.mark.parametrize("layout", ("contiguous", "channels last", "every other row"))
@pytest.mark.parametrize("inplace", (False, True))
def test_gradient(inplace, layout, served):
    def mask(features):
        return gpe.mask_channels(features * 2, CHANNELS, inplace=inplace).square()

    features = LAYOUTS[layout](sample(shape=(2, 5, 2, 2), dtype=torch.float64, device=served))
    features = features.detach().requires_grad_()
    assert torch.autograd.gradcheck(mask, (features,))
    assert torch.autograd.gradgradcheck(mask, (features,))


@pytest.mark.parametrize("inplace", (False, True))
def test_gradient_of_masked_channels_is_zero(inplace, served):
    features = sample(device=served).requires_grad_()
    gpe.mask_channels(features * 1, CHANNELS, inplace=inplace).sum().backward()
    assert torch.equal(features.grad, loop(torch.ones_like(features), CHANNELS))


def test_in_place_counts_as_a_change(served):
    """What autograd kept of the features before is not taken for what is there now."""
    leaf = sample(device=served).requires_grad_()
    features = leaf.exp()
    version = features._version
    gpe.mask_channels(features, CHANNELS, inplace=True)
    assert features._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()
    plain = sample(device=served)
    version = plain._version
    gpe.mask_channels(plain, CHANNELS, inplace=True)
    assert plain._version > version


def test_in_place_refuses_a_leaf_as_torch_does(served):
    leaf = sample(device=served).requires_grad_()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        gpe.mask_channels(leaf, CHANNELS, inplace=True)


def test_in_place_without_gradients_writes_to_a_leaf(served):
    leaf = sample(device=served).requires_grad_()
    with torch.no_grad():
        assert_right(leaf, CHANNELS)
    with torch.inference_mode():
        assert_right(sample(device=served), CHANNELS)


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", (False, True))
def test_opcheck(compiled, requires_grad):
    masked = torch.tensor([True, False, True, False, False], device=compiled)
    features = sample(device=compiled).requires_grad_(requires_grad)
    opcheck(torch.ops.gpe.mask_channels, (features, masked))
    opcheck(torch.ops.gpe.mask_channels_, (features.detach(), masked))


@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
@pytest.mark.parametrize("inplace", (False, True))
def test_compile_fullgraph(inplace, compiler, served):
    def step(features, channels):
        return gpe.mask_channels(features.exp() + 1, channels, inplace=inplace).square()

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    for channels in (CHANNELS, torch.tensor(CHANNELS)):
        features = sample(device=served).div(20).requires_grad_()
        expected, out = step(features, channels), compiled(features, channels)
        torch.testing.assert_close(out, expected)
        gradients = (torch.autograd.grad(value.sum(), features) for value in (out, expected))
        torch.testing.assert_close(*gradients)


def test_compiled_in_place_without_gradients(served):
    compiled = torch.compile(
        lambda maps: gpe.mask_channels(maps, CHANNELS, inplace=True),
        fullgraph=True,
        backend="aot_eager",
    )
    features = sample(device=served)
    expected = loop(features, CHANNELS)
    assert torch.equal(compiled(features), expected)
    assert torch.equal(features, expected)


@pytest.mark.parametrize("inplace", (False, True))
def test_inside_a_captured_graph(inplace, captured):
    """Replays with other features and other channels."""
    features, channels = sample(device="cuda"), torch.tensor(CHANNELS, device="cuda")
    graph, out = captured(lambda: gpe.mask_channels(features, channels, inplace=inplace))
    for seed in range(3):
        features.copy_(sample(seed))
        channels.copy_((channels + 1) % 5)
        expected = loop(features, channels.tolist())
        graph.replay()
        assert torch.equal(out, expected)


# Errors

FEATURES = sample()
WRONG = {
    r"features: expected shape \[N,C,...\], got \[3\]": (FEATURES[:, 0, 0, 0], [0]),
    "channels: expected indices from 0 to 4, got 5": (FEATURES, [1, 5]),
    "channels: expected indices from 0 to 4, got -1": (FEATURES, [-1]),
    "channels: expected indices from 0 to -1, got 0": (FEATURES[:, :0], [0]),
    "channels: expected each at most once, got 3 repeatedly": (FEATURES, [3, 1, 3]),
    r"channels: expected torch.int64 \[k\], got torch.int32": (FEATURES, torch.ones(2).int()),
    r"channels: expected torch.int64 \[k\], got torch.bool": (FEATURES, [True, False]),
    r"channels: expected torch.int64 \[k\], got torch.float32 \[1\]": (FEATURES, [0.5]),
    r"channels: expected torch.int64 \[k\], got torch.int64 \[1, 2\]": (FEATURES, [[0, 1]]),
    r"channels: expected torch.int64 \[k\], got torch.int64 \[\]": (FEATURES, 3),
    "channels: expected integers, got 'ab'": (FEATURES, "ab"),
}


@pytest.mark.parametrize("inplace", (False, True))
@pytest.mark.parametrize(("message", "arguments"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, arguments, inplace):
    with pytest.raises(gpe.InputError, match=message):
        gpe.mask_channels(*arguments, inplace=inplace)


MASKED = torch.zeros(5, dtype=torch.bool)
UNSAFE = {
    "features: expected at least 2 dimensions": (FEATURES[:, 0, 0, 0], MASKED),
    "masked: expected shape": (FEATURES, MASKED[:4]),
    "masked: expected Bool": (FEATURES, MASKED.long()),
    "features: expected elements of at most 8 bytes": (FEATURES.to(torch.complex128), MASKED),
}


@compiled_for_cpu
@pytest.mark.parametrize("name", ("mask_channels", "mask_channels_"))
@pytest.mark.parametrize(("message", "arguments"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, arguments, name):
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(torch.ops.gpe, name)(*arguments)
