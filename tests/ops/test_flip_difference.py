"""flip_difference: a loop over images and channels says what is right, the kernels come close."""

import pytest
import torch
from torch.library import opcheck

import gpe
from tests.conftest import TOLERANCE
from tests.ops.conftest import assert_same_bits, compiled_for_cpu, largest_allocation
from tests.ops.maps import FLOATS, FORMATS, LAYOUTS, SHAPES, two_maps

LAYOUTS = LAYOUTS | {"mirrored": lambda maps: maps.flip(-1)}


def loop(features, mirrored):
    """One mean at a time in float64, as the formulas read."""
    count, channels = features.shape[:2]
    difference = torch.zeros(count, channels, dtype=torch.float64)
    total, absolute_total = torch.zeros(2, channels, dtype=torch.float64)
    for i in range(count):
        for c in range(channels):
            delta = features[i, c].double().mean() - mirrored[i, c].double().mean()
            difference[i, c] = delta
            total[c] += delta
            absolute_total[c] += delta.abs()
    return difference, total, absolute_total


def assert_right(result, features, mirrored):
    wide = torch.promote_types(features.dtype, torch.float32)
    assert [tensor.dtype for tensor in result] == [wide, torch.float64, torch.float64]
    rtol, atol = TOLERANCE[wide]
    for tensor, expected in zip(result, loop(features.cpu(), mirrored.cpu()), strict=True):
        # The sums add up what the differences are off.
        torch.testing.assert_close(
            tensor.cpu().double(), expected, rtol=rtol, atol=atol * len(features)
        )


# Values


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_values(dtype, layout, served):
    features, mirrored = map(layout, two_maps(dtype=dtype, device=served))
    assert_right(gpe.flip_difference(features, mirrored), features, mirrored)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_two_maps_may_differ_in_layout(layout, served):
    a, b = two_maps(device=served)
    assert_right(gpe.flip_difference(layout(a), b), layout(a), b)
    assert_right(gpe.flip_difference(a, layout(b)), a, layout(b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_pooled_latents(dtype, served):
    features, mirrored = (maps[:, :, 0, 0] for maps in two_maps(dtype=dtype, device=served))
    difference, total, _ = gpe.flip_difference(features, mirrored)
    wide = difference.dtype
    assert torch.equal(difference, features.to(wide) - mirrored.to(wide))
    assert torch.equal(total, added_up(difference))


# Edges


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_shapes_that_fit_no_vector_and_no_block(dtype, memory_format, shape, served, interpreted):
    maps = two_maps(**shape, dtype=dtype, device=served)
    if interpreted and maps[0].numel() > 20000:
        pytest.skip("the interpreter takes minutes")
    a, b = (features.contiguous(memory_format=memory_format) for features in maps)
    assert_right(gpe.flip_difference(a, b), a, b)


def test_indices_past_two_to_the_31(far_apart):
    far_apart[-1, -1, -1, -1] = 4
    zeros = torch.zeros_like(far_apart)
    difference, total, absolute_total = gpe.flip_difference(zeros, far_apart)
    assert difference.tolist() == [[0, 0, 0], [0, 0, -1]]
    assert total.tolist() == [0, 0, -1] and absolute_total.tolist() == [0, 0, 1]


@pytest.mark.parametrize("shape", ((0, 3, 4, 4), (2, 0, 4, 4), (0, 3), (2, 0)))
def test_empty_batches_change_no_sum(shape, served):
    features = torch.zeros(shape, device=served, requires_grad=True)
    totals = tuple(torch.full((shape[1],), n, dtype=torch.float64, device=served) for n in (2, 3))
    difference, total, absolute_total = gpe.flip_difference(features, features, totals=totals)
    assert difference.shape == shape[:2]
    assert total.eq(2).all() and absolute_total.eq(3).all()
    (gradient,) = torch.autograd.grad(difference.sum(), features)
    assert gradient.shape == shape


# Running sums


def added_up(differences):
    """One image after the other, in float64."""
    total = differences.new_zeros(differences.shape[1], dtype=torch.float64)
    for difference in differences:
        total += difference
    return total


@pytest.mark.parametrize("sizes", ((7,), (1, 6), (3, 2, 2), (1,) * 7))
def test_sums_do_not_depend_on_the_batches(sizes, served):
    """To the last bit."""
    features, mirrored = two_maps(count=7, channels=33, device=served)
    totals = tuple(torch.zeros(33, dtype=torch.float64, device=served) for _ in range(2))
    differences = []
    for batch in zip(features.split(sizes), mirrored.split(sizes), strict=True):
        result = gpe.flip_difference(*batch, totals=totals)
        assert result.total is totals[0] and result.absolute_total is totals[1]
        differences.append(result.difference)
    differences = torch.cat(differences)
    assert torch.equal(totals[0], added_up(differences))
    assert torch.equal(totals[1], added_up(differences.abs()))


def test_the_same_bits_twice_and_with_more_threads(served, interpreted):
    for height in (3,) if interpreted else (3, 40):
        maps = two_maps(count=4, channels=33, height=height, width=50, device=served)
        for memory_format in FORMATS:
            a, b = (features.contiguous(memory_format=memory_format) for features in maps)
            assert_same_bits(gpe.flip_difference, a, b)


def test_mirrored_pixels_change_nothing_that_matters(served):
    """Whoever mirrors the features back, or not, gets the same but for rounding."""
    features, mirrored = two_maps(device=served)
    results = (gpe.flip_difference(features, maps) for maps in (mirrored, mirrored.flip(-1)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_autocast_leaves_the_dtype_to_the_features(served):
    a, b = two_maps(device=served)
    with torch.autocast(served, torch.bfloat16):
        assert_right(gpe.flip_difference(a, b), a, b)
        assert_right(gpe.flip_difference(a.bfloat16(), b.bfloat16()), a.bfloat16(), b.bfloat16())


# Gradient


@pytest.mark.parametrize("layout", ("contiguous", "channels last", "every other row"))
def test_gradient(layout, served, interpreted):
    if interpreted and layout != "contiguous":
        pytest.skip("the interpreter takes minutes; the backward pass is the same")
    maps = two_maps(count=2, channels=3, height=2, width=2, dtype=torch.float64, device=served)
    maps = tuple(LAYOUTS[layout](features).detach().requires_grad_() for features in maps)
    assert torch.autograd.gradcheck(gpe.flip_difference, maps)
    assert torch.autograd.gradgradcheck(gpe.flip_difference, maps)


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_is_that_of_plain_pytorch(dtype, served):
    a, b = (maps.requires_grad_() for maps in two_maps(dtype=dtype, device=served))
    difference, total, absolute_total = gpe.flip_difference(a, b)
    loss = difference.square().sum() + 2 * total.sum() + 30 * absolute_total.sum()
    gradients = torch.autograd.grad(loss, (a, b))
    wide_a, wide_b = (maps.detach().double().requires_grad_() for maps in (a, b))
    delta = wide_a.mean((2, 3)) - wide_b.mean((2, 3))
    loss = delta.square().sum() + 2 * delta.sum() + 30 * delta.abs().sum()
    expected = torch.autograd.grad(loss, (wide_a, wide_b))
    rtol, atol = TOLERANCE[dtype]
    for gradient, right in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), right, rtol=rtol, atol=atol)


def test_backward_writes_nothing_of_the_features_size(served):
    if gpe.ops.backend.choose(served) == "reference":
        pytest.skip("plain PyTorch does")
    maps = two_maps(count=2, channels=3, height=32, width=32, device=served)
    a, b = (features.requires_grad_() for features in maps)
    difference, _, absolute_total = gpe.flip_difference(a, b)
    loss = difference.square().sum() + absolute_total.sum()
    largest, gradients = largest_allocation(torch.autograd.grad, loss, (a, b))
    for gradient in gradients:
        assert gradient.shape == a.shape
        assert gradient.stride()[2:] == (0, 0)
    assert largest < a.nbytes


def test_no_gradient_goes_through_running_sums(served):
    a, b = (maps.requires_grad_() for maps in two_maps(device=served))
    totals = tuple(torch.zeros(5, dtype=torch.float64, device=served) for _ in range(2))
    difference, total, absolute_total = gpe.flip_difference(a, b, totals=totals)
    assert difference.requires_grad
    assert not total.requires_grad and not absolute_total.requires_grad


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", (False, True))
@pytest.mark.parametrize("running", (False, True))
def test_opcheck(compiled, running, requires_grad):
    maps = (maps.requires_grad_(requires_grad) for maps in two_maps(count=2, device=compiled))
    totals = (torch.ones(5, dtype=torch.float64, device=compiled),) * 2 if running else (None, None)
    opcheck(torch.ops.gpe.flip_difference, (*maps, *totals))


@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
@pytest.mark.parametrize("running", (False, True))
def test_compile_fullgraph(running, compiler, served):
    def step(a, b, totals):
        result = gpe.flip_difference(a.relu(), b.relu(), totals=totals if running else None)
        return result.difference.square().sum(), result.absolute_total

    def zeros():
        return tuple(torch.zeros(5, dtype=torch.float64, device=served) for _ in range(2))

    a, b = (maps.requires_grad_() for maps in two_maps(device=served))
    expected, totals, expected_totals = step(a, b, zeros()), zeros(), zeros()
    loss, absolute_total = torch.compile(step, fullgraph=True, backend=compiler)(a, b, totals)
    # The compiler takes the means of plain PyTorch in another order, in float32.
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close((loss, absolute_total), expected, **close)
    gradients = (torch.autograd.grad(value, (a, b)) for value in (loss, expected[0]))
    torch.testing.assert_close(*gradients, **close)
    step(a, b, expected_totals)
    torch.testing.assert_close(totals, expected_totals, **close)


def test_inside_a_captured_graph(captured):
    """Each replay adds to the sums, as each call would."""
    features, mirrored = two_maps(device="cuda")
    totals = tuple(torch.zeros(5, dtype=torch.float64, device="cuda") for _ in range(2))
    graph, _ = captured(lambda: gpe.flip_difference(features, mirrored, totals=totals))
    expected = tuple(map(torch.clone, totals))
    for seed in range(3):
        for maps, others in zip((features, mirrored), two_maps(seed), strict=True):
            maps.copy_(others)
        graph.replay()
        gpe.flip_difference(features, mirrored, totals=expected)
        assert all(map(torch.equal, totals, expected))


# Errors

A, B = two_maps(count=4)
SUMS = torch.zeros(5, dtype=torch.float64)
WRONG = {
    r"features: expected shape \[N,C,H,W\] or \[N,C\], got \[5, 4, 6\]": (A[0], B[0]),
    "features: expected floating point, got torch.int64": (A.long(), B.long()),
    r"features: expected maps with pixels, got \[4, 5, 0, 6\]": (A[:, :, :0], B[:, :, :0]),
    r"mirrored: expected the shape of features, .*\[4, 5, 4, 6\].*got": (A, B[:3]),
    "mirrored: expected the dtype of features, torch.float32, got torch.float16": (A, B.half()),
    "mirrored: expected the device of features, cpu, got meta": (A, B.to("meta")),
    "totals: expected two tensors": (A, B, (SUMS,)),
    r"totals: expected torch.float64 \[5\] on cpu, got torch.float32 \[5\]": (
        A,
        B,
        (SUMS, SUMS.float()),
    ),
    r"totals: expected torch.float64 \[5\] on cpu, got torch.float64 \[4\]": (
        A,
        B,
        (SUMS[:4], SUMS),
    ),
    "totals: expected sums that require no gradient": (A, B, (SUMS.clone().requires_grad_(), SUMS)),
}


@pytest.mark.parametrize(("message", "arguments"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, arguments):
    features, mirrored, *totals = arguments
    with pytest.raises(gpe.InputError, match=message):
        gpe.flip_difference(features, mirrored, totals=totals[0] if totals else None)


def test_nan_is_named_and_leaves_the_sums_alone(served):
    a, b = two_maps(device=served)
    totals = tuple(torch.ones(5, dtype=torch.float64, device=served) for _ in range(2))
    b[2, 4, 0, 0] = float("nan")
    if served == "cuda":
        assert gpe.flip_difference(a, b, totals=totals).total[4].isnan()
        return
    with pytest.raises(gpe.InputError, match=r"got a difference of nan in image 2, channel 4"):
        gpe.flip_difference(a, b, totals=totals)
    assert torch.equal(*totals) and totals[0].eq(1).all()


UNSAFE = {
    "features: expected 4 dimensions": (A[0], B[0], None, None),
    "height of features: expected at least 1": (A[:, :, :0], B[:, :, :0], None, None),
    "width of features: expected at least 1": (A[..., :0], B[..., :0], None, None),
    "mirrored: expected shape": (A, B[:, :4], None, None),
    "mirrored: expected Float": (A, B.double(), None, None),
    "total: expected shape": (A, B, SUMS[:4], None),
    "absolute_total: expected Double": (A, B, None, SUMS.float()),
}


@compiled_for_cpu
@pytest.mark.parametrize(("message", "arguments"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, arguments):
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.gpe.flip_difference(*arguments)
