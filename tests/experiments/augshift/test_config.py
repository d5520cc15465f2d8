"""Options of AugShift runs: rows, presets, the paper's values, and what is refused."""

import re
from functools import partial

import pytest

from gpe.errors import InputError
from gpe.experiments.augshift.config import METHODS, TABLE_2, AugShiftConfig
from tests.conftest import SHARED_DATA

PAPER = SHARED_DATA.parent / "paper" / "paper.txt"


def config(preset="quick", method="augshift", **options):
    return AugShiftConfig.of(preset=preset, method=method, **{"device": "cpu"} | options)


def test_the_paper_preset_is_the_usual_recipe_of_each_kind_of_images():
    """SGD with Nesterov's momentum and cosine for CIFAR; torchvision's for ImageNet."""
    of_both = {"momentum": 0.9, "width": 64, "learning_rate": 0.1, "label_smoothing": 0.0}
    of_both |= {"train_images": None, "test_images": None, "epoch_images": None, "flip": True}
    cifar = {
        "stem": "cifar",
        "image_size": 32,
        "batch_size": 128,
        "epochs": 200,
        "weight_decay": 5e-4,
        "schedule": "cosine",
    }
    imagenet = {
        "stem": "imagenet",
        "image_size": 224,
        "resize_size": 256,
        "reading": "resized",
        "batch_size": 256,
        "epochs": 90,
        "weight_decay": 1e-4,
        "schedule": "step",
        "shifts": (8, 16, 32, 40, 48, 64),  # Figure S2
    }
    for data, its_own in (("cifar10", cifar), ("cifar100", cifar), ("imagenet", imagenet)):
        chosen = config("paper", data=data)
        expected = of_both | its_own
        assert {name: getattr(chosen, name) for name in expected} == expected


def test_a_folder_s_images_are_small_unless_they_are_said_to_be_large():
    assert config(data="somewhere").resize_size is None
    assert config(data="somewhere", images="large").resize_size == 256
    assert config(data="imagenet").resize_size == 256


RECIPES = {
    **{(preset, "small"): recipe for preset, recipe in AugShiftConfig.PRESETS.items()},
    **{(preset, "large"): recipe for preset, recipe in AugShiftConfig.LARGE_PRESETS.items()},
}


@pytest.mark.parametrize(("preset", "images"), RECIPES)
def test_rows_differ_in_their_crops_and_the_weight_alone(preset, images):
    """Crops are wide where there are two of them; rows without the loss have no weight."""
    rows = {method: config(preset, method, images=images) for method in METHODS}
    for method, row in rows.items():
        recipe = RECIPES[preset, images]
        assert row.crop_shift == recipe["crop_shift"][METHODS[method].crops]
        assert row.weight == (recipe["weight"] if METHODS[method].loss else 0)
        same = vars(row) | {"method": None, "crop_shift": None, "weight": None}
        assert same == vars(rows["baseline"]) | {"method": None, "crop_shift": None, "weight": None}
    assert rows["augshift"].crop_shift > rows["baseline"].crop_shift


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("network", "resnet50"),
        ("split", "validation"),
        ("equal_compute", False),
        ("weight", 0.5),
        ("relative", False),
        ("crop_shift", 3),
        ("stem", "cifar"),
        ("width", 5),
        ("epochs", 5),
        ("train_images", 11),
        ("test_images", 12),
        ("epoch_images", 13),
        ("batch_size", 14),
        ("test_batch_size", 15),
        ("learning_rate", 0.5),
        ("momentum", 0.0),
        ("weight_decay", 0.3),
        ("schedule", "step"),
        ("label_smoothing", 0.1),
        ("flip", False),
        ("image_size", 40),
        ("protocol", "reflect"),
        ("shifts", (3,)),
        ("passes", 4),
        ("precision", "bf16"),
        ("compile", True),
        ("seed", 3),
    ],
)
def test_an_option_takes_the_place_of_the_preset_s_and_of_no_other(option, value):
    make = partial(config, "quick")
    before, after = make(), make(**{option: value})
    changed = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    assert changed == {option} and getattr(after, option) == value
    assert make(**{option: None}) == before
    assert before.name != after.name, "no two configurations share a directory"


@pytest.mark.parametrize(
    ("reading", "protocol", "train_side", "test_side"),
    [("resized", "zeros", 24 + 2 * 3, 24), ("plain", "crop", 40, 40)],
)
def test_large_images_are_read_as_large_as_their_crops_need(
    reading, protocol, train_side, test_side
):
    """Resized ones with a border of ``crop_shift``; for protocol crop with that of the shifts."""
    options = {"image_size": 24, "resize_size": 40, "shifts": (8,), "stem": "cifar"}
    chosen = config(images="large", reading=reading, protocol=protocol, crop_shift=3, **options)
    assert chosen.sides == {
        "train_reading": reading,
        "train_side": train_side,
        "test_side": test_side,
        "test_resize_side": 40,
    }
    assert chosen.crop_padding == 0, "the border is the image's own"
    assert config(crop_shift=3).crop_padding == 3


@pytest.mark.skipif(not PAPER.exists(), reason="needs the paper's text")
def test_table_2_is_the_paper_s():
    text = PAPER.read_text()
    text = text[text.index("CIFAR-100 [16] CIFAR-10 [16] ImageNet [7]") : text.index("Table 2. ")]
    assert "Top-1 Cons.8 Top-1 Cons.8 Top-1 Cons.8 Cons.16" in text
    found = {}
    names = {"ResNet-18 [10]": "baseline", "+AugShift (ours)": "augshift"}
    names["Blurpool [27]"] = "blurpool"
    for line in text.splitlines():
        if row := re.match(r"(.*[])])((?: [\d.]+){7})$", line):
            numbers = list(map(float, row[2].split()))
            method = names[row[1]]
            found["cifar100", method] = (numbers[0], {8: numbers[1]})
            found["cifar10", method] = (numbers[2], {8: numbers[3]})
            found["imagenet", method] = (numbers[4], {8: numbers[5], 16: numbers[6]})
    assert found == TABLE_2


def test_a_run_has_the_paper_s_values_exactly_where_the_paper_has_some():
    for data in ("digits", "cifar10", "cifar100", "imagenet", "elsewhere/cifar10"):
        for method in METHODS:
            there = data in ("cifar10", "cifar100", "imagenet")
            there = there and method in ("baseline", "augshift", "blurpool")
            assert (config(method=method, data=data).paper is not None) == there
            assert config(method=method, data=data, network="resnet50").paper is None
            assert config(method=method, data=data, split="validation").paper is None
    assert config(data="imagenet").paper == {
        "source": "Table 2",
        "value": 70.1,
        "protocol": "not stated",
        "consistency": {"8": 90.2, "16": 88.2},
    }


LARGE = {"images": "large"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preset": "slow"}, "preset: expected one of quick, fast, paper, got 'slow'"),
        ({"preset": "fast"} | LARGE, "preset: fast has no recipe for large images"),
        ({"method": "shift"}, "method: expected one of baseline, wide-crops, augshift, .*'shift'"),
        ({"images": "huge"}, "images: expected one of small, large, got 'huge'"),
        ({"network": "vgg"}, "network: expected one of resnet18, resnet50, got 'vgg'"),
        ({"stem": "mnist"}, "stem: expected one of grid, cifar, imagenet, got 'mnist'"),
        ({"split": "val"}, "split: expected one of test, validation, got 'val'"),
        ({"schedule": "constant"}, "schedule: expected one of cosine, one-cycle, step, got "),
        ({"protocol": "wrap"}, "protocol: expected one of crop, zeros, reflect, circular, got "),
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16, got 'fp8'"),
        ({"reading": "raw"} | LARGE, "reading: expected one of resized, plain, got 'raw'"),
        ({"reading": "plain"}, "reading: expected none for small images, got plain"),
        ({"resize_size": 40}, "resize_size: expected none for small images, got 40"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"image_size": 0}, "image_size: expected at least 1, got 0"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"train_images": 0}, "train_images: expected at least 1, got 0"),
        ({"test_images": -1}, "test_images: expected at least 1, got -1"),
        ({"epoch_images": 0}, "epoch_images: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"test_batch_size": 0}, "test_batch_size: expected at least 1, got 0"),
        ({"passes": 0}, "passes: expected at least 1, got 0"),
        ({"crop_shift": -1}, "crop_shift: expected at least 0, got -1"),
        ({"weight": -0.1}, "weight: expected at least 0, got -0.1"),
        ({"weight": float("nan")}, "weight: expected at least 0, got nan"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, got -0.1"),
        ({"momentum": -0.1}, "momentum: expected at least 0, got -0.1"),
        ({"label_smoothing": 1.5}, "label_smoothing: expected at most 1, got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0, got 0.0"),
        ({"shifts": ()}, "shifts: expected one or more, got none"),
        ({"shifts": (0, 8)}, "shifts: expected at least 1, got 0"),
        ({"protocol": "crop"}, "shifts: expected at most 0 pixels with protocol crop, got 16"),
        (
            {"protocol": "crop", "shifts": (16, 17)} | LARGE,
            "shifts: expected at most 16 pixels with protocol crop, got 17",
        ),
        (
            {"protocol": "reflect", "shifts": (31, 32)},
            "shifts: expected at most 31 pixels with protocol reflect, got 32",
        ),
        (
            {"protocol": "circular", "shifts": (32, 33)},
            "shifts: expected at most 32 pixels with protocol circular, got 33",
        ),
        (
            {"resize_size": 223} | LARGE,
            "resize_size: expected at least image_size, 224, got 223",
        ),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"device": "tpu"}, "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "cuda:99"}, "device: expected one that is there, got cuda:99"),
    ],
)
def test_an_option_outside_what_it_may_be_is_named(options, complaint):
    with pytest.raises(InputError, match=complaint):
        config(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "crop", "shifts": (16,), "images": "large"},
        {"protocol": "reflect", "shifts": (31,)},
        {"protocol": "circular", "shifts": (32,)},
        {"protocol": "zeros", "shifts": (1000,)},
    ],
)
def test_the_largest_shifts_that_a_protocol_has_pixels_for_are_taken(options):
    assert config(**options).shifts == options["shifts"]


@pytest.mark.parametrize(("stem", "smallest"), [("cifar", 9), ("grid", 17), ("imagenet", 33)])
def test_images_too_small_to_pool_over_are_refused(stem, smallest):
    assert config(stem=stem, image_size=smallest).image_size == smallest
    expected = f"image_size: expected at least {smallest} with stem {stem}, got {smallest - 1}"
    with pytest.raises(InputError, match=expected):
        config(stem=stem, image_size=smallest - 1)
