"""Synthetic streets: the same ones every time, with habits that differ left and right."""

import numpy as np
import pytest
import torch

from gpe.data import segmentation_set
from gpe.data.street_scene import (
    CAR,
    CLASSES,
    PALETTE,
    PARKING,
    PAVEMENT,
    PERSON,
    RIDER,
    ROAD,
    _figure,
    draw,
)
from gpe.data.streets import boxed_streets, streets
from gpe.errors import InputError
from gpe.metrics import LogAverageMissRate

SMALL = {"height": 64, "width": 128}


@pytest.fixture(scope="module")
def scenes():
    return [draw(index, **SMALL) for index in range(120)]


def test_a_street_is_a_function_of_seed_split_and_index():
    once, again = draw(5, seed=3, **SMALL), draw(5, seed=3, **SMALL)
    for mine, same in zip(once, again, strict=True):
        np.testing.assert_array_equal(mine, same)
    others = [draw(6, seed=3, **SMALL), draw(5, seed=4, **SMALL), draw(5, seed=3, split="val")]
    assert all(not np.array_equal(once.image, other.image[:64, :128]) for other in others)


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (50, 111), (96, 40)])
def test_images_labels_and_boxes_have_their_form(size):
    for index in range(8):
        scene = draw(index, height=size[0], width=size[1])
        assert scene.image.dtype == scene.labels.dtype == np.uint8
        assert scene.image.shape == (*size, 3) and scene.labels.shape == size
        assert scene.boxes.dtype == np.int64 and scene.boxes.shape[1] == 10
        assert set(np.unique(scene.labels)) <= {*range(len(CLASSES)), 255}


def test_every_class_occurs_and_few_pixels_are_ignored(scenes):
    counts = np.bincount(np.concatenate([scene.labels.ravel() for scene in scenes]), minlength=256)
    shares = counts / counts.sum()
    assert (shares[: len(CLASSES)] > 0.003).all()
    assert 0 < shares[255] < 0.05
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES)


def test_habits_differ_left_and_right(scenes):
    labels = np.stack([scene.labels for scene in scenes])
    left, right = labels[..., :64], labels[..., 64:]
    ratio = {name: (left == k).sum() / (right == k).sum() for k, name in enumerate(CLASSES)}
    assert ratio["parking"] > 20 and ratio["pavement"] < 0.05
    assert ratio["person"] < 0.4 and ratio["rider"] > 1.5
    assert ratio["car"] > 1.5 and ratio["building"] > 1.5 and ratio["vegetation"] < 0.5
    assert 0.7 < ratio["road"] < 1.4


def test_pixels_alone_do_not_tell_parking_from_pavement(scenes):
    """Patches of either have means and spreads of one distribution."""

    def patches(label):
        greys = [scene.image[..., 1][scene.labels == label] for scene in scenes]
        greys = [grey for grey in greys if len(grey) > 200]
        return np.array([(grey.mean(), grey.std()) for grey in greys])

    parking, pavement, road = (patches(label) for label in (PARKING, PAVEMENT, ROAD))
    spread = parking[:, 0].std()
    assert abs(parking[:, 0].mean() - pavement[:, 0].mean()) < 0.4 * spread
    assert abs(parking[:, 0].mean() - road[:, 0].mean()) < 0.4 * spread
    assert abs(parking[:, 1].mean() - pavement[:, 1].mean()) < 2


def test_boxes_surround_what_is_seen_of_people(scenes):
    seen = 0
    for scene in scenes:
        for kind, x, y, w, h, number, *visible in scene.boxes.tolist():
            assert kind in (1, 2) and number // 1000 == 23 + kind
            if visible[2] == 0:
                continue
            left, top, width, height = visible
            assert x <= left and left + width <= x + w and y <= top and top + height <= y + h
            inside = scene.labels[top : top + height, left : left + width]
            label = PERSON if kind == 1 else RIDER
            assert (inside == label).any(0)[[0, -1]].all(), "tight at the sides"
            assert (inside == label).any(1)[[0, -1]].all(), "and above and below"
            seen += 1
    assert seen > 100
    people = np.isin(np.stack([scene.labels for scene in scenes]), (PERSON, RIDER))
    for scene, mask in zip(scenes, people, strict=True):
        for _, _, _, _, _, _, left, top, width, height in scene.boxes.tolist():
            mask[top : top + height, left : left + width] = False
    assert not people.any(), "no one without a box"


@pytest.mark.parametrize("height", [11, 15, 20, 47, 120])
@pytest.mark.parametrize("rides", [False, True])
def test_a_figure_fills_its_box(height, rides):
    """What is seen of somebody whom nothing hides is the whole box: a visibility of 1."""
    width = round(0.41 * height)
    v, u = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    for seed in range(20):
        shape, _ = _figure(np.random.default_rng(seed), u[None], v[:, None], rides)
        assert shape.any(0)[[0, -1]].all() and shape.any(1)[[0, -1]].all()


def test_the_four_settings_of_citypersons_differ():
    """At twice the size, as detectors are scored; CityPersons has 1579, 351, 735 and 2875."""
    rows = np.concatenate(boxed_streets("val", images=150).boxes).astype(float)
    rows[:, 1:5] *= 2
    rows[:, 6:] *= 2
    metric = LogAverageMissRate(box_format="xywh")
    metric.update([{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}], [rows])
    counts = metric.pedestrians()
    assert 0.18 < counts["heavy"] / (counts["heavy"] + counts["reasonable"]) < 0.27
    assert 0.2 < counts["small"] / counts["reasonable"] < 0.45
    assert counts["all"] > 1.3 * counts["reasonable"]


def test_cars_hide_people_behind_them(scenes):
    hidden = [box for scene in scenes for box in scene.boxes.tolist() if box[8] * box[9] == 0]
    partly = [
        box
        for scene in scenes
        if (scene.labels == CAR).any()
        for box in scene.boxes.tolist()
        if 0 < box[9] < 0.7 * box[4] and box[2] + box[4] <= 64
    ]
    assert hidden or partly


def test_the_set_draws_what_draw_draws():
    found = streets("val", (64, 128), images=4, seed=2)
    assert found.ids == tuple(f"streets_val_00000{index}" for index in range(4))
    boxed = boxed_streets("val", (64, 128), images=4, seed=2)
    assert boxed.ids == found.ids
    for index in range(4):
        scene = draw(index, split="val", seed=2, **SMALL)
        image, labels = found.samples[index]
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(scene.image))
        assert torch.equal(labels, torch.from_numpy(scene.labels))
        assert torch.equal(boxed[index].image, image)
        np.testing.assert_array_equal(boxed[index].boxes, scene.boxes)


def test_the_set_ends():
    found = segmentation_set("streets", split="train", size=(32, 64), images=2)
    assert len(found) == len(list(found.samples)) == 2
    assert len(segmentation_set("streets")) == 500


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"index": -1}, "index: expected an integer of at least 0, got -1"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"split": "test"}, "split: expected one of train, val, got 'test'"),
        ({"height": 31}, "size: expected at least 32×32 pixels, got 31×128"),
        ({"width": 8}, "size: expected at least 32×32 pixels, got 64×8"),
    ],
)
def test_wrong_input_is_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        draw(**{"index": 0} | SMALL | options)
