"""LogAverageMissRate: a plain reading of CityPersons' script says what is right."""

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import gpe
from gpe.data.citypersons import read_annotations
from gpe.errors import InputError
from gpe.metrics import log_average_miss_rate, read_detections, write_detections
from gpe.metrics.matching import SETTINGS
from tests.metrics.official_miss_rate import official

DATA = Path(os.environ.get("GPE_TEST_DATA", "no such folder"))
REAL = DATA / "citypersons" / "anno_val.mat"


def box(x=100, y=50, h=100, *, kind=1, w=None, visible=1.0):
    """An annotated box of CityPersons' form, of which the upper share is seen."""
    w = round(0.41 * h) if w is None else w
    return [kind, x, y, w, h, 24000, x, y, w, visible * h]


def truth(*rows):
    return np.array(rows, np.float64).reshape(-1, 10)


def found(*rows):
    """Detections (x, y, w, h, score)."""
    table = torch.tensor(rows, dtype=torch.float64).view(-1, 5)
    return {"boxes": table[:, :4], "scores": table[:, 4]}


def rate(preds, target, name="reasonable", images=100):
    """Of some images and so many without anything that there are 100: 1 false positive is 0.01."""
    empty = images - len(preds)
    preds, target = [*preds, *[found()] * empty], [*target, *[truth()] * empty]
    value = log_average_miss_rate(preds, target, settings=(name,), box_format="xywh")[name]
    plain = official(preds, target, SETTINGS[name])
    if images >= 100:
        assert value == pytest.approx(plain, abs=1e-9)
    return value


def mean_of(*recalls):
    """MR⁻² of recalls at the nine references."""
    return 100 * math.exp(np.mean(np.log(1 - np.array(recalls))))


ONE = (100, 50, 41, 100)  # hits box()


def cases(seed, images=120, crowd=6):
    """Crowded boxes on a coarse grid, many scores alike: ties of all kinds."""
    random = np.random.default_rng(seed)
    preds, target = [], []
    for _ in range(images):
        rows = []
        for _ in range(random.integers(0, crowd)):
            h = int(random.choice([15, 20, 40, 49, 50, 60, 75, 76, 100, 150]))
            x, y = random.integers(0, 12, 2) * 10
            visible = random.choice([0.1, 0.2, 0.5, 0.65, 0.8, 1])
            kind = random.choice([0, 1, 1, 1, 1, 2, 5])
            rows.append(box(int(x), int(y), h, kind=kind, visible=visible))
        near = []
        for row in rows * 3:
            x, y, w, h = np.array(row[1:5]) + random.choice([-10, -5, 0, 0, 5, 10], 4)
            near.append((x, y, max(w, 0), max(h, 0), random.choice([0.1, 0.3, 0.5, 0.9])))
        far = [(*(random.integers(0, 30, 2) * 10), 41, 100, 0.3)] * random.integers(0, 2)
        preds.append(found(*near, *far))
        target.append(truth(*rows))
    return preds, target


# The same number as the official script


@pytest.mark.parametrize("seed", range(8))
def test_random_cases(seed):
    preds, target = cases(seed, images=100 if seed else 150, crowd=3 + 2 * seed)
    expected = {name: official(preds, target, setting) for name, setting in SETTINGS.items()}
    assert log_average_miss_rate(preds, target, box_format="xywh") == pytest.approx(
        expected, abs=1e-9
    )
    assert len(set(expected.values())) == 4


def test_corners_are_boxes_with_their_sides():
    preds, target = cases(3)
    corners = [
        {"boxes": torch.cat([p["boxes"][:, :2], p["boxes"][:, :2] + p["boxes"][:, 2:]], 1)}
        | {"scores": p["scores"]}
        for p in preds
    ]
    expected = log_average_miss_rate(preds, target, box_format="xywh")
    assert log_average_miss_rate(corners, target) == expected


@pytest.mark.skipif(not REAL.exists(), reason="needs CityPersons: GPE_TEST_DATA")
def test_the_real_validation_set():
    target = list(read_annotations(REAL).values())
    metric = gpe.LogAverageMissRate(box_format="xywh")
    random = np.random.default_rng(0)
    preds = []
    for rows in target:
        moved = rows[:, 1:5] + random.normal(0, 0.1, (len(rows), 4)) * rows[:, 4:5]
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        preds.append(found(*np.column_stack([moved, random.random(len(rows))]).tolist()))
    metric.update(preds, target)
    counts = {"reasonable": 1579, "small": 351, "heavy": 735, "all": 2875}
    assert metric.pedestrians() == counts
    expected = {name: official(preds, target, setting) for name, setting in SETTINGS.items()}
    assert metric.compute() == pytest.approx(expected, abs=1e-9)


# Each rule by itself


def test_a_pedestrian_that_is_found_and_one_that_is_missed():
    assert rate([found((*ONE, 0.9))], [truth(box(), box(x=900))]) == pytest.approx(50)
    assert rate([found((*ONE, 0.9))], [truth(box())]) == 0


def test_recall_is_read_at_the_last_point_below_each_reference():
    """Two false positives before the second hit: it counts from 0.0316 on."""
    wrong = [(1500, 50, 41, 100, 0.8 - n / 100) for n in range(2)]
    preds = [found((*ONE, 0.9), *wrong, (900, 50, 41, 100, 0.1))]
    target = [truth(box(), box(x=900), box(x=1200), box(x=1800))]
    assert rate(preds, target) == pytest.approx(mean_of(*[1 / 4] * 2, *[1 / 2] * 7))


def test_an_overlap_of_exactly_half_is_a_hit():
    assert rate([found((100, 50, 40, 50, 1))], [truth(box(w=40))]) == 0
    assert rate([found((100, 50, 40, 49.999, 1))], [truth(box(w=40))]) == 100


def test_the_greatest_overlap_is_taken_not_the_first():
    """The first detection takes the second box, which leaves the first box to the second one."""
    target = [truth(box(x=100), box(x=108))]
    assert rate([found((108, 50, 41, 100, 0.9), (95, 50, 41, 100, 0.8))], target) == 0


def test_of_equal_overlaps_the_later_box_is_taken():
    """Between 96 and 104 at 100: the later, 104, is taken; a second one finds only its own free."""
    left, right = (90, 50, 41, 100, 0.5), (110, 50, 41, 100, 0.5)
    middle = (100, 50, 41, 100, 0.9)
    target = [truth(box(x=96), box(x=104))]
    assert rate([found(middle, left)], target) == 0
    assert rate([found(middle, right)], target) == pytest.approx(50)
    target = [truth(box(x=104), box(x=96))]
    assert rate([found(middle, left)], target) == pytest.approx(50)


def test_of_equal_scores_the_earlier_detection_and_image_come_first():
    hit, wrong = (*ONE, 0.5), (900, 50, 41, 100, 0.5)
    assert rate([found(hit, wrong, wrong)], [truth(box())]) == 0
    preds = [found(wrong, wrong, hit)]
    assert rate(preds, [truth(box(), box(x=400))]) == pytest.approx(mean_of(0, 0, *[1 / 2] * 7))
    first = rate([found(hit), found(wrong)], [truth(box(), box(x=400)), truth()])
    last = rate([found(wrong, wrong), found(hit)], [truth(), truth(box(), box(x=400))])
    assert first < last


def test_a_pedestrian_is_hit_once():
    """The second detection is a false positive, and here comes before the other hit."""
    preds = [found((*ONE, 0.9), (*ONE, 0.8), (*ONE, 0.7), (900, 50, 41, 100, 0.1))]
    target = [truth(box(), box(x=900), box(x=1300))]
    assert rate(preds, target) == pytest.approx(mean_of(*[1 / 3] * 2, *[2 / 3] * 7))


@pytest.mark.parametrize("kind", (0, 2, 3, 4, 5))
def test_a_box_of_another_class_absorbs_any_number(kind):
    """Each by half of the detection's own area, and none counts."""
    crowd = truth(box(x=800, w=400, h=300, kind=kind), box())
    inside = [(810 + 20 * n, 60, 41, 100, 0.9 - n / 100) for n in range(15)]
    assert rate([found(*inside, (*ONE, 0.1))], [crowd]) == 0
    half_out = (800 - 20.5, 60, 41, 100, 0.95)
    assert rate([found(half_out, *inside, (*ONE, 0.1))], [crowd]) == 0
    beyond = (800 - 20.6, 60, 41, 100, 0.95)
    assert rate([found(*[beyond] * 2, (*ONE, 0.1))], [crowd]) == pytest.approx(100 ** (2 / 9), 1e3)
    assert rate([found(*[beyond] * 101, (*ONE, 0.1))], [crowd]) == 100


def test_a_pedestrian_comes_before_a_box_to_be_ignored():
    """Even where it overlaps less; once it is taken the box absorbs the rest."""
    target = [truth(box(kind=5), box(x=112), box(x=900))]
    assert rate([found((*ONE, 0.9))], target) == pytest.approx(50)
    assert rate([found(*[(*ONE, 0.9)] * 5, (900, 50, 41, 100, 0.1))], target) == 0


def test_a_pedestrian_outside_the_setting_is_ignored_not_missed():
    low, hidden, tiny = box(h=49), box(x=500, visible=0.64), box(x=800, h=19)
    target = [truth(low, hidden, tiny, box(x=1200))]
    preds = [found(*((*row[1:5], 0.9) for row in target[0].tolist()))]
    assert rate(preds, target) == 0
    assert rate([found(*[(*low[1:5], 0.9)] * 200, (1200, 50, 41, 100, 0.1))], target) == 0


@pytest.mark.parametrize(
    ("name", "heights", "kept"),
    (
        ("reasonable", (39.99, 40, 5000), (False, True, True)),
        ("small", (39.99, 40, 93.7, 93.75), (False, True, True, False)),
        ("heavy", (39.99, 40), (False, True)),
        ("all", (15.99, 16), (False, True)),
    ),
)
def test_detections_beyond_the_heights_over_1_25_are_no_false_positives(name, heights, kept):
    visible = 0.5 if name == "heavy" else 1
    target = [truth(box(h=60, visible=visible), box(x=900, h=60, visible=visible))]
    for height, counts in zip(heights, kept, strict=True):
        wrong = [(1500, 50, 41, height, 0.9)] * 101
        value = rate([found(*wrong, (100, 50, 25, 60, 0.5))], target, name)
        assert value == pytest.approx(100 if counts else 50)


def test_the_highest_1000_are_taken_before_heights_are_looked_at():
    low = [(1500, 50, 4, 10, 0.9)] * 1000
    assert rate([found(*low[:-1], (*ONE, 0.5))], [truth(box())]) == 0
    assert rate([found(*low, (*ONE, 0.5))], [truth(box())]) == 100


def counted(*rows):
    metric = gpe.LogAverageMissRate()
    metric.update([found()], [truth(*rows)])
    return {name for name, count in metric.pedestrians().items() if count}


@pytest.mark.parametrize(
    ("row", "settings"),
    (
        (box(h=100, visible=0.65), {"reasonable", "heavy", "all"}),  # counts in both
        (box(h=60, visible=0.65), {"reasonable", "small", "heavy", "all"}),
        (box(h=100, visible=0.64), {"heavy", "all"}),
        (box(h=100, visible=0.66), {"reasonable", "all"}),
        (box(h=100, visible=0.2), {"heavy", "all"}),
        (box(h=100, visible=0.19), set()),
        (box(h=50), {"reasonable", "small", "all"}),
        (box(h=75), {"reasonable", "small", "all"}),
        (box(h=76), {"reasonable", "all"}),
        (box(h=49), {"all"}),
        (box(h=20), {"all"}),
        (box(h=19), set()),
        (box(h=100, kind=2), set()),
        (box(h=100, w=0), set()),
    ),
)
def test_ends_of_height_and_visibility_count(row, settings):
    assert counted(row) == settings


def test_flags_are_set_anew_for_each_setting():
    """What Small ignores counts in All again, in whichever order they are asked for."""
    preds, target = cases(5)
    whole = log_average_miss_rate(preds, target, box_format="xywh")
    turned = log_average_miss_rate(
        preds, target, settings=tuple(reversed(SETTINGS)), box_format="xywh"
    )
    assert list(turned) == list(reversed(SETTINGS)) and turned == whole
    for name in SETTINGS:
        alone = log_average_miss_rate(preds, target, settings=name, box_format="xywh")
        assert alone == {name: whole[name]}


def test_images_without_anything_count_among_the_images():
    preds, target = [found((900, 50, 41, 100, 0.9), (*ONE, 0.5))], [truth(box(), box(x=500))]
    assert rate(preds, target, images=100) == pytest.approx(50)
    assert rate(preds, target, images=101) == pytest.approx(50)
    assert rate(preds, target, images=50) == pytest.approx(mean_of(0, 0, *[1 / 2] * 7), rel=0.2)


def test_below_100_images_a_first_false_positive_means_a_recall_of_0():
    """The official script reads the other end of the curve there."""
    preds, target = [found((900, 50, 41, 100, 0.9), (*ONE, 0.5))], [truth(box(), box(x=500))]
    value = rate(preds, target, images=10)
    assert value == pytest.approx(mean_of(*[0] * 4, *[1 / 2] * 5))
    empty = [found()] * 9, [truth()] * 9
    wrapped = official([*preds, *empty[0]], [*target, *empty[1]], SETTINGS["reasonable"])
    assert wrapped == pytest.approx(50)


def test_no_detections_at_all_are_100():
    metric = gpe.LogAverageMissRate(settings="all", curves=True)
    metric.update([found()] * 3, [truth(box()), truth(), np.zeros((1, 0))])
    value = metric.compute()
    assert value["all"] == 100
    assert [len(part) for part in value["curves"]["all"]] == [0, 0]
    assert metric.intervals()["all"] == (100, 100, 100)


def test_the_curve_and_its_end():
    preds = [found((*ONE, 0.9), (1500, 50, 41, 100, 0.5), (900, 50, 41, 100, 0.1))]
    metric = gpe.LogAverageMissRate(settings="reasonable", box_format="xywh", curves=True)
    metric.update([*preds, found()], [truth(box(), box(x=900)), truth()])
    curve = metric.compute()["curves"]["reasonable"]
    assert curve.fppi.tolist() == [0, 0.5, 0.5] and curve.miss_rate.tolist() == [0.5, 0.5, 0]
    assert metric.compute()["reasonable"] == 0  # recall 1 somewhere: the logarithm of 0


# Batches, processes, copies


@pytest.fixture(scope="module")
def sample():
    preds, target = cases(6)
    expected = log_average_miss_rate(preds, target, box_format="xywh")
    return preds, target, expected


def updated(preds, target, places, **options):
    metric = gpe.LogAverageMissRate(box_format="xywh", **options)
    for some in places:
        metric.update(
            [preds[n] for n in some], [target[n] for n in some], indices=torch.tensor(some)
        )
    return metric


def test_batches_and_order_change_nothing(sample):
    preds, target, expected = sample
    order = torch.randperm(len(preds), generator=torch.Generator().manual_seed(0))
    for size in (1, 7, 120):
        places = [some.tolist() for some in order.split(size)]
        assert updated(preds, target, places).compute() == expected


def test_what_was_given_stays_as_it_was():
    boxes, rows = torch.tensor([[100.0, 50, 141, 150]]).double(), truth(box())
    given = {"boxes": boxes.clone().requires_grad_(), "scores": torch.ones(1).double()}
    log_average_miss_rate([given], [rows], settings="all")
    assert torch.equal(given["boxes"], boxes) and np.array_equal(rows, truth(box()))


def test_without_indices_images_are_numbered_as_they_come(sample):
    preds, target, expected = sample
    metric = gpe.LogAverageMissRate(box_format="xywh")
    for start in range(0, 120, 50):
        metric.update(preds[start : start + 50], target[start : start + 50])
    assert metric.compute() == expected


def test_forward_adds_a_batch_and_returns_it_alone(sample):
    preds, target, expected = sample
    metric = gpe.LogAverageMissRate(box_format="xywh")
    first = metric(preds[:60], target[:60])
    second = metric(preds[60:], target[60:])
    assert metric.compute() == expected
    assert first == log_average_miss_rate(preds[:60], target[:60], box_format="xywh")
    assert second == log_average_miss_rate(preds[60:], target[60:], box_format="xywh")
    assert all(map(math.isnan, metric([found()], [truth()]).values()))


def test_parts_can_be_saved_and_merged_and_reset(sample):
    preds, target, expected = sample
    odd, even = (updated(preds, target, [list(range(first, 120, 2))]) for first in (1, 0))
    merged = pickle.loads(pickle.dumps(odd))
    merged.merge_state(even)
    assert merged.compute() == expected
    merged.reset()
    merged.update(preds, target)
    assert merged.compute() == expected


def test_an_image_that_comes_again_counts_once(sample):
    preds, target, expected = sample
    assert updated(preds, target, [range(120), [3, 77, 5]]).compute() == expected
    metric = updated(preds, target, [range(120)])
    other = next(n for n, rows in enumerate(target) if not np.array_equal(rows, target[9]))
    metric.update([preds[other]], [target[other]], indices=torch.tensor([9]))
    with pytest.raises(InputError, match=r"indices: .* same annotations .* others of image 9"):
        metric.compute()


@pytest.mark.parametrize("shares", ((50, 70), (0, 120)), ids=str)
def test_two_processes_give_the_number_of_one(sample, shares, tmp_path):
    """Unequal shards in other batches, and a process without any image; intervals too."""
    run = {"args": (tmp_path, sample, shares), "nprocs": 2, "start_method": "fork"}
    torch.multiprocessing.start_processes(one_of_two, **run)
    whole = updated(*sample[:2], [range(120)])
    for rank in range(2):
        rates, people, intervals = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert rates == sample[2]
        assert people == whole.pedestrians()
        assert intervals == whole.intervals(draws=20)


def one_of_two(rank, folder, sample, shares):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    with pytest.raises(InputError, match="indices: expected the images' indices"):
        gpe.LogAverageMissRate().update([found()], [truth()])
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    mine = order.split(list(shares))[rank]
    places = [some.tolist() for some in mine.split(7 + rank) if len(some)]
    metric = updated(*sample[:2], places)
    result = metric.compute(), metric.pedestrians(), metric.intervals(draws=20)
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_number_of_the_cpu(sample):
    preds, target, expected = sample
    metric = gpe.LogAverageMissRate(box_format="xywh").to("cuda")
    metric.update([{name: value.cuda() for name, value in one.items()} for one in preds], target)
    assert metric.compute() == expected


# Intervals


def test_an_interval_is_that_of_sets_drawn_image_by_image(sample):
    """Each draw as a set of its own, in which images come as often as they were drawn."""
    preds, target, _ = sample
    random = torch.Generator().manual_seed(0)  # within an image equal scores stay in its order
    preds = [one | {"scores": torch.rand(len(one["scores"]), generator=random)} for one in preds]
    expected = log_average_miss_rate(preds, target, box_format="xywh")
    draws = 12
    found = updated(preds, target, [range(120)]).intervals(draws=draws, seed=3)
    times = np.random.default_rng(3).multinomial(120, np.full(120, 1 / 120), draws)
    rates = []
    for row in times:
        drawn = np.repeat(np.arange(120), row)
        rates.append(
            log_average_miss_rate(
                [preds[n] for n in drawn], [target[n] for n in drawn], box_format="xywh"
            )
        )
    for name, estimate in found.items():
        low, high = np.percentile([one[name] for one in rates], (2.5, 97.5))
        assert estimate == pytest.approx((expected[name], low, high))
        assert low < expected[name] < high


def test_paired_intervals_are_of_differences_over_the_same_images(sample):
    """They are narrower than those of the two detectors, which may overlap all the same."""
    preds, target, expected = sample
    fewer = [{name: value[: int(0.9 * len(value))] for name, value in one.items()} for one in preds]
    ours, theirs = (updated(some, target, [range(120)]) for some in (preds, fewer))
    apart = ours.paired_intervals(theirs)["all"]
    assert apart.value == pytest.approx(theirs.compute()["all"] - expected["all"])
    alone, other = ours.intervals()["all"], theirs.intervals()["all"]
    assert alone.high - alone.low > apart.high - apart.low
    assert apart.low < apart.value < apart.high and other.low < alone.high
    assert ours.paired_intervals(ours)["all"] == (0, 0, 0)
    half = ours.paired_intervals([theirs, ours])["all"]
    assert half == pytest.approx([part / 2 for part in apart])
    with pytest.raises(InputError, match="other: expected one or more, got none"):
        ours.paired_intervals([])
    assert ours.intervals() == ours.intervals() != ours.intervals(seed=1)


def test_pairs_must_be_of_the_same_images_and_settings(sample):
    preds, target, _ = sample
    ours = updated(preds, target, [range(120)])
    with pytest.raises(InputError, match=r"other: expected the same 120 images .* got 119"):
        ours.paired_intervals(updated(preds, target, [range(119)]))
    changed = [*target[:-1], truth(box(x=3))]
    with pytest.raises(InputError, match=r"other: expected the same 120 images .* got 120"):
        ours.paired_intervals(updated(preds, changed, [range(120)]))
    with pytest.raises(InputError, match="other: expected settings"):
        ours.paired_intervals(updated(preds, target, [range(120)], settings="all"))


# Files of detections


def test_a_file_gives_the_numbers_of_what_was_written(sample, tmp_path):
    """To the last bit: sides are not computed from corners."""
    preds, target, expected = sample
    write_detections(tmp_path / "found.json", preds, box_format="xywh")
    read = read_detections(tmp_path / "found.json", 120)
    for one, other in zip(read, preds, strict=True):
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=0)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=0)
    assert log_average_miss_rate(read, target, box_format="xywh") == expected
    first = json.loads((tmp_path / "found.json").read_text())[0]
    assert first.keys() == {"image_id", "category_id", "bbox", "score"}


def test_only_pedestrians_count_and_are_written(tmp_path):
    both = {
        "boxes": torch.tensor([[100.0, 50, 141, 150], [900.0, 50, 941, 150]]),
        "scores": torch.tensor([0.9, 0.8]),
        "labels": torch.tensor([1, 7]),
    }
    target = [truth(box(), box(x=900))]
    value = log_average_miss_rate([both], target, settings="all")
    assert value["all"] == pytest.approx(50)
    write_detections(tmp_path / "found.json", [both])
    assert len(json.loads((tmp_path / "found.json").read_text())) == 1
    entries = [{"image_id": 1, "category_id": 7, "bbox": [100, 50, 41, 100], "score": 1}]
    (tmp_path / "found.json").write_text(json.dumps(entries))
    read = read_detections(tmp_path / "found.json", 1)
    assert log_average_miss_rate(read, target, settings="all", box_format="xywh") == {"all": 100}


def test_an_empty_file_is_no_crash(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    read = read_detections(tmp_path / "none.json", 2)
    assert log_average_miss_rate(read, [truth(box()), truth()], settings="all") == {"all": 100}


GOOD = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (None, "there is no"),
        ("not JSON", "got what is no JSON"),
        ({"annotations": []}, "a list of detections .* got a dict"),
        ([GOOD, {"image_id": 1}], "entry 1: expected bbox, category_id, image_id, score"),
        ([GOOD | {"image_id": 0}], "entry 0: expected image_id from 1 to 3, .* got 0"),
        ([GOOD | {"image_id": 4}], "entry 0: expected image_id from 1 to 3, .* got 4"),
        ([GOOD | {"image_id": "a"}], "expected whole image and category ids"),
        ([GOOD | {"bbox": [1, 2, 3]}], "expected four numbers and a score"),
        ([GOOD | {"bbox": [1, 2, 3, "4"]}], "expected four numbers and a score"),
        ([GOOD | {"score": None}], "expected four numbers and a score"),
        ([7], "expected bbox, .* got 7"),
    ),
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    path = tmp_path / "found.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=f"(?s)path: .*{message}"):
        read_detections(path, 3)


# Wrong input

BOXES = torch.tensor([[100.0, 50, 141, 150]])
PERSON = {"boxes": BOXES, "scores": torch.ones(1)}


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    (
        ([PERSON], [truth(box())] * 2, "target: expected one of each of the 1 images .* got 2"),
        (PERSON, [truth(box())] * 2, "preds: expected a list of dicts with boxes and scores"),
        ([{"boxes": BOXES}], [truth()], "preds: expected a list of dicts with boxes and scores"),
        ([PERSON | {"boxes": BOXES[0]}], [truth()], r"preds: boxes of image 0: .*\(1, 4\)"),
        ([PERSON | {"scores": torch.ones(2)}], [truth()], "preds: boxes of image 0"),
        ([PERSON | {"labels": torch.ones(2)}], [truth()], "preds: labels of image 0"),
        ([PERSON | {"scores": torch.tensor([math.nan])}], [truth()], "all finite, .* of image 0"),
        ([PERSON | {"boxes": BOXES * math.nan}], [truth()], "preds: .* finite, got .*nan"),
        ([PERSON | {"boxes": BOXES.flip(1)}], [truth()], "preds: expected boxes with sides of 0"),
        ([PERSON], [np.zeros((2, 5))], r"target: image 0: expected numbers \[m,10\].* \[2, 5\]"),
        ([PERSON], [np.zeros(10)], r"target: image 0: expected numbers .* \[10\]"),
        ([PERSON], [np.full((1, 10), "a")], "target: image 0: expected numbers"),
        ([PERSON], [truth(box(h=-3))], "target: image 0: expected finite boxes .* got .*-3"),
        ([PERSON], [truth(box(x=math.nan))], "target: image 0: expected finite boxes"),
        ([PERSON], [truth()], "target: expected pedestrians in each .* reasonable, small, heavy"),
        ([PERSON], [truth(box())], "got none of small, heavy in 1 images; leave it out"),
        ([], [], "preds: expected one or more images, got none"),
    ),
)
def test_wrong_input_is_named(preds, target, message):
    with pytest.raises(InputError, match=message):
        log_average_miss_rate(preds, target)


@pytest.mark.filterwarnings("ignore:overflow")  # of their area
def test_huge_boxes_match_nobody():
    """Finite, though their sum is not; a single person who is missed at every threshold."""
    huge = PERSON | {"boxes": torch.tensor([[0.0, 0, 1e308, 1e308]], dtype=torch.float64)}
    found = log_average_miss_rate([huge], [truth(box())], settings=("reasonable",))
    assert found["reasonable"] == 100


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"settings": ("bare",)}, "settings: expected one of reasonable, small, heavy, all"),
        ({"settings": ()}, "settings: expected each once"),
        ({"settings": ("all", "all")}, "settings: expected each once"),
        ({"box_format": "cxcywh"}, "box_format: expected one of xyxy, xywh"),
    ),
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        gpe.LogAverageMissRate(**options).update([PERSON], [truth()])


@pytest.mark.parametrize(
    ("indices", "message"),
    (([1, 1], "each image once"), ([1], r"integers \[2\]"), ([0.5, 1], "expected integers")),
)
def test_wrong_indices_are_named(indices, message):
    metric = gpe.LogAverageMissRate()
    with pytest.raises(InputError, match=f"indices: .*{message}"):
        metric.update([PERSON] * 2, [truth()] * 2, indices=torch.tensor(indices))
    assert not metric.images
