"""Which images have people on one side only, by boxes and by pixels."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from gpe.data.citypersons import images_on_side, labels_on_side, on_side, read_annotations
from gpe.data.pixels import SegmentationSet
from gpe.errors import InputError
from tests.conftest import SHARED_DATA
from tests.data.labelled_trees import annotations

REAL = SHARED_DATA / "citypersons" / "anno_val.mat"
NONE = np.zeros((0, 10), np.int64)


def people(*spans, kind=1):
    """A box for each (x, width)."""
    rows = [[kind, x, 400, width, 100, 24000, x, 400, width, 100] for x, width in spans]
    return np.array(rows, np.int64).reshape(-1, 10)


BOXES = {
    "aachen_000000_000001": people((0, 10), (1000, 24)),  # to the middle, not over it
    "aachen_000000_000002": people((1000, 25)),
    "bonn_000000_000003": people((1024, 10), (2000, 40)),
    "bonn_000000_000004": people((10, 10), (2000, 40)),
    "bonn_000000_000005": people(),
    "bonn_000000_000006": np.concatenate([people((1, 5)), people((1500, 9), kind=0)]),
    "bonn_000000_000007": people((-5, 20)),
}


@pytest.fixture
def file(tmp_path):
    annotations(tmp_path / "anno_val.mat", BOXES)
    return tmp_path / "anno_val.mat"


def test_boxes_are_read_as_they_were_written(file):
    found = read_annotations(file)
    assert list(found) == list(BOXES)
    for name, boxes in BOXES.items():
        assert found[name].dtype == np.int64
        np.testing.assert_array_equal(found[name], boxes)


def test_all_boxes_of_an_image_must_lie_on_the_side(file):
    """Those to be ignored too; a box that touches the middle lies on its side still."""
    assert images_on_side(file, "left") == ["aachen_000000_000001", "bonn_000000_000007"]
    assert images_on_side(str(file), "right") == ["bonn_000000_000003"]


def test_short_integers_do_not_overflow(tmp_path):
    """The real file holds uint8 where all fits: 200 and 100 are 300, not 44."""
    boxes = np.array([[1, 200, 0, 100, 9, 0, 200, 0, 100, 9]], np.uint8)
    annotations(tmp_path / "anno_val.mat", {"a": boxes})
    with pytest.raises(InputError, match="got 0"):
        images_on_side(tmp_path / "anno_val.mat", "left", width=512)


@pytest.mark.skipif(not REAL.exists(), reason="needs GPE_TEST_DATA/citypersons")
def test_the_papers_subsets_of_the_real_validation_set():
    boxes = read_annotations(REAL)
    assert len(boxes) == 500 and "frankfurt_000000_000294" in boxes
    left, right = (images_on_side(REAL, side) for side in ("left", "right"))
    assert (len(left), len(right)) == (42, 59)
    assert not set(left) & set(right)


def test_an_empty_subset_is_refused(tmp_path):
    annotations(tmp_path / "anno_val.mat", {"a": people((1000, 100)), "b": NONE})
    for side in ("left", "right"):
        with pytest.raises(InputError, match=f"with people on the {side} only, got 0"):
            images_on_side(tmp_path / "anno_val.mat", side)


@pytest.mark.parametrize("side", ["middle", "Left", ""])
def test_an_unknown_side_is_refused(file, side):
    with pytest.raises(InputError, match="side: expected one of left, right"):
        images_on_side(file, side)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no"),
        (b"", "got what is no .mat file"),
        (b"not a mat file" * 20, "got what is no .mat file"),
        ({"boxes": 1}, "one variable anno_\\*, got boxes"),
        ({"anno_val": np.arange(3)}, "images with im_name and bbs"),
        (
            {"anno_val": {"im_name": "a", "bbs": np.zeros((2, 4))}},
            "boxes with ten columns .* got float64 \\[2, 4\\] of a",
        ),
        ({"anno_val": {"im_name": "a", "bbs": "none"}}, "boxes with ten columns"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, complaint):
    path = tmp_path / "anno.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        savemat(path, content)
    with pytest.raises(InputError, match=f"(?s)path: .*{complaint}"):
        images_on_side(path, "left")


def labelled(*columns, width=6):
    """A set of one-row images, in which class 1 has these columns."""
    samples = []
    for chosen in columns:
        labels = torch.zeros(1, width, dtype=torch.uint8)
        labels[0, list(chosen)] = 1
        samples.append((torch.zeros(3, 1, width, dtype=torch.uint8), labels))
    ids = tuple("abcdefgh"[: len(samples)])
    return SegmentationSet("set", samples, ids, ("road", "person"), ((0, 0, 0),) * 2)


def test_pixel_labels_tell_the_side_too():
    images = labelled([0, 2], [2, 3], [3], [], [5], [1, 5])
    for batch_size in (1, 4):
        assert labels_on_side(images, "left", batch_size=batch_size) == ["a"]
        assert labels_on_side(images, "right", batch_size=batch_size) == ["c", "e"]


def test_a_middle_column_is_on_neither_side():
    images = labelled([2], [1], [3], width=5)
    assert labels_on_side(images, "left") == ["b"]
    assert labels_on_side(images, "right") == ["c"]


def test_pixel_labels_without_such_images_or_class_are_refused():
    with pytest.raises(InputError, match="with person on the left only, got 0"):
        labels_on_side(labelled([0, 5]), "left")
    with pytest.raises(InputError, match="class_name: expected one of road, person, got 'car'"):
        labels_on_side(labelled([0]), "left", class_name="car")


def test_the_rule_holds_for_any_width():
    assert on_side({"a": people((40, 10)), "b": people((50, 10))}, "left", width=100) == ["a"]
    assert on_side({"a": people((40, 10)), "b": people((50, 10))}, "right", width=100) == ["b"]
