"""RegionIoU: the paper's procedure in NumPy says what is right; batches, processes, errors."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

import gpe
from gpe.errors import InputError
from gpe.metrics import class_iou, mean_iou, resolve_regions

CLASSES = 6
COLUMNS = {"full": (0, 40), "left": (0, 20), "centre": (10, 30), "right": (20, 40)}


def sample(count=7, height=12, width=40):
    """Low-resolution logits and labels like them; class 4 is right, class 5 nowhere."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, CLASSES, height // 4, width // 4, generator=generator)
    logits[:, 4, :, : width // 8] = logits[:, 5] = -9
    noisy = logits + torch.randn(logits.shape, generator=generator) / 2
    noisy[:, 4, :, : width // 8] = noisy[:, 5] = -9
    labels = F.interpolate(noisy, (height, width), mode="nearest").argmax(1)
    ignored = torch.rand(labels.shape, generator=generator) < 0.1
    return logits, labels.masked_fill(ignored, 255)


def papers_procedure(logits, labels, columns):
    """mIoU of some columns: outside, prediction and label are the unlabelled class; image by image.

    Classes that neither has are NaN and left out.
    """
    confusion = np.zeros((CLASSES, CLASSES))
    for image, label in zip(logits, labels.numpy().copy(), strict=True):
        large = F.interpolate(image[None], label.shape, mode="bilinear", align_corners=False)
        prediction = large[0].argmax(0).numpy().copy()
        outside = np.ones(label.shape, dtype=bool)
        outside[:, slice(*columns)] = False
        prediction[outside] = label[outside] = 255
        mask = (label >= 0) & (label < CLASSES)
        pairs = CLASSES * label[mask] + prediction[mask]
        confusion += np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    with np.errstate(invalid="ignore"):
        hits = np.diag(confusion)
        return np.nanmean(hits / (confusion.sum(1) + confusion.sum(0) - hits))


# The same number as the paper's procedure


@pytest.fixture(scope="module")
def expected():
    found = {name: papers_procedure(*sample(), columns) for name, columns in COLUMNS.items()}
    assert len(set(found.values())) == 4 and all(0.1 < value < 0.9 for value in found.values())
    return pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("batch_size", (1, 3, 7))
def test_the_papers_procedure_gives_these_numbers(expected, batch_size):
    metric = gpe.RegionIoU(CLASSES)
    for logits, labels in zip(*(part.split(batch_size) for part in sample()), strict=True):
        metric.update(logits, labels)
    assert metric.compute() == expected


def test_predictions_give_the_numbers_of_their_logits(expected):
    logits, labels = sample()
    predictions = F.interpolate(logits, labels.shape[1:], mode="bilinear").argmax(1)
    metric = gpe.RegionIoU(CLASSES)
    metric.update(predictions.to(torch.uint8), labels.to(torch.uint8))
    assert metric.compute() == expected


def test_pixels_are_added_up_before_anything_is_divided(expected):
    """A mean over images is another number."""
    values = []
    for logits, labels in zip(*(part.split(1) for part in sample()), strict=True):
        metric = gpe.RegionIoU(CLASSES)
        metric.update(logits, labels)
        values.append(metric.compute()["full"])
    assert sum(values) / len(values) != pytest.approx(expected.expected["full"], rel=1e-3)


def test_forward_adds_a_batch_and_returns_it_alone(expected):
    metric, alone = gpe.RegionIoU(CLASSES), gpe.RegionIoU(CLASSES)
    batches = list(zip(*(part.split(3) for part in sample()), strict=True))
    found = [metric(*batch) for batch in batches]
    assert metric.compute() == expected
    alone.update(*batches[1])
    assert found[1] == alone.compute()


def test_parts_can_be_saved_and_merged_and_reset(expected):
    logits, labels = sample()
    parts = [gpe.RegionIoU(CLASSES) for _ in range(2)]
    for part, metric in enumerate(parts):
        metric.update(logits[part::2], labels[part::2])
    merged = pickle.loads(pickle.dumps(parts[0]))
    merged.merge_state(parts[1])
    assert merged.compute() == expected
    merged.reset()
    merged.update(logits, labels)
    assert merged.compute() == expected


def test_two_processes_give_the_number_of_one(expected, tmp_path):
    """Unequal shards in other batches, summed by gloo; IoUs of classes too."""
    run = {"args": (tmp_path,), "nprocs": 2, "start_method": "fork"}
    torch.multiprocessing.start_processes(one_of_two, **run)
    whole = gpe.RegionIoU(CLASSES)
    whole.update(*sample())
    for rank in range(2):
        mean, classes = torch.load(tmp_path / f"{rank}.pt")
        assert mean == expected
        torch.testing.assert_close(classes, whole.class_iou(), equal_nan=True, rtol=0, atol=0)


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    metric = gpe.RegionIoU(CLASSES)
    mine = slice(0, 2) if rank else slice(2, None)
    for logits, labels in zip(*(part[mine].split(1 + rank) for part in sample()), strict=True):
        metric.update(logits, labels)
    torch.save((metric.compute(), metric.class_iou()), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_number_of_the_cpu(expected):
    metric = gpe.RegionIoU(CLASSES).to("cuda")
    metric.update(*(part.cuda() for part in sample()))
    assert metric.compute() == expected


# Classes


def test_classes_that_neither_has_are_left_out():
    metric = gpe.RegionIoU(CLASSES)
    metric.update(*sample())
    left, full = metric.class_iou()["left"], metric.class_iou()["full"]
    assert left.isnan().tolist() == [False] * 4 + [True, True]
    assert full.isnan().tolist() == [False] * 5 + [True]
    assert metric.compute()["left"] == pytest.approx(left[:4].mean().item())


def test_a_class_that_only_predictions_have_counts_as_missed():
    confusion = torch.tensor([[2, 2, 0], [0, 0, 0], [0, 0, 0]])
    assert class_iou(confusion)[:2].tolist() == [0.5, 0]
    assert mean_iou(confusion).item() == 0.25


def test_a_region_without_labels_has_no_number():
    labels = torch.full((1, 4, 4), 255)
    labels[..., 2:] = 1
    metric = gpe.RegionIoU(2, regions=("left", "right"))
    metric.update(torch.ones_like(labels), labels)
    assert str(metric.compute()) == "{'left': nan, 'right': 1.0}"


@pytest.mark.parametrize("ignored", (0, 2))
def test_an_ignored_class_has_no_number_as_in_torchmetrics(ignored):
    logits, labels = sample()
    labels = labels.where(labels != 255, ignored)
    metric = gpe.RegionIoU(CLASSES, regions="full", ignore_index=np.int64(ignored))
    metric.update(logits, labels)
    predictions = F.interpolate(logits, labels.shape[1:], mode="bilinear").argmax(1)
    options = {"num_classes": CLASSES, "ignore_index": ignored, "average": "none"}
    theirs = MulticlassJaccardIndex(**options)(predictions, labels)
    ours = metric.class_iou()["full"]
    assert ours[ignored].isnan() and metric.compute()["full"] == ours.nanmean()
    kept = [label for label in range(5) if label != ignored]
    torch.testing.assert_close(ours[kept].float(), theirs[kept])


def test_metrics_in_a_collection_keep_their_own_states():
    """The first batch has the same numbers left and right, the second has not."""
    both = MetricCollection(
        {name: gpe.RegionIoU(2, regions=(name,)) for name in ("left", "right")}
        | {"ignoring": gpe.RegionIoU(2, regions=("left",), ignore_index=1)}
        | {"again": gpe.RegionIoU(2, regions=("left",))}
    )
    labels = torch.zeros(1, 2, 4, dtype=torch.int64)
    both.update(labels, labels)
    labels[..., :2] = 1
    both.update(torch.zeros_like(labels), labels)
    alone = {name: gpe.RegionIoU(2, regions=(name,)) for name in ("left", "right")}
    for metric in alone.values():
        metric.update(torch.zeros_like(labels), torch.zeros_like(labels))
        metric.update(torch.zeros_like(labels), labels)
    assert both["right"].compute() == alone["right"].compute() == {"right": 1.0}
    assert both["left"].compute() == both["again"].compute() == alone["left"].compute()
    assert alone["left"].compute()["left"] == 0.25 and both["ignoring"].compute()["left"] == 1.0
    assert len(both.compute_groups) == 3, "equal ones may share"


def test_numpys_integers_are_counts():
    metric = gpe.RegionIoU(np.int64(2), ignore_index=np.uint8(255))
    metric.update(torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4).long())
    assert metric.compute()["full"] == 1 and type(metric.num_classes) is int


def test_means_are_taken_over_any_leading_dimensions():
    confusion = torch.randint(0, 9, (3, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    found = mean_iou(confusion)
    assert found.dtype == torch.float64
    for i, j in np.ndindex(3, 2):
        assert found[i, j] == mean_iou(confusion[i, j])


# Regions


def test_rectangles_of_any_name():
    logits, labels = sample()
    regions = {"sky": (0, 0, 4, 40), "left": (0, 0, 12, 20), "one pixel": (11, 39, 12, 40)}
    metric = gpe.RegionIoU(CLASSES, regions=regions)
    metric.update(logits, labels)
    found = metric.compute()
    assert list(found) == list(regions)
    assert found["left"] == pytest.approx(papers_procedure(logits, labels, (0, 20)))
    labels[:, 4:] = 255
    assert found["sky"] == pytest.approx(papers_procedure(logits, labels, (0, 40)))


def test_names_fit_images_of_any_size():
    metric = gpe.RegionIoU(2, regions="left")
    for width in (4, 7, 10):
        labels = torch.zeros(1, 3, width, dtype=torch.int64)
        metric.update(labels, labels)
    assert metric.confusion[0, 0, 0] == 3 * (2 + 3 + 5)


def test_names_are_the_papers_columns():
    assert resolve_regions(("right", "full", "left", "centre"), 5, 10) == {
        "right": (0, 5, 5, 10),
        "full": (0, 0, 5, 10),
        "left": (0, 0, 5, 5),
        "centre": (0, 2, 5, 7),
    }


@pytest.mark.parametrize(
    ("regions", "message"),
    (
        ((), "regions: expected one or more, got none"),
        ({}, "regions: expected one or more, got none"),
        (("left", "top"), "regions: expected each of full, left, centre, right .* got 'top'"),
        (("left", "left"), "regions: expected each of .* at most once, .* got 'left'"),
        ({"a": (0, 0, 5, 11)}, r"regions: a: .* inside an image of 5×10, got \(0, 0, 5, 11\)"),
        ({"a": (2, 0, 2, 9)}, r"regions: a: .* with pixels, .* got \(2, 0, 2, 9\)"),
        ({"a": "left"}, "regions: a: expected four integers .*, got 'left'"),
    ),
)
def test_wrong_regions_are_named(regions, message):
    with pytest.raises(InputError, match=message):
        resolve_regions(regions, 5, 10)


def test_an_image_too_narrow_for_a_region():
    with pytest.raises(InputError, match=r"regions: left: .* 5×1, got \(0, 0, 5, 0\)"):
        resolve_regions("left", 5, 1)


def test_labels_that_are_no_class_are_named():
    logits, labels = sample()
    labels[3, 2, 1] = 17
    metric = gpe.RegionIoU(CLASSES)
    with pytest.raises(InputError, match=r"labels: .* got 17 at \[3, 2, 1\]"):
        metric.update(logits, labels)
    assert metric.confusion.sum() == 0


@pytest.mark.parametrize("number", (0, -1, 2.5))
def test_a_wrong_number_of_classes_is_named(number):
    with pytest.raises(InputError, match="num_classes: expected an integer of at least 1"):
        gpe.RegionIoU(number)
