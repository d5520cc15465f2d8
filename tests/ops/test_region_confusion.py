"""region_confusion: a loop over pixels says what is right, and every implementation counts it."""

from functools import partial
from itertools import product

import pytest
import torch
from torch.library import opcheck

import gpe
from tests.conftest import WITHOUT_TRITON
from tests.ops.conftest import (
    assert_same_bits,
    compiled_for_cpu,
    largest_allocation,
    with_reference,
)
from tests.ops.maps import FLOATS, LAYOUTS

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)

# Of images of 12×16: they overlap, one lies within another, one is a pixel.
REGIONS = [(0, 0, 12, 16), (0, 0, 12, 8), (3, 4, 9, 12), (5, 6, 6, 7), (0, 8, 12, 16)]

without_triton = pytest.mark.parametrize("served", WITHOUT_TRITON, indirect=True, ids="-".join)


def sample(seed=0, *, count=2, classes=5, low=(3, 4), high=(12, 16), device="cpu"):
    """Logits and labels, of which one in six is to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, *low, generator=generator)
    labels = torch.randint(0, classes, (count, *high), generator=generator)
    ignored = torch.rand(labels.shape, generator=generator) < 1 / 6
    return logits.to(device), labels.masked_fill(ignored, 100).to(device)


def loop(logits, labels, regions, classes, ignore_index):
    """Pixel by pixel in float64, as the definition reads."""
    confusion = torch.zeros(len(regions), classes, classes, dtype=torch.int64)
    size = labels.shape[1:]
    predictions = upsampled(logits.cpu(), size) if logits.is_floating_point() else logits.tolist()
    labels = labels.cpu().long()
    for number, (top, left, bottom, right) in enumerate(regions):
        for n, y, x in product(range(len(labels)), range(top, bottom), range(left, right)):
            if labels[n, y, x] != ignore_index:
                confusion[number, labels[n, y, x], predictions[n][y][x]] += 1
    return confusion


def upsampled(logits, size):
    """The first of the largest bilinear means at each pixel, as nested lists."""
    logits = logits.double()

    def between(target, targets, sources):
        position = max(0, (target + 0.5) * sources / targets - 0.5)
        low = min(int(position), sources - 1)
        return low, min(low + 1, sources - 1), position - int(position)

    def winner(image, y, x):
        top, bottom, down = between(y, size[0], image.shape[1])
        left, right, across = between(x, size[1], image.shape[2])
        upper = (1 - across) * image[:, top, left] + across * image[:, top, right]
        lower = (1 - across) * image[:, bottom, left] + across * image[:, bottom, right]
        values = ((1 - down) * upper + down * lower).tolist()
        return values.index(max(values))

    return [
        [[winner(image, y, x) for x in range(size[1])] for y in range(size[0])] for image in logits
    ]


def assert_right(logits, labels, regions=REGIONS, *, classes=5, ignore_index=100):
    confusion = gpe.region_confusion(
        logits, labels, regions, num_classes=classes, ignore_index=ignore_index
    )
    assert confusion.dtype == torch.int64 and confusion.device == labels.device
    assert torch.equal(confusion.cpu(), loop(logits, labels, regions, classes, ignore_index))
    return confusion


# Values


@without_triton
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_logits_of_any_dtype_and_layout(dtype, layout, served):
    logits, labels = sample(device=served)
    assert_right(layout(logits.to(dtype)), labels)


@without_triton
@pytest.mark.parametrize("dtype", (*INTEGERS, *UNSIGNED))
def test_labels_and_predictions_of_any_integer_dtype(dtype, served):
    logits, labels = sample(device=served)
    confusion = assert_right(logits, labels.to(dtype))
    predictions = torch.tensor(upsampled(logits.cpu(), (12, 16)), device=served)
    assert torch.equal(confusion, assert_right(predictions.to(dtype), labels))
    assert torch.equal(confusion, assert_right(predictions, labels.to(dtype)))


@without_triton
@pytest.mark.parametrize(
    "layout",
    (
        lambda maps: maps.mT.contiguous().mT,
        lambda maps: maps.repeat_interleave(2, 2)[:, :, ::2],
        lambda maps: maps.repeat_interleave(3, 1)[:, ::3],
        lambda maps: maps[:1].expand(maps.shape),
        lambda maps: maps[:, :, :1].expand(maps.shape),
    ),
    ids=("transposed", "every other column", "every third row", "one image", "one column"),
)
def test_labels_and_predictions_of_any_layout(layout, served):
    logits, labels = sample(device=served)
    assert_right(logits, layout(labels))
    assert_right(layout(labels.clamp(max=4)), layout(labels))


# Edges

SIZES = {
    "as large": ((3, 4), (3, 4)),
    "twice": ((3, 4), (6, 8)),
    "16 times": ((2, 3), (32, 48)),
    "by odd factors": ((3, 2), (9, 10)),
    "by no whole factor": ((4, 5), (7, 19)),
    "smaller": ((9, 11), (4, 3)),
    "smaller by half": ((8, 8), (4, 4)),
    "taller and narrower": ((2, 9), (21, 4)),
    "from one pixel": ((1, 1), (5, 37)),
    "from one row": ((1, 5), (6, 17)),
    "to one pixel": ((4, 6), (1, 1)),
    "wider than a block": ((2, 40), (3, 300)),
}


@without_triton
@pytest.mark.parametrize(("low", "high"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_sizes(dtype, low, high, served):
    logits, labels = sample(low=low, high=high, device=served)
    height, width = high
    regions = [(0, 0, height, width), (height // 2, width // 3, height, width)]
    assert_right(logits.to(dtype), labels, regions)


@without_triton
@pytest.mark.parametrize("classes", (1, 2, 19, 254, 300))
def test_number_of_classes(classes, served):
    logits, labels = sample(classes=classes, device=served)
    labels[labels == 100] = 7000
    assert_right(logits, labels, REGIONS[:2], classes=classes, ignore_index=7000)


@without_triton
def test_ties_go_to_the_first_class(served):
    """Logits and weights with few bits leave no rounding: many pixels have several winners."""
    for seed in range(3):
        logits, labels = sample(seed, low=(3, 4), high=(24, 32), device=served)
        regions = [(0, 0, 24, 32), (7, 3, 20, 21)]
        assert_right(logits.sign(), labels, regions)
        assert_right(torch.zeros_like(logits), labels, regions)


@without_triton
def test_random_logits_at_full_size_differ_in_no_pixel_but_for_rounding(served):
    """One pixel in a million, at most; of half a million that is one."""
    for smooth in (True, False):
        logits, labels = sample(1, classes=19, low=(32, 64), high=(512, 1024), device=served)
        labels[:, 100:300, 200:700] = 3
        if smooth:
            logits[:] = torch.nn.functional.interpolate(logits[:, :, :4, :8], (32, 64), mode="area")
        full, half = (0, 0, 512, 1024), (0, 512, 512, 1024)
        found = gpe.region_confusion(logits, labels, [full, half], num_classes=19, ignore_index=100)
        wide = torch.nn.functional.interpolate(logits.double(), (512, 1024), mode="bilinear")
        pairs = (labels * 19 + wide.argmax(1))[..., 512:][labels[..., 512:] != 100]
        expected = torch.bincount(pairs, minlength=361).view(19, 19)
        assert found[0].sum() == (labels != 100).sum()
        assert (found[1] - expected).abs().sum() <= 2


@without_triton
def test_many_regions(served):
    logits, labels = sample(device=served)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(70, 2, 2, generator=generator).sort(1).values  # [R,(first,last),(y,x)]
    first = (corners[:, 0] * torch.tensor([12, 16])).long()
    last = (corners[:, 1] * torch.tensor([12, 16])).long() + 1
    assert_right(logits, labels, torch.cat([first, last], 1).tolist())


@without_triton
def test_regions_that_leave_rows_and_columns_out(served):
    logits, labels = sample(device=served)
    assert_right(logits, labels, [(2, 3, 4, 5), (2, 9, 4, 10), (8, 1, 9, 2)])
    assert_right(labels.clamp(max=4), labels, [(11, 15, 12, 16)])


@without_triton
@pytest.mark.parametrize("count", (0, 1, 5))
def test_batches(count, served):
    logits, labels = sample(count=count, device=served)
    assert_right(logits, labels)
    assert_right(labels.clamp(max=4), labels)


# What is ignored


@without_triton
@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    (
        (torch.uint8, 255),
        (torch.uint8, 5),
        (torch.int8, -1),
        (torch.int8, -128),
        (torch.int16, -100),
        (torch.int32, -1),
        (torch.int64, -(2**63)),
        (torch.int64, 2**40),
        (torch.uint16, 65535),
        (torch.uint32, 2**32 - 1),
        (torch.uint64, 2**40),
    ),
)
def test_any_number_can_be_ignored(dtype, ignore_index, served):
    logits, labels = sample(device=served)
    labels = labels.masked_fill(labels == 100, ignore_index).to(dtype)
    confusion = assert_right(logits, labels, ignore_index=ignore_index)
    assert 0 < confusion[0].sum() < labels.numel()


@without_triton
@pytest.mark.parametrize("ignore_index", (0, 4))
def test_a_class_can_be_ignored(ignore_index, served):
    logits, labels = sample(device=served)
    labels[labels == 100] = 1
    confusion = assert_right(logits, labels, ignore_index=ignore_index)
    assert confusion[:, ignore_index].sum() == 0 < confusion[0, :, ignore_index].sum()


@without_triton
@pytest.mark.parametrize("dtype", (*INTEGERS, *UNSIGNED))
@pytest.mark.parametrize("ignore_index", (-1, -(2**63), 2**40, 300))
def test_an_ignore_index_that_no_label_can_have(ignore_index, dtype, served):
    logits, labels = sample(device=served)
    assert_right(logits, labels.clamp(max=4).to(dtype), ignore_index=ignore_index)


@without_triton
def test_all_may_be_ignored(served):
    logits, labels = sample(device=served)
    assert assert_right(logits, torch.full_like(labels, 100)).sum() == 0


@without_triton
def test_predictions_of_ignored_pixels_may_be_anything(served):
    _, labels = sample(device=served)
    predictions = labels.clone()
    assert (predictions == 100).any()
    assert_right(predictions, labels)


# Memory, order, strides


@without_triton
def test_no_logits_of_the_labels_size(served):
    if gpe.ops.backend.choose(served) == "reference":
        pytest.skip("plain PyTorch makes them")
    logits, labels = sample(classes=19, low=(8, 16), high=(256, 512), device=served)
    count = partial(gpe.region_confusion, num_classes=19, ignore_index=100)
    largest, _ = largest_allocation(count, logits, labels, [(0, 0, 256, 512)])
    assert largest < labels.numel()


@without_triton
def test_the_same_counts_twice_and_with_more_threads(served):
    logits, labels = sample(count=3, low=(9, 20), high=(90, 301), device=served)
    regions = [(0, 0, 90, 301), (10, 20, 30, 200)]
    count = partial(gpe.region_confusion, num_classes=5, ignore_index=100)
    assert_same_bits(count, logits, labels, regions)


def test_indices_past_two_to_the_31(far_apart):
    """Of the labels too."""
    far_apart[-1, -1, -1, -1] = 4
    labels = torch.empty(2**31 + 64, dtype=torch.uint8, device=far_apart.device)
    labels = labels.as_strided((2, 4, 4), (2**31, 4, 1)).fill_(1)
    assert_right(far_apart, labels, [(0, 0, 4, 4)], classes=3)


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", (False, True))
def test_opcheck(compiled, requires_grad):
    logits, labels = sample(device=compiled)
    flat = [side for region in REGIONS for side in region]
    opcheck(
        torch.ops.gpe.region_confusion, (logits.requires_grad_(requires_grad), labels, flat, 5, 100)
    )
    opcheck(torch.ops.gpe.region_confusion, (labels.clamp(max=4), labels, flat, 5, 100))


@without_triton
@pytest.mark.parametrize("compiler", ("aot_eager", "inductor"))
def test_compile_fullgraph(compiler, served):
    def step(logits, labels):
        count = partial(gpe.region_confusion, num_classes=5, ignore_index=100)
        return count(2 * logits, labels, REGIONS).sum(0)

    logits, labels = sample(device=served)
    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    assert torch.equal(compiled(logits, labels), step(logits, labels))
    labels[0, 0, 0] = 7
    if served == "cpu":  # on a GPU that would end the process
        with pytest.raises(gpe.InputError, match="labels, logits: expected classes"):
            compiled(logits, labels)


@without_triton
def test_autocast_changes_nothing(served):
    logits, labels = sample(device=served)
    with torch.autocast(served, torch.bfloat16):
        assert_right(logits, labels)


@without_triton
def test_logits_that_require_a_gradient(served):
    logits, labels = sample(device=served)
    assert not assert_right(logits.requires_grad_(), labels).requires_grad


@pytest.mark.parametrize("captured", ("compiled",), indirect=True)
def test_inside_a_captured_graph(captured):
    """Replays with other logits."""
    logits, labels = sample(device="cuda")
    count = partial(gpe.region_confusion, num_classes=5, ignore_index=100)
    graph, confusion = captured(lambda: count(logits, labels, REGIONS))
    for seed in range(3):
        logits.copy_(sample(seed)[0])
        graph.replay()
        assert torch.equal(confusion, count(logits, labels, REGIONS))


@pytest.mark.parametrize("count", (40, 700))
def test_many_overlapping_regions(count, compiled):
    """Counted one by one where their borders cut an image into more pieces than that is worth."""
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 24, (count, 4), generator=random).tolist()
    regions = [(y, x, min(32, y + 1 + h), min(32, x + 1 + w)) for y, x, h, w in corners]
    logits = torch.randn(3, 5, 8, 8, generator=random).to(compiled)
    labels = torch.randint(0, 5, (3, 32, 32), generator=random).to(compiled)
    labels[:, ::3] = 255
    for scores in (logits, logits.argmax(1).repeat_interleave(4, 1).repeat_interleave(4, 2)):
        got = gpe.region_confusion(scores, labels, regions, num_classes=5)
        expected = with_reference(gpe.region_confusion, scores, labels, regions, num_classes=5)
        assert torch.equal(got, expected)
    labels[1, 5, 5] = 9
    flat = [side for region in regions for side in region]
    wrong = torch.ops.gpe.region_confusion(logits, labels, flat, 5, 255)[1]
    assert wrong.tolist() == [int(any(y <= 5 < b and x <= 5 < r for y, x, b, r in regions)), 0, 0]


@without_triton
@pytest.mark.parametrize("wrong", (True, False))
def test_compiled_code_says_what_is_wrong_and_lives(wrong, served):
    """An assertion inside a parallel loop of Inductor's would end the process."""
    count = torch.compile(
        lambda logits, labels: gpe.region_confusion(
            logits, labels, [(0, 0, 128, 128)], num_classes=3
        ),
        fullgraph=True,
    )
    labels = torch.zeros(4, 128, 128, dtype=torch.int64, device=served)
    labels[-1, -1, -1] = 7 if wrong else 2
    logits = torch.randn(4, 3, 16, 16, device=served)
    if not wrong:
        assert count(logits, labels).sum() == labels.numel()
    elif served == "cpu":
        with pytest.raises(gpe.InputError, match="labels, logits: expected classes"):
            count(logits, labels)


# Errors

LOGITS, LABELS = sample()
WRONG = {
    "num_classes: expected an integer of at least 1, got 0": {"num_classes": 0},
    "num_classes: expected at most 32768, got 32769": {"num_classes": 32769},
    "logits: expected 4 classes, num_classes, got 5": {"num_classes": 4},
    "ignore_index: expected a 64-bit integer, got None": {"ignore_index": None},
    "ignore_index: expected a 64-bit integer, got 9223372036854775808": {"ignore_index": 2**63},
    "labels: expected integers .* got torch.float32": {"labels": LABELS.float()},
    "labels: expected integers .* got torch.bool": {"labels": LABELS.bool()},
    r"labels: expected integers \[N,H,W\], got torch.int64 \[12, 16\]": {"labels": LABELS[0]},
    "labels: expected 2 images, as many as logits, got 1": {"labels": LABELS[:1]},
    "labels: expected the device of logits, cpu, got meta": {"labels": LABELS.to("meta")},
    r"logits: expected floating point \[N,K,h,w\] or .* got torch.bool": {"logits": LOGITS > 0},
    r"logits: expected floating .* got torch.float32 \[5, 3, 4\]": {"logits": LOGITS[0]},
    r"logits: expected maps with pixels, got \[2, 5, 0, 4\]": {"logits": LOGITS[:, :, :0]},
    r"logits: expected predictions of the labels' shape, \[2, 12, 16\], got \[2, 11, 16\]": {
        "logits": LABELS[:, 1:]
    },
    "logits: expected predictions .* got .*[2, 1, 12, 16]": {"logits": LABELS[:, None]},
    r"regions: expected a sequence of one or more, got \[\]": {"regions": []},
    "regions: expected a sequence of one or more, got 'full'": {"regions": "full"},
    r"regions\[0\]: expected four integers .* got 3": {"regions": [3, 4]},
    r"regions\[1\]: expected four integers .* got \(0, 0, 1\)": {
        "regions": [(0, 0, 1, 1), (0, 0, 1)]
    },
    r"regions\[0\]: expected four integers .* got \(0, 0, 1.5, 2\)": {"regions": [(0, 0, 1.5, 2)]},
    r"regions\[1\]: .* inside an image of 12×16, got \(0, 0, 12, 17\)": {
        "regions": [(0, 0, 12, 16), (0, 0, 12, 17)]
    },
    r"regions\[0\]: .* got \(-1, 0, 12, 16\)": {"regions": [(-1, 0, 12, 16)]},
    r"regions\[0\]: .* with pixels, .* got \(4, 0, 4, 16\)": {"regions": [(4, 0, 4, 16)]},
    r"regions\[0\]: .* with pixels, .* got \(0, 9, 4, 3\)": {"regions": [(0, 9, 4, 3)]},
}


@pytest.mark.parametrize(("message", "arguments"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_name_themselves(message, arguments):
    right = {"logits": LOGITS, "labels": LABELS, "regions": REGIONS}
    with pytest.raises(gpe.InputError, match=message):
        gpe.region_confusion(**right | {"num_classes": 5, "ignore_index": 100} | arguments)


@without_triton
@pytest.mark.parametrize("value", (5, 99, -1))
def test_labels_that_are_no_class_are_named_and_counted(value, served):
    logits, labels = sample(device=served)
    labels[1, 2, 3] = labels[1, 7, 4] = value
    labels[0, 0, 0] = 6
    message = rf"labels: expected classes from 0 to 4, or ignore_index, 100, got {value} at "
    for first in (logits, labels.clamp(0, 4)):
        with pytest.raises(gpe.InputError, match=rf"{message}\[1, 2, 3\]; wrong pixels: 2"):
            count = partial(gpe.region_confusion, num_classes=5, ignore_index=100)
            count(first, labels.to(torch.int16), [(2, 3, 12, 10), (7, 4, 8, 9)])
    # Where nobody counts, they may be anything.
    assert_right(logits, labels, [(8, 0, 12, 16), (0, 1, 1, 2)])


@without_triton
def test_a_large_unsigned_label_is_not_taken_for_a_negative_one(served):
    logits, labels = sample(device=served)
    labels = labels.clamp(max=4).to(torch.uint8)
    labels[0, 3, 3] = 255
    with pytest.raises(gpe.InputError, match=r"labels: .* got 255 at .*; wrong pixels: 1"):
        gpe.region_confusion(logits, labels, REGIONS, num_classes=5, ignore_index=-1)


@without_triton
@pytest.mark.parametrize("value", (5, -1))
def test_predictions_that_are_no_class_are_named_and_counted(value, served):
    _, labels = sample(device=served)
    labels[1, 2, 3] = 2
    predictions = labels.clamp(max=4)
    predictions[1, 2, 3] = value
    message = (
        rf"logits: expected predictions of .* 0 to 4, got {value} at \[1, 2, 3\]; wrong pixels: 1"
    )
    with pytest.raises(gpe.InputError, match=message):
        gpe.region_confusion(predictions, labels, REGIONS, num_classes=5, ignore_index=100)


@without_triton
@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf")))
@pytest.mark.parametrize("layout", ("contiguous", "channels last", "every other column"))
def test_logits_that_are_not_finite_are_named(layout, value, served):
    logits, labels = sample(device=served)
    logits[1, 4, 2, 3] = value
    with pytest.raises(gpe.InputError, match=rf"logits: .* {value} at \[1, 4, 2, 3\]"):
        gpe.region_confusion(
            LAYOUTS[layout](logits), labels, REGIONS, num_classes=5, ignore_index=100
        )


def test_triton_has_no_kernel_for_it(monkeypatch):
    monkeypatch.setenv("GPE_BACKEND", "triton")
    if not gpe.doctor().status["cpu", "triton"].ready:
        pytest.skip("no Triton")
    with pytest.raises(gpe.InputError, match="region_confusion has no Triton kernel"):
        gpe.region_confusion(LOGITS, LABELS, REGIONS, num_classes=5, ignore_index=100)


UNSAFE = {
    "labels: expected 3 dimensions": (LOGITS, LABELS[0], [0, 0, 1, 1], 5, 100),
    "labels: expected integers": (LOGITS, LABELS.float(), [0, 0, 1, 1], 5, 100),
    "logits: expected 4 dimensions": (LOGITS[0], LABELS, [0, 0, 1, 1], 5, 100),
    "logits: expected shape": (LOGITS, LABELS, [0, 0, 1, 1], 4, 100),
    "height of logits: expected at least 1": (LOGITS[:, :, :0], LABELS, [0, 0, 1, 1], 5, 100),
    "num_classes: expected at least 1": (LOGITS, LABELS, [0, 0, 1, 1], 0, 100),
    "num_classes: expected at most": (LOGITS, LABELS, [0, 0, 1, 1], 2**20, 100),
    "regions: expected four numbers each": (LOGITS, LABELS, [0, 0, 1], 5, 100),
    "regions: expected rectangles": (LOGITS, LABELS, [0, 0, 13, 1], 5, 100),
}


@compiled_for_cpu
@pytest.mark.parametrize(("message", "arguments"), UNSAFE.items(), ids=UNSAFE)
def test_the_bare_operator_stays_inside_its_tensors(message, arguments):
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.gpe.region_confusion(*arguments)
