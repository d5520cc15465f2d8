"""Options of location runs: presets, the paper's values, and what is refused."""

import re
from functools import partial
from itertools import product

import pytest

from gpe.errors import InputError
from gpe.experiments.location.config import TABLE_1, TABLE_1_GRIDS, LocationConfig
from tests.conftest import SHARED_DATA

PAPER = SHARED_DATA.parent / "paper" / "paper.txt"

SETTING = {
    "network": "gapnet",
    "grid_size": 3,
    "image_size": 32,
    "padding_mode": "zeros",
    "data": "digits",
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "seed": 0,
}


def config(preset="quick", task="location", **options):
    return LocationConfig.of(preset=preset, task=task, **SETTING | options)


def test_the_paper_preset_is_the_authors_recipe():
    recipe = {
        "width": 64,
        "train_images": None,
        "test_images": None,
        "batch_size": 48,
        "test_batch_size": 100,
        "betas": (0.5, 0.999),
        "weight_decay": 0.0,
        "schedule": "constant",
        "flip": True,
        "bn_batches": 0,
    }
    by_task = {
        "location": {"epochs": 20, "learning_rate": 0.001},
        "object": {"epochs": 100, "learning_rate": 0.01},
    }
    for task, its_own in by_task.items():
        chosen = config("paper", task)
        expected = recipe | its_own
        assert {name: getattr(chosen, name) for name in expected} == expected


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("width", 5),
        ("epochs", 7),
        ("train_images", 11),
        ("test_images", 12),
        ("batch_size", 13),
        ("test_batch_size", 14),
        ("learning_rate", 0.5),
        ("betas", (0.1, 0.2)),
        ("weight_decay", 0.3),
        ("schedule", None),  # the one that the preset has not
        ("flip", False),
        ("bn_batches", 3),
    ],
)
def test_an_option_takes_the_place_of_the_preset_s_and_of_no_other(preset, option, value):
    make = partial(config, preset, "object")
    before = make()
    if option == "schedule":
        value = {"quick": "constant", "paper": "one-cycle"}[preset]
    after = make(**{option: value})
    changed = {name for name in vars(before) if getattr(before, name) != getattr(after, name)}
    assert changed == {option} and getattr(after, option) == value
    assert make(**{option: None}) == before


@pytest.mark.skipif(not PAPER.exists(), reason="needs the paper's text")
def test_table_1_is_the_paper_s():
    text = PAPER.read_text()
    text = text[text.index("Padding Network") : text.index("Table 1. ")]
    assert re.findall(r"(\d)×\1", text) == 2 * list(map(str, TABLE_1_GRIDS))
    found, padding = {}, None
    names = {"Zero": "zeros", "Reflect": "reflect", "Replicate": "replicate"}
    for line in map(str.strip, text.splitlines()):
        padding = names.get(line, padding)
        if row := re.match(r"(GAPNet|PermuteNet)((?: [\d.]+){6})$", line):
            numbers = tuple(map(float, row[2].split()))
            found["location", padding, row[1].lower()] = numbers[:3]
            found["object", padding, row[1].lower()] = numbers[3:]
    assert found == TABLE_1


def test_a_run_has_the_paper_s_value_exactly_where_the_paper_has_one():
    options = ("task", "padding_mode", "grid_size", "network", "permutation")
    for task, padding, grid, (network, permutation) in product(
        ("location", "object"),
        ("zeros", "reflect", "replicate", "circular"),
        (2, 3, 4, 5, 7, 9),
        (("gapnet", None), *(("permutenet", p) for p in ("random", "fixed", "sorted", "mean"))),
    ):
        values = (task, padding, grid, network, permutation)
        chosen = config(**dict(zip(options, values, strict=True)))
        there = padding != "circular" and grid in (3, 5, 7) and permutation in (None, "random")
        assert (chosen.paper is not None) == there
    paper = config(task="object", network="permutenet", padding_mode="reflect", grid_size=7).paper
    assert paper == {"source": "Table 1", "value": 65.7, "protocol": "best epoch"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preset": "fast"}, "preset: expected one of quick, paper, got 'fast'"),
        ({"task": "where"}, "task: expected one of location, object, got 'where'"),
        ({"network": "resnet"}, "network: expected one of gapnet, permutenet, got 'resnet'"),
        ({"padding_mode": "same"}, "padding_mode: expected one of zeros, .*, got 'same'"),
        (
            {"permutation": "none"},
            "permutation: expected one of random, fixed, sorted, mean, got 'none'",
        ),
        ({"schedule": "cosine"}, "schedule: expected one of constant, one-cycle, got 'cosine'"),
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16, got 'fp8'"),
        ({"grid_size": 0}, "grid_size: expected at least 1, got 0"),
        ({"image_size": 0}, "image_size: expected at least 1, got 0"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"train_images": 0}, "train_images: expected at least 1, got 0"),
        ({"test_images": -1}, "test_images: expected at least 1, got -1"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"test_batch_size": 0}, "test_batch_size: expected at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected above 0, got nan"),
        ({"betas": (0.5, 1.0)}, r"betas: expected two numbers in \[0, 1\), got \(0.5, 1.0\)"),
        ({"betas": (0.5,)}, "betas: expected 2 values, got 1: 0.5"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, got -0.1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"seed": 2**63}, "seed: expected at most 9223372036854775807, got 9223372036854775808"),
        ({"device": "tpu"}, "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "meta"}, "device: expected cpu, cuda or cuda:N, got 'meta'"),
        ({"device": "cuda:99"}, r"device: expected one that is there, got cuda:99; .* \d+ GPUs"),
    ],
)
def test_an_option_outside_what_it_may_be_is_named(options, complaint):
    with pytest.raises(InputError, match=complaint):
        config(**options)


def test_canvases_too_small_to_pool_over_are_refused():
    """On 16 pixels the feature map is one place, where reflection and batch norm would fail."""
    with pytest.raises(InputError, match=r"image_size: .* more than 16 pixels .* 2 × 8 = 16"):
        config(grid_size=2, image_size=8)


def test_no_two_configurations_share_a_directory():
    base = config(network="permutenet")
    others = {
        "network": "gapnet",
        "padding_mode": "reflect",
        "permutation": "fixed",
        "data": "elsewhere/digits",
        "grid_size": 5,
        "epochs": 4,
        "learning_rate": 0.1,
        "betas": (0.9, 0.999),
        "schedule": "constant",
        "flip": False,
        "bn_batches": 7,
        "precision": "bf16",
        "compile": True,
        "seed": 1,
    }
    configs = [base, config(network="permutenet", task="object")]
    configs += [config(**{"network": "permutenet"} | {name: others[name]}) for name in others]
    assert len({each.name for each in configs}) == len(others) + 2
    assert config(network="permutenet").name == base.name
    assert base.name.startswith("location-permutenet-3x3-zeros-digits-quick-")
