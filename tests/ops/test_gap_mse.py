"""gap_mse: a loop over images and channels says what is right, the kernels come close to it."""

from functools import partial

import pytest
import torch
from torch.library import opcheck

import gpe
from tests.conftest import TOLERANCE
from tests.ops.conftest import assert_same_bits, compiled_for_cpu, largest_allocation
from tests.ops.maps import FLOATS, FORMATS, LAYOUTS, SHAPES, two_maps


def loop(a, b):
    """One mean at a time in float64, as the formula reads."""
    count, channels = a.shape[:2]
    z_a, z_b = torch.zeros(2, count, channels, dtype=torch.float64)
    mse = 0.0
    for i in range(count):
        for c in range(channels):
            z_a[i, c], z_b[i, c] = a[i, c].double().mean(), b[i, c].double().mean()
            mse += (z_a[i, c] - z_b[i, c]) ** 2 / (count * channels)
    return z_a, z_b, mse


def assert_right(result, a, b):
    z_a, z_b, mse = loop(a.cpu(), b.cpu())
    wide = torch.promote_types(a.dtype, torch.float32)
    assert (result.z_a.dtype, result.z_b.dtype, result.mse.dtype) == (a.dtype, a.dtype, wide)
    for z, expected in ((result.z_a, z_a), (result.z_b, z_b)):
        rtol, atol = TOLERANCE[a.dtype]
        torch.testing.assert_close(z.cpu().double(), expected, rtol=rtol, atol=atol)
    rtol, atol = TOLERANCE[wide]
    torch.testing.assert_close(result.mse.cpu().double(), mse, rtol=rtol, atol=atol)


# Values


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_values(dtype, layout, served):
    a, b = map(layout, two_maps(dtype=dtype, device=served))
    assert_right(gpe.gap_mse(a, b), a, b)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_two_maps_may_differ_in_layout(layout, served):
    a, b = two_maps(device=served)
    assert_right(gpe.gap_mse(layout(a), b), layout(a), b)
    assert_right(gpe.gap_mse(a, layout(b)), a, layout(b))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_stacked_maps_give_the_bits_of_two(layout, served):
    stacked = layout(torch.cat(two_maps(device=served)))
    two = gpe.gap_mse(*stacked.tensor_split(2))
    for one, other in zip(gpe.gap_mse(stacked), two, strict=True):
        assert torch.equal(one, other)


# Edges


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_shapes_that_fit_no_vector_and_no_block(dtype, memory_format, shape, served, interpreted):
    a, b = two_maps(**shape, dtype=dtype, device=served)
    if interpreted and a.numel() > 20000:
        pytest.skip("the interpreter takes minutes")
    a, b = (maps.contiguous(memory_format=memory_format) for maps in (a, b))
    assert_right(gpe.gap_mse(a, b), a, b)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_sums_of_many_pixels_stay_exact(memory_format, served, interpreted):
    """One after the other in float32, a million numbers of one sign are off by far more."""
    if interpreted:
        pytest.skip("the interpreter takes minutes")
    a, b = two_maps(count=1, channels=2, height=1000, width=1000, device=served)
    a, b = (maps.add(9).contiguous(memory_format=memory_format) for maps in (a, b))
    assert_right(gpe.gap_mse(a, b), a, b)


@compiled_for_cpu
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", ((7, 7), (16, 16), (33, 57), (1, 300), (200, 200)), ids=str)
def test_equal_numbers_pool_to_themselves(size, memory_format, monkeypatch):
    """One after the other in float32 they would be off by the same rounding each time."""
    monkeypatch.setenv("GPE_BACKEND", "compiled")
    for value in (0.1, 0.3, 1 / 3, 7.7):
        maps = torch.full((2, 35, *size), value).contiguous(memory_format=memory_format)
        for pooled in (*gpe.gap_mse(maps)[:2], gpe.flip_difference(maps, maps * 0).difference):
            torch.testing.assert_close(pooled, maps[: len(pooled), :, 0, 0], rtol=1.2e-7, atol=0)


def test_indices_past_two_to_the_31(far_apart):
    far_apart[-1, -1, -1, -1] = 4
    z_a, z_b, mse = gpe.gap_mse(far_apart)
    assert z_a.eq(0).all() and z_b.tolist() == [[0, 0, 1]]
    torch.testing.assert_close(mse.item(), 1 / 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", ((0, 3, 4, 4), (2, 0, 4, 4)))
def test_empty_batches_have_no_mse(shape, served):
    """Nor do they raise for it, and their gradients are as empty."""
    features = torch.zeros(shape, device=served, requires_grad=True)
    for z_a, z_b, mse in (gpe.gap_mse(features), gpe.gap_mse(features, features)):
        assert z_a.shape[1] == z_b.shape[1] == shape[1]
        assert mse.isnan()
    (gradient,) = torch.autograd.grad(mse + z_a.sum(), features)
    assert gradient.shape == shape


def test_the_same_bits_twice_and_with_more_threads(served, interpreted):
    for height in (3,) if interpreted else (3, 40):
        a, b = two_maps(count=4, channels=33, height=height, width=50, device=served)
        for memory_format in FORMATS:
            a, b = (maps.contiguous(memory_format=memory_format) for maps in (a, b))
            assert_same_bits(gpe.gap_mse, a, b)


def test_autocast_leaves_the_dtype_to_the_features(served):
    a, b = two_maps(device=served)
    with torch.autocast(served, torch.bfloat16):
        assert_right(gpe.gap_mse(a, b), a, b)
        assert_right(gpe.gap_mse(a.bfloat16(), b.bfloat16()), a.bfloat16(), b.bfloat16())


# Gradient


@pytest.mark.parametrize("layout", ("contiguous", "channels last", "every other row"))
def test_gradient(layout, served, interpreted):
    if interpreted and layout != "contiguous":
        pytest.skip("the interpreter takes minutes; the backward pass is the same")
    a, b = two_maps(count=2, channels=3, height=2, width=2, dtype=torch.float64, device=served)
    a, b = (LAYOUTS[layout](maps).detach().requires_grad_() for maps in (a, b))
    stacked = LAYOUTS[layout](torch.cat([a, b]).detach()).requires_grad_()
    for arguments in ((a, b), (stacked,)):
        assert torch.autograd.gradcheck(gpe.gap_mse, arguments)
        assert torch.autograd.gradgradcheck(gpe.gap_mse, arguments)


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_is_that_of_plain_pytorch(dtype, served):
    a, b = (maps.requires_grad_() for maps in two_maps(dtype=dtype, device=served))
    z_a, z_b, mse = gpe.gap_mse(a, b)
    gradients = torch.autograd.grad(z_a.sum() + 2 * z_b.sum() + 30 * mse, (a, b))
    wide_a, wide_b = (maps.detach().double().requires_grad_() for maps in (a, b))
    z_a, z_b = wide_a.mean((2, 3)), wide_b.mean((2, 3))
    loss = z_a.sum() + 2 * z_b.sum() + 30 * torch.nn.functional.mse_loss(z_a, z_b)
    expected = torch.autograd.grad(loss, (wide_a, wide_b))
    rtol, atol = TOLERANCE[dtype]
    for gradient, right in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), right, rtol=rtol, atol=atol)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("stacked", (False, True))
def test_backward_writes_nothing_of_the_features_size(stacked, memory_format, served):
    if gpe.ops.backend.choose(served) == "reference":
        pytest.skip("plain PyTorch does")
    a, b = two_maps(count=2, channels=3, height=32, width=32, device=served)
    features = [torch.cat([a, b])] if stacked else [a, b]
    features = [maps.to(memory_format=memory_format).requires_grad_() for maps in features]
    z_a, z_b, mse = gpe.gap_mse(*features)
    loss = z_a.sum() + z_b.square().sum() + mse
    largest, gradients = largest_allocation(torch.autograd.grad, loss, features)
    for gradient, maps in zip(gradients, features, strict=True):
        assert gradient.shape == maps.shape
        assert gradient.stride()[2:] == (0, 0)
    assert largest < a.nbytes


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("stacked", (False, True))
def test_batch_norm_on_the_cpu_gets_its_gradient_written_out(stacked, memory_format, served):
    a, b = two_maps(count=4, dtype=torch.float64, device=served)
    inputs = [torch.cat([a, b])] if stacked else [a, b]
    inputs = [maps.to(memory_format=memory_format).requires_grad_() for maps in inputs]
    features = [torch.nn.BatchNorm2d(5).to(served, a.dtype)(maps) for maps in inputs]
    weight = torch.linspace(-1, 1, 20, dtype=a.dtype, device=served).view(4, 5)  # or all is 0

    def gradients(pool, wanted):
        z_a, z_b, mse = pool(*features)
        loss = (weight * (z_a + z_b**2)).sum() + mse
        return torch.autograd.grad(loss, wanted, retain_graph=True)

    for gradient in gradients(gpe.gap_mse, features):
        if served == "cpu" and gpe.ops.backend.choose(served) == "compiled":
            assert gradient.is_contiguous(memory_format=memory_format)
    expected = gradients(plain, inputs)
    torch.testing.assert_close(gradients(gpe.gap_mse, inputs), expected)


def plain(*features):
    z_a, z_b = torch.cat(features).mean((2, 3)).tensor_split(2)
    return z_a, z_b, torch.nn.functional.mse_loss(z_a, z_b)


def test_gradients_accumulate_in_leaves(served):
    a, b = (maps.requires_grad_() for maps in two_maps(device=served))
    for _ in range(3):
        gpe.gap_mse(a, b).z_a.sum().backward()
    torch.testing.assert_close(a.grad, torch.full_like(a, 3 / 24))
    assert b.grad.eq(0).all()


def test_gradient_of_one_map_alone(served):
    a, b = two_maps(device=served)
    gpe.gap_mse(a, b.requires_grad_()).z_b.sum().backward()
    assert a.grad is None
    torch.testing.assert_close(b.grad, torch.full_like(b, 1 / 24))


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", (False, True))
@pytest.mark.parametrize("stacked", (False, True))
def test_opcheck(compiled, stacked, requires_grad):
    a, b = (maps.requires_grad_(requires_grad) for maps in two_maps(count=2, device=compiled))
    opcheck(torch.ops.gpe.gap_mse, (a, None) if stacked else (a, b))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
@pytest.mark.parametrize("stacked", (False, True))
def test_compile_fullgraph(stacked, compiler, memory_format, served):
    def step(a, b):
        a, b = a.relu(), b.relu()
        z_a, z_b, mse = gpe.gap_mse(torch.cat([a, b])) if stacked else gpe.gap_mse(a, b)
        return z_a.square().sum() + z_b.sum() + mse

    a, b = (maps.to(memory_format=memory_format) for maps in two_maps(device=served))
    a, b = a.requires_grad_(), b.requires_grad_()
    expected = step(a, b)
    expected_gradients = torch.autograd.grad(expected, (a, b))
    loss = torch.compile(step, fullgraph=True, backend=compiler)(a, b)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, (a, b)), expected_gradients)


@compiled_for_cpu
@pytest.mark.parametrize("forced", (False, True))
@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_compiler_pools_nchw_on_the_cpu_unless_told_otherwise(
    memory_format, forced, monkeypatch
):
    monkeypatch.delenv("GPE_BACKEND", raising=False)
    if forced:
        monkeypatch.setenv("GPE_BACKEND", "compiled")
    torch.compiler.reset()
    called = set()

    def look(graph, _):
        called.update(str(node.target) for node in graph.graph.nodes)
        return graph

    a, b = (maps.to(memory_format=memory_format) for maps in two_maps())
    torch.compile(partial(gpe.gap_mse), fullgraph=True, backend=look)(a, b)
    by_kernel = forced or memory_format == torch.channels_last
    assert any("gpe.gap_mse" in name for name in called) == by_kernel


@pytest.mark.parametrize("memory_format", FORMATS)
def test_compiled_once_for_all_sizes(memory_format, served):
    def step(a, b):
        z_a, z_b, mse = gpe.gap_mse(a.relu(), b.relu())
        return (z_a * z_b).sum() + mse

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for stance, size in (
        ("default", {"count": 3, "height": 7}),
        ("fail_on_recompile", {"count": 4, "height": 9}),
        ("fail_on_recompile", {"count": 8, "width": 11}),
    ):
        a, b = (maps.to(memory_format=memory_format) for maps in two_maps(**size, device=served))
        a, b = a.requires_grad_(), b.requires_grad_()
        expected = step(a, b)
        with torch.compiler.set_stance(stance):
            loss = compiled(a, b)
        torch.testing.assert_close(loss, expected)
        gradients = torch.autograd.grad(loss, (a, b))
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, (a, b)))


def test_inside_a_captured_graph(captured):
    """Replays forward and backward with other features."""
    features = torch.cat(two_maps(device="cuda")).requires_grad_()

    def step():
        z_a, z_b, mse = gpe.gap_mse(features)
        return mse, torch.autograd.grad(z_a.sum() + z_b.square().sum() + mse, features)[0]

    graph, (mse, gradient) = captured(step)
    for seed in range(3):
        with torch.no_grad():
            features.copy_(torch.cat(two_maps(seed)))
        graph.replay()
        expected_mse, expected_gradient = step()
        assert torch.equal(mse, expected_mse)
        assert torch.equal(gradient, expected_gradient)


# Errors

A, B = two_maps(count=4)
WRONG = {
    r"features_a: expected shape \[N,C,H,W\], got \[5, 4, 6\]": (A[0], B[0]),
    "features_a: expected floating point, got torch.int64": (A.long(), B.long()),
    r"features_a: expected maps with pixels, got \[4, 5, 0, 6\]": (A[:, :, :0], B[:, :, :0]),
    "features_a: expected an even number of images.* got 3": (A[:3],),
    r"features_b: expected the shape of features_a, .*\[4, 5, 4, 6\].*got": (A, B[:3]),
    "features_b: expected the dtype of features_a, torch.float32, got torch.float16": (A, B.half()),
    "features_b: expected the device of features_a, cpu, got meta": (A, B.to("meta")),
}


@pytest.mark.parametrize(("message", "arguments"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, arguments):
    with pytest.raises(gpe.InputError, match=message):
        gpe.gap_mse(*arguments)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_features_that_make_the_mse_nan_are_named(value, served):
    a, b = two_maps(device=served)
    a[0, 3, 2, 1] = b[0, 3, 2, 1] = value  # inf - inf is NaN as well
    b[2, 4, 0, 0] = float("nan")
    if served == "cuda":
        z_a, z_b, mse = gpe.gap_mse(a, b)
        assert mse.isnan() and z_b[2, 4].isnan() and not z_a[0, 3].isfinite()
        return
    finite = torch.ones_like(a)
    for arguments, message in {
        (a, finite): rf"features_a: .* {value} in image 0, channel 3" if value != value else None,
        (a, b): rf"features_a: .* {value} in image 0, channel 3",
        (finite, b): r"features_b: .* in image 0, channel 3",
        (torch.cat([finite, b]),): r"features_a: .* in image 3, channel 3",
    }.items():
        if message is None:
            assert gpe.gap_mse(*arguments).mse.isinf()
            continue
        with pytest.raises(gpe.InputError, match=message):
            gpe.gap_mse(*arguments)


def test_compiled_code_lets_nan_through(served):
    compiled = torch.compile(partial(gpe.gap_mse), fullgraph=True, backend="aot_eager")
    a, b = two_maps(device=served)
    a[0, 3] = float("nan")
    z_a, z_b, mse = compiled(a, b)
    assert z_a[0, 3].isnan() and z_b.isfinite().all() and mse.isnan()


UNSAFE = {
    "features_a: expected 4 dimensions": (A[0], None),
    "features_a: expected an even number of images, got 3": (A[:3], None),
    "height of features_a: expected at least 1": (A[:, :, :0], None),
    "width of features_a: expected at least 1": (A[..., :0], None),
    "features_b: expected shape": (A, B[:, :4]),
    "features_b: expected Float": (A, B.double()),
}


@compiled_for_cpu
@pytest.mark.parametrize(("message", "arguments"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, arguments):
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.gpe.gap_mse(*arguments)
