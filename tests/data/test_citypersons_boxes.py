"""CityPersons' images meet their boxes, and what is trained on is what the detectors were."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from gpe.data.citypersons import read_annotations
from gpe.data.citypersons_boxes import citypersons, training_boxes
from gpe.errors import InputError
from tests.data import labelled_trees as trees

REAL = Path(os.environ.get("GPE_TEST_DATA", "no such folder")) / "citypersons"
NAMES = ("ulm_000000_000013", "aachen_000000_000016")  # not in alphabetical order


def person(x=100, h=100, kind=1):
    return [kind, x, 50, 41, h, 24000, x, 50, 41, h]


@pytest.fixture
def root(tmp_path):
    trees.cityscapes(tmp_path, size=(1024, 2048))
    boxes = {name: np.array([person(100 * n + 1)]) for n, name in enumerate(NAMES)}
    trees.annotations(tmp_path / "anno_val.mat", boxes)
    return tmp_path


def test_images_meet_their_boxes_in_the_annotations_order(root):
    found = citypersons(root)
    assert found.ids == NAMES and len(found) == 2
    for n, name in enumerate(NAMES):
        city = name.split("_")[0]
        image, boxes = found[n]
        expected = trees.picture(len(city), (1024, 2048))
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
        assert boxes.tolist() == [person(100 * n + 1)]


def test_annotations_may_lie_elsewhere(root, tmp_path):
    (root / "annotations").mkdir()
    (root / "anno_val.mat").rename(root / "annotations" / "anno_val.mat")
    assert citypersons(root).ids == NAMES
    moved = root / "mine.mat"
    (root / "annotations" / "anno_val.mat").rename(moved)
    assert citypersons(root, annotations=moved).ids == NAMES
    with pytest.raises(InputError, match=r"path: there is no .*anno_val.mat"):
        citypersons(root)


def test_images_without_annotations_are_named(root):
    trees.annotations(root / "anno_val.mat", {NAMES[1]: np.array([person()])})
    with pytest.raises(InputError, match=f"1 of 2 have no boxes in .*anno_val.mat: {NAMES[0]}"):
        citypersons(root)


def test_annotations_without_their_image_are_named(root):
    boxes = {name: np.array([person()]) for name in (*NAMES, "bonn_000000_000001")}
    trees.annotations(root / "anno_val.mat", boxes)
    with pytest.raises(InputError, match=r"1 of 3 have no image in .*: bonn_000000_000001"):
        citypersons(root)


def test_an_image_of_another_size_is_named(root):
    trees.write(
        root / "leftImg8bit" / "val" / "ulm" / f"{NAMES[0]}_leftImg8bit.png",
        np.zeros((512, 1024, 3)),
    )
    with pytest.raises(InputError, match=r"ulm.*expected 1024×2048 pixels, .* got 512×1024"):
        citypersons(root)[0]


def test_what_is_not_there_is_named(root, tmp_path):
    with pytest.raises(InputError, match=r"split: expected one of train, val, got 'test'"):
        citypersons(root, "test")
    with pytest.raises(InputError, match=r"data: no citypersons in .*leftImg8bit.* missing"):
        citypersons(tmp_path / "elsewhere")
    savemat(root / "anno_val.mat", {"boxes": 1})
    with pytest.raises(InputError, match="one variable anno_"):
        citypersons(root)


@pytest.mark.parametrize("kind", range(6))
def test_all_but_pedestrians_are_ignored_in_training(kind):
    wanted, ignored = training_boxes(np.array([person(kind=kind), person(h=49, kind=kind)]))
    assert (len(wanted), len(ignored)) == ((1, 1) if kind == 1 else (0, 2))


def test_an_image_without_people_has_no_boxes_to_train_on():
    for part in training_boxes(np.zeros((0, 10), np.int64)):
        assert part.shape == (0, 4)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs CityPersons: GPE_TEST_DATA")
@pytest.mark.parametrize(
    ("split", "images", "boxes", "holding"),
    (("train", 2975, 12_670, 2112), ("val", 500, 2549, 377)),
)
def test_what_the_detectors_were_trained_on(split, images, boxes, holding):
    counts = [
        len(training_boxes(rows)[0])
        for rows in read_annotations(REAL / f"anno_{split}.mat").values()
    ]
    assert (len(counts), sum(counts), sum(map(bool, counts))) == (images, boxes, holding)
