"""Matching of a network's classes with those of a set."""

import pytest
import torch
from torchvision.models._meta import _IMAGENET_CATEGORIES

from gpe.data import expect_classes, match_classes
from gpe.errors import InputError


def outputs(network, images, count=None):
    return match_classes(network, images, count=count or len(network)).outputs


def test_names_in_another_order_are_a_permutation():
    found = match_classes(["ship", "Air_plane", "cat"], ["cat", "air plane", "SHIP"], count=3)
    assert found.outputs == (2, 1, 0) and found.reason == "by name"
    assert found.labels(torch.tensor([0, 0, 2])).tolist() == [2, 2, 0]


def test_some_of_the_classes():
    found = match_classes(["ship", "plane", "cat"], ["cat", "ship"], count=3)
    assert found.outputs == (2, 0) and found.reason == "by name, 2 of the network's 3"


def test_as_many_classes_of_other_names_are_not_taken_for_the_same():
    found = match_classes(["ship", "plane"], ["cat", "plane"], count=2)
    assert found.outputs is None and found.labels(torch.tensor([0])) is None
    assert found.reason == "no labels: the network does not have the classes cat"


def test_unknown_names_count_by_position_if_there_are_as_many():
    assert outputs(None, ["a", "b"], 2) == (0, 1)
    found = match_classes(None, ["a", "b"], count=3)
    assert found.outputs is None and "3 classes without names, the set 2" in found.reason


def test_numbers_are_outputs():
    """As ImageNetV2's folders are."""
    assert outputs(_IMAGENET_CATEGORIES, ["3", "17", "998"]) == (3, 17, 998)
    assert outputs(None, ["1", "2"], 2) == (0, 1), "counted from 1: by position"
    assert outputs(["1", "0"], ["0", "1"]) == (1, 0), "names of the network, where it has them"
    assert outputs(["a", "b"], ["1", "2"]) is None


def test_images_without_labels():
    assert match_classes(None, (), count=2).reason == "no labels: the images have none"


def test_imagenets_names_and_wordnet_ids_are_one():
    assert outputs(_IMAGENET_CATEGORIES, ["n01443537", "n01440764"]) == (1, 0)
    assert outputs(["n01440764", "n01443537"], ["goldfish, Carassius auratus", "tench"]) == (1, 0)
    firsts = [{134: "crane", 639: "maillot"}.get(i, c) for i, c in enumerate(_IMAGENET_CATEGORIES)]
    assert outputs(_IMAGENET_CATEGORIES, firsts) == tuple(range(1000))
    assert outputs(_IMAGENET_CATEGORIES, ["n03126707", "n02012849"]) == (517, 134), "both cranes"
    assert outputs(["tench", "crane"], ["n02012849"]) is None, "which of the two?"


def test_another_number_of_names_than_outputs_is_refused():
    with pytest.raises(InputError, match="classes: expected 3 names, one an output, got 2"):
        match_classes(["a", "b"], ["a"], count=3)


@pytest.mark.parametrize(("classes", "got"), [((), "images without labels"), (("cat",), "1: cat")])
def test_training_needs_two_classes(classes, got):
    with pytest.raises(InputError, match=f"two classes or more to train on, got {got}"):
        expect_classes(classes)
    expect_classes(("cat", "dog"))
