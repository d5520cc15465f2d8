"""place_on_grid: a loop over images says what is right, the reference says which bits."""

import copy
from functools import partial

import pytest
import torch
from torch.library import opcheck

import gpe
from gpe.ops import reference
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

LAYOUTS = LAYOUTS | {"mirrored": lambda images: images.flip(3)}
by_reference = partial(with_reference, gpe.place_on_grid)


def sample(seed=0, *, count=5, channels=3, height=7, width=9, grid_size=3, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if dtype != torch.uint8:
        images = (images / 255).to(dtype)
    return images, torch.randint(0, grid_size**2, (count,), generator=generator)


def loop(images, locations, grid_size, mean, std, dtype):
    """One image at a time in float64, as the formula reads."""
    count, channels, height, width = images.shape
    canvas = torch.zeros(count, channels, grid_size * height, grid_size * width, dtype=dtype)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
    for i, location in enumerate(locations.tolist()):
        row, column = divmod(location, grid_size)
        image = images[i].double() / (255 if images.dtype == torch.uint8 else 1)
        rows = slice(row * height, (row + 1) * height)
        columns = slice(column * width, (column + 1) * width)
        canvas[i, :, rows, columns] = ((image - mean) / std).to(dtype)
    return canvas


# Values


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("image_dtype", (torch.uint8, *FLOATS))
def test_reference_agrees_with_the_loop(image_dtype, dtype):
    images, locations = sample(dtype=image_dtype)
    canvas = by_reference(images, locations, 3, mean=MEAN, std=STD, dtype=dtype)
    expected = loop(images, locations, 3, MEAN, STD, dtype)
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(canvas, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("image_dtype", (torch.uint8, *FLOATS))
def test_kernels_give_the_bits_of_the_reference(
    image_dtype, dtype, memory_format, served, interpreted
):
    if interpreted and torch.bfloat16 in (image_dtype, dtype):
        pytest.skip("Triton's interpreter does not round to bfloat16 as a GPU does")
    images, locations = (t.to(served) for t in sample(dtype=image_dtype))
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "memory_format": memory_format}
    canvas = gpe.place_on_grid(images, locations, 3, **options)
    assert canvas.dtype == dtype
    assert canvas.is_contiguous(memory_format=memory_format)
    assert torch.equal(canvas, by_reference(images, locations, 3, **options))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_images_may_have_any_strides(layout, memory_format, served):
    images, locations = (t.to(served) for t in sample())
    images = layout(images)
    canvas = gpe.place_on_grid(images, locations, 3, mean=MEAN, memory_format=memory_format)
    expected = by_reference(images.contiguous(), locations, 3, mean=MEAN)
    assert torch.equal(canvas, expected)


# Edges


@pytest.mark.parametrize(
    "shape",
    (
        {"grid_size": 1},
        {"grid_size": 9},
        {"channels": 1},
        {"channels": 5, "width": 8},
        {"height": 1, "width": 1},
        {"height": 32, "width": 32},
        {"height": 40, "width": 200, "grid_size": 2},
        {"count": 1},
    ),
    ids=str,
)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_shapes_that_fit_no_vector_and_no_tile(shape, memory_format, served):
    images, locations = (t.to(served) for t in sample(**shape))
    grid_size = shape.get("grid_size", 3)
    canvas = gpe.place_on_grid(images, locations, grid_size, memory_format=memory_format)
    assert torch.equal(canvas, by_reference(images, locations, grid_size))


@pytest.mark.parametrize("shape", ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)))
def test_empty_batches_give_empty_canvases(shape, served):
    images = torch.zeros(shape, dtype=torch.uint8, device=served)
    locations = torch.zeros(shape[0], dtype=torch.int64, device=served)
    canvas = gpe.place_on_grid(images, locations, 3)
    assert canvas.shape == (shape[0], shape[1], 3 * shape[2], 3 * shape[3])
    assert gpe.place_on_grid(images, locations, 3, out=canvas).shape == canvas.shape


def test_indices_past_two_to_the_31(compiled):
    """The last cell of a canvas of 2.2 billion elements lies where it should."""
    skip_without_memory(compiled, gigabytes=12)
    images = torch.ones(1, 1, 1024, 1024, dtype=torch.bfloat16, device=compiled)
    last = torch.tensor([46**2 - 1], device=compiled)
    canvas = gpe.place_on_grid(images, last, 46)
    assert canvas.numel() > 2**31
    assert canvas[0, 0, -1024:, -1024:].eq(1).all()
    assert canvas[0, 0, -1025].eq(0).all()
    canvas = gpe.place_on_grid(images, last - 1, 46, out=canvas)
    assert canvas[0, 0, -1024:, -1024:].eq(0).all()


def test_the_same_bits_twice_and_with_more_threads(served):
    images, locations = (t.to(served) for t in sample())
    assert_same_bits(gpe.place_on_grid, images, locations, 3, mean=MEAN, std=STD)


# A canvas that is used again


@pytest.mark.parametrize("memory_format", FORMATS)
def test_out_is_used_again_and_right(memory_format, served):
    """Ten batches through one canvas: some patches stay in their cell, most move."""
    canvas, options = None, {"mean": MEAN, "std": STD, "memory_format": memory_format}
    for seed in range(10):
        images, locations = (t.to(served) for t in sample(seed, grid_size=2))
        result = gpe.place_on_grid(images, locations, 2, out=canvas, **options)
        assert canvas is None or result is canvas
        assert torch.equal(result, by_reference(images, locations, 2, **options))
        canvas = result


CHANGES = {
    "another grid of the same canvas": ({"height": 6, "width": 6, "grid_size": 3}, {}),
    "a larger grid": ({"height": 9, "width": 9, "grid_size": 4}, {}),
    "another dtype": ({}, {"dtype": torch.float64}),
    "another memory format": ({}, {"memory_format": torch.channels_last}),
    "a smaller batch": ({"count": 3}, {}),
    "other channels": ({"channels": 1}, {}),
}


@pytest.mark.parametrize(("shape", "options"), CHANGES.values(), ids=CHANGES)
def test_out_is_right_when_the_caller_changes_something(shape, options, served):
    size = {"height": 9, "width": 9, "grid_size": 2}
    images, locations = (t.to(served) for t in sample(**size))
    canvas = gpe.place_on_grid(images, locations, 2)
    size = {**size, **shape}
    for seed in (1, 2):
        images, locations = (t.to(served) for t in sample(seed, **size))
        canvas = gpe.place_on_grid(images, locations, size["grid_size"], out=canvas, **options)
        expected = by_reference(images, locations, size["grid_size"], **options)
        assert torch.equal(canvas, expected)
        assert canvas.dtype == expected.dtype
        assert canvas.stride() == expected.stride()


TAMPERED = {
    "changed in place": lambda canvas: canvas.add_(1),
    "changed through a view": lambda canvas: canvas[0].fill_(7),
    "changed under inference mode": lambda canvas: torch.inference_mode()(canvas.fill_)(7),
    "locations changed": lambda canvas: None,
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_out_is_right_when_somebody_wrote_to_it(tamper, served):
    images, locations = (t.to(served) for t in sample())
    canvas = gpe.place_on_grid(images, locations, 3)
    tamper(canvas)
    locations.fill_(4)
    assert gpe.place_on_grid(images, locations, 3, out=canvas) is canvas
    assert torch.equal(canvas, by_reference(images, locations, 3))


def test_out_may_be_any_tensor(served):
    images, locations = (t.to(served) for t in sample())
    expected = by_reference(images, locations, 3)
    canvas = torch.full_like(expected, 7)
    assert gpe.place_on_grid(images, locations, 3, out=canvas) is canvas
    assert torch.equal(canvas, expected)
    half = gpe.place_on_grid(*(t.to(served) for t in sample(count=10)), 3)[5:]
    assert torch.equal(gpe.place_on_grid(images, locations, 3, out=half), expected)


def write_by_dlpack(canvas):
    torch.from_dlpack(canvas.detach()).fill_(7)


UNSEEN = {
    "through .data": lambda canvas: canvas.data.fill_(7),
    "through numpy": lambda canvas: canvas.detach().cpu().numpy().fill(7),
    "through DLPack": write_by_dlpack,
    "one pixel through .data": lambda canvas: canvas.data[0, 0, 0, 0].fill_(7),
}


@pytest.mark.parametrize("write", UNSEEN.values(), ids=UNSEEN)
def test_out_is_right_whatever_was_written_unseen(write, served):
    images, locations = (t.to(served) for t in sample())
    canvas = gpe.place_on_grid(images, locations, 3)
    write(canvas)
    for out in (canvas, copy.copy(canvas), copy.deepcopy(canvas)):
        assert gpe.place_on_grid(images, locations.flip(0), 3, out=out) is out
        assert torch.equal(out, by_reference(images, locations.flip(0), 3))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_placed_says_what_out_holds(memory_format, served):
    """Only the cells that change are touched: a mark elsewhere stays."""
    images, locations = (t.to(served) for t in sample())
    place = partial(gpe.place_on_grid, images, grid_size=3, memory_format=memory_format)
    canvas, moved = place(locations=locations), (locations + 1) % 9
    assert place(locations=moved, out=canvas, placed=locations) is canvas
    assert torch.equal(canvas, by_reference(images, moved, 3))
    rows, columns = (
        slice(int(n) * side, int(n + 1) * side)
        for n, side in (((moved[0] + 3) % 9 // 3, 7), ((moved[0] + 3) % 3, 9))
    )
    canvas[0, :, rows, columns] = 7
    place(locations=moved, out=canvas, placed=moved)
    assert canvas[0, :, rows, columns].eq(7).all()


def test_images_and_locations_may_overlap_out(served):
    images, locations = (t.to(served) for t in sample(channels=1, height=4, width=4, grid_size=2))
    canvas = gpe.place_on_grid(images, locations, 2, dtype=torch.float64)
    inside = canvas[:, :, 2:6, 2:6]
    assert inside.untyped_storage().data_ptr() == canvas.untyped_storage().data_ptr()
    where = canvas.view(torch.int64)[:, 0, 0, 0].copy_(locations)
    expected = by_reference(inside.clone(), locations, 2)
    result = gpe.place_on_grid(inside, where, 2, out=canvas)
    assert result is canvas and torch.equal(canvas, expected)


def test_out_tells_autograd_that_it_changed(served):
    """A canvas that a backward pass still needs must not change unnoticed."""
    images, locations = (t.to(served) for t in sample())
    canvas = gpe.place_on_grid(images, locations, 3)
    weight = torch.ones((), device=served, requires_grad=True)
    product = (canvas * weight).sum()
    gpe.place_on_grid(images, locations, 3, out=canvas)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_out_where_gradients_are_off(served):
    images, locations = (t.to(served) for t in sample(dtype=torch.float32))
    canvas = gpe.place_on_grid(images, locations, 3)
    with torch.no_grad():
        moved = gpe.place_on_grid(images.requires_grad_(), locations, 3, out=canvas)
    assert moved is canvas and not moved.requires_grad


def test_out_under_inference_mode(served):
    images, locations = (t.to(served) for t in sample())
    expected = by_reference(images, locations, 3)
    canvas = gpe.place_on_grid(images, locations.flip(0), 3)
    with torch.inference_mode():
        assert torch.equal(gpe.place_on_grid(images, locations, 3, out=canvas), expected)
        fresh = gpe.place_on_grid(images, locations.flip(0), 3)
        assert torch.equal(gpe.place_on_grid(images, locations, 3, out=fresh), expected)
    assert torch.equal(gpe.place_on_grid(images, locations, 3, out=canvas), expected)


# Dtypes


def test_default_dtype_follows_images_then_autocast(device):
    images, locations = (t.to(device) for t in sample())
    place = partial(gpe.place_on_grid, locations=locations, grid_size=3)
    assert place(images).dtype == torch.float32
    assert place(images.half()).dtype == torch.float16
    with torch.autocast(device, torch.bfloat16):
        assert place(images).dtype == torch.bfloat16
        assert place(images.double()).dtype == torch.float64
        assert place(images, dtype=torch.float32).dtype == torch.float32


# Gradient


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradient(memory_format, served, interpreted):
    # The interpreter would take a minute for more.
    grid, count, height, width = (2, 1, 1, 2) if interpreted else (3, 2, 2, 3)
    size = {"count": count, "height": height, "width": width, "grid_size": grid}
    images, locations = sample(**size, dtype=torch.float64)
    images, locations = images.to(served).requires_grad_(), locations.to(served)

    def place(images):
        return gpe.place_on_grid(
            images, locations, grid, mean=MEAN, std=STD, memory_format=memory_format
        )

    assert torch.autograd.gradcheck(place, (images,))
    assert torch.autograd.gradgradcheck(place, (images,))


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_has_the_dtype_of_the_images(dtype, served):
    images, locations = (t.to(served) for t in sample(dtype=dtype))
    images.requires_grad_()
    gpe.place_on_grid(images, locations, 3, std=0.5, dtype=torch.float32).sum().backward()
    assert images.grad.dtype == dtype
    assert images.grad.eq(2).all()


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", (False, True))
@pytest.mark.parametrize("channels_last", (False, True))
def test_opcheck(compiled, channels_last, requires_grad):
    images, locations = (t.to(compiled) for t in sample(dtype=torch.float32))
    images.requires_grad_(requires_grad)
    scale, shift = torch.full((2, 3), 0.5, device=compiled)
    opcheck(
        torch.ops.gpe.place_on_grid,
        (images, locations, 3, scale, shift, torch.float32, channels_last),
    )
    if not requires_grad:
        canvas = gpe.place_on_grid(images, locations, 3)
        opcheck(
            torch.ops.gpe.place_on_grid_,
            (canvas, locations, images, locations.flip(0), 3, scale, shift),
        )


@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compile_fullgraph(compiler, served):
    @partial(torch.compile, fullgraph=True, backend=compiler)
    def compiled(images, locations):
        return gpe.place_on_grid(images, locations, 3, mean=MEAN, std=STD) * 2

    images, locations = (t.to(served) for t in sample())
    expected = gpe.place_on_grid(images, locations, 3, mean=MEAN, std=STD) * 2
    torch.testing.assert_close(compiled(images, locations), expected, rtol=0, atol=1e-6)


def test_compile_with_gradient(served):
    @partial(torch.compile, fullgraph=True, backend="aot_eager")
    def compiled(images, locations):
        return gpe.place_on_grid(images, locations, 3, std=STD).square().sum()

    images, locations = (t.to(served) for t in sample(dtype=torch.float32))
    images.requires_grad_()
    compiled(images, locations).backward()
    expected = 2 * images / torch.tensor(STD, device=served).view(3, 1, 1) ** 2
    torch.testing.assert_close(images.grad, expected.detach())


def test_compile_with_out_leaves_no_stale_state(served):
    """A compiled call writes the whole canvas; an eager one after it must know."""

    @partial(torch.compile, fullgraph=True, backend="aot_eager")
    def compiled(images, locations, out):
        return gpe.place_on_grid(images, locations, 3, out=out)

    batches = [[t.to(served) for t in sample(seed)] for seed in range(3)]
    canvas = gpe.place_on_grid(*batches[0], 3)
    assert torch.equal(compiled(*batches[1], canvas), by_reference(*batches[1], 3))
    assert torch.equal(canvas, by_reference(*batches[1], 3))
    canvas = gpe.place_on_grid(*batches[2], 3, out=canvas)
    assert torch.equal(canvas, by_reference(*batches[2], 3))


def test_inside_a_captured_graph(captured):
    """Replays with other images and locations; the canvas keeps track of its patches."""
    images, locations = (t.cuda() for t in sample())
    canvas = gpe.place_on_grid(images, locations, 3, mean=MEAN)

    def place(out):
        return gpe.place_on_grid(images, locations, 3, mean=MEAN, out=out)

    graph, (canvas, fresh) = captured(lambda: (place(canvas), place(None)))
    for seed in range(3):
        new_images, new_locations = sample(seed)
        images.copy_(new_images)
        locations.copy_(new_locations)
        graph.replay()
        expected = by_reference(images, locations, 3, mean=MEAN)
        assert torch.equal(canvas, expected)
        assert torch.equal(fresh, expected)


# Errors

IMAGES, LOCATIONS = sample()
WRONG = {
    "images: expected shape": {"images": IMAGES[0]},
    "images: expected uint8 or floating point, got torch.int32": {"images": IMAGES.int()},
    "locations: expected torch.int64, got torch.float32": {"locations": LOCATIONS.float()},
    r"locations: expected shape \[5\].* got \[4\]": {"locations": LOCATIONS[:4]},
    r"locations: expected shape \[5\].* got \[5, 1\]": {"locations": LOCATIONS[:, None]},
    "grid_size: expected an integer of at least 1, got 0": {"grid_size": 0},
    "grid_size: .* got 3.0": {"grid_size": 3.0},
    "mean: .* each of 3 channels, got 2": {"mean": (0.5, 0.5)},
    "std: expected no zeros": {"std": (1, 0, 1)},
    "dtype: expected a floating-point dtype, got torch.uint8": {"dtype": torch.uint8},
    "memory_format: expected": {"memory_format": torch.channels_last_3d},
    "out: expected None": {
        "images": IMAGES.float().requires_grad_(),
        "out": torch.zeros(5, 3, 21, 27),
    },
}


@pytest.mark.parametrize(("message", "change"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, change):
    arguments = {"images": IMAGES, "locations": LOCATIONS, "grid_size": 3, **change}
    with pytest.raises(gpe.InputError, match=message):
        gpe.place_on_grid(**arguments)


@pytest.mark.parametrize("wrong", (-1, 9, 2**40))
def test_location_outside_the_grid(wrong, served):
    if served == "cuda":
        pytest.skip("a device-side assertion: see the next test")
    locations = LOCATIONS.clone()
    locations[2] = wrong
    with pytest.raises(ValueError, match=f"cells from 0 to 8, got {wrong} at index 2"):
        gpe.place_on_grid(IMAGES, locations, 3)
    canvas = gpe.place_on_grid(IMAGES, LOCATIONS, 3)
    with pytest.raises(ValueError, match=f"got {wrong} at index 2"):
        gpe.place_on_grid(IMAGES, locations, 3, out=canvas)
    assert torch.equal(canvas, gpe.place_on_grid(IMAGES, LOCATIONS, 3))


@needs_gpu
@pytest.mark.parametrize("name", ("compiled", "triton", "reference"))
def test_location_outside_the_grid_on_a_gpu(name, monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", name)
    images = "torch.zeros(1, 1, 4, 4, device='cuda')"
    place = f"gpe.place_on_grid({images}, torch.tensor([9], device='cuda'), 3)"
    assert "grid" in complaint_of_a_gpu(place)


UNSAFE = {
    "images: expected 4 dimensions": lambda i, w, s: (i[0], w, 3, s, s),
    "locations: expected shape": lambda i, w, s: (i, w[:2], 3, s, s),
    "locations: expected Long": lambda i, w, s: (i, w.int(), 3, s, s),
    "scale: expected shape": lambda i, w, s: (i, w, 3, s[:2], s),
    "shift: expected Float": lambda i, w, s: (i, w, 3, s, s.double()),
    "grid_size: expected at least 1": lambda i, w, s: (i, w, 0, s, s),
}


@compiled_for_cpu
@pytest.mark.parametrize(("message", "arguments"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, arguments):
    images, locations, scale = *sample(), torch.ones(3)
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.gpe.place_on_grid(*arguments(images, locations, scale), torch.float32, False)
    with pytest.raises(ValueError, match="canvas: expected a contiguous"):
        canvas = torch.zeros(5, 3, 42, 27)[:, :, ::2]
        torch.ops.gpe.place_on_grid_(canvas, locations, images, locations, 3, scale, scale)


def test_backward_of_the_reference_takes_the_cells_out():
    images, locations = sample(dtype=torch.float64)
    canvas = loop(images, locations, 3, (0, 0, 0), (1, 1, 1), torch.float64)
    assert torch.equal(reference.place_on_grid_backward(canvas, locations, 3), images)
