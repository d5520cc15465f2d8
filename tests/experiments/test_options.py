"""What a field of a configuration says: checks, help and command line are made of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar, Literal

import pytest
import typer

from gpe import cli
from gpe.errors import InputError
from gpe.experiments import EXPERIMENTS
from gpe.experiments.detection.config import DetectionConfig
from gpe.experiments.options import (
    TORCHRUN_HELP,
    Command,
    Config,
    Places,
    choices_of,
    hints_of,
    option,
    option_of,
    plain_type,
    preset_option,
)

COMMANDS = [
    command
    for folder in EXPERIMENTS
    for command in import_module(f"gpe.experiments.{folder}.config").COMMANDS
]
# What each command could be told at first; none has gone since.
OPTIONS = {
    "location": """
        batch-size betas bn-batches compile data device download epochs flip force grid
        image-size json learning-rate network no-flip out padding permutation precision
        preset resume root schedule seed task test-batch-size test-images train-images
        weight-decay width
    """,
    "augshift": """
        batch-size compile crop-shift data device download epoch-images epochs equal-compute
        flip force image-size images json label-smoothing learning-rate method momentum
        network no-compile no-equal-compute no-flip no-relative out passes precision preset
        protocol reading relative resize-size resume root schedule seed seeds shifts split
        stem test-batch-size test-images train-images weight weight-decay width workers
    """,
    "consistency": """
        batch-size data device download image-size images json out passes precision protocol
        resize-size root shifts weights workers
    """,
    "segment train": """
        backbone backbone-rate batch-size compile crop data device epochs flip force json
        learning-rate momentum no-flip out output-stride power precision preset resume root
        scales seed size split test-batch-size test-images train-images weight-decay weights
        width workers
    """,
    "segment evaluate": """
        batch-size data device images json out output-stride precision root size split
        workers
    """,
    "rank": """
        batch-size boxes data device force images json layer modes out output-stride person
        precision root seed size split workers
    """,
    "ablate": """
        batch-size boxes counts data device download engine force image-size images json
        layer modes no-ranges out output-stride person precision random-seeds ranges
        rankings regions resize-size root seed size split task weights workers
    """,
    "figure4": """
        batch-size data device engine force images json out precision preset random-seeds
        root workers
    """,
    "figure5": """
        batch-size counts data device force images json out precision preset root workers
    """,
    "figure6": """
        batch-size boxes data device engine force images json out person precision preset
        random-seeds root workers
    """,
    "decode": """
        batch-size canvases data device download epochs force grid image-size json layer
        learning-rate model out readout root seed test-images train-images weight-decay
        weights
    """,
    "atlas": """
        canvases data device download force grid image-size images json layer out regions
        root seed weights
    """,
    "demo": "force out",
    "report": "out",
}


@dataclass(frozen=True, kw_only=True)
class PaperConfig(Config):
    SWEPT = ("seed", "shape")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"width": 8, "rates": (0.5, 0.25), "flip": True},
        "paper": {"width": 64, "rates": (0.5, 0.25), "flip": False},
    }

    preset: str = option("quick or paper")
    shape: Literal["round", "flat"] = option("round or flat", "round")
    side: int = option("Side (px)", 32, flag="--pixels", at_least=1, at_most=100)
    share: float = option("Share [0, 1)", 0.5, above=0)
    limit: int | None = option("Number of images", None, unset="all", at_least=1)
    width: int = preset_option("Channels", at_least=1)
    rates: tuple[float, float] = preset_option("Rates", above=0)
    flip: bool = preset_option("Mirror half of the images")
    digest: str = option("Of the weights", "", hidden=True)
    seed: int = option("Seed", 0, at_least=0)

    @property
    def title(self):
        return (self.shape,)


# Checks


def test_a_value_within_its_bounds_is_taken():
    assert PaperConfig.of(side=1).side == 1 and PaperConfig.of(side=100).side == 100
    assert PaperConfig.of(limit=None).limit is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shape": "square"}, "shape: expected one of round, flat, got 'square'"),
        ({"side": 0}, "side: expected at least 1, got 0"),
        ({"side": 101}, "side: expected at most 100, got 101"),
        ({"share": 0.0}, "share: expected above 0, got 0.0"),
        ({"share": float("nan")}, "share: expected above 0, got nan"),
        ({"limit": 0}, "limit: expected at least 1, got 0"),
        ({"rates": (0.5, 0.0)}, "rates: expected above 0, got 0.0"),
        ({"rates": (0.5,)}, "rates: expected 2 values, got 1: 0.5"),
        ({"preset": "slow"}, "preset: expected one of quick, paper, got 'slow'"),
    ],
)
def test_a_value_outside_what_its_field_says_is_named(options, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        PaperConfig.of(**options)


def test_the_preset_decides_what_is_not_given():
    assert (PaperConfig.of().width, PaperConfig.of(preset="paper").width) == (8, 64)
    assert PaperConfig.of(preset="paper", width=3, flip=None).width == 3
    assert PaperConfig.of(preset="paper", flip=None).flip is False
    assert PaperConfig.of(flip=False).flip is False


def test_swept_fields_are_combined_the_first_slowest_and_each_once():
    several = PaperConfig.several(seed=[1, 0, 1], shape=["flat", "round"])
    assert [(config.seed, config.shape) for config in several] == [
        (1, "flat"),
        (1, "round"),
        (0, "flat"),
        (0, "round"),
    ]


def test_each_configuration_has_a_name_of_its_own_however_long():
    names = {PaperConfig.of(side=side).name for side in range(1, 50)}
    assert len(names) == 49 and all(name.startswith("round-") for name in names)


# The command line


@pytest.fixture
def told(monkeypatch):
    """A function from words to the configurations that a command of PaperConfig would run."""
    command = Command("paper", PaperConfig, "run", "A paper.", ("out", "resume"))
    app = typer.Typer()
    configs = []

    def run(folder, command, given, places, extra, as_json):
        configs.append((command.config.several(**given, **command.fixed), places))

    monkeypatch.setattr(cli, "_run", run)
    app.command("paper")(cli._function("nowhere", command))

    def of(*words):
        app(list(words), standalone_mode=False)
        return configs[-1][0]

    of.app = app
    return of


def test_lists_flags_and_numbers_are_read(told):
    (config,) = told("--pixels", "7", "--rates", "0.1, 0.2", "--no-flip", "--limit", "3")
    assert (config.side, config.rates, config.flip, config.limit) == (7, (0.1, 0.2), False, 3)
    assert [config.seed for config in told("--seed", "2,1,2")] == [2, 1]
    assert told() == [PaperConfig.of()]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rates", "a,b"], "rates: expected numbers separated by commas, got 'a,b'"),
        (["--seed", "1,x"], "seed: expected whole numbers separated by commas, got '1,x'"),
        (["--seed", ""], "seed: expected whole numbers separated by commas, got ''"),
        (["--shape", "flat,"], "shape: expected one of round, flat, got ''"),
    ],
)
def test_lists_that_are_none_are_named(words, complaint, told):
    with pytest.raises(InputError, match=re.escape(complaint)):
        told(*words)


def test_help_shows_each_field_its_default_and_that_of_each_preset(told, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    told.app(["--help"], standalone_mode=False)
    shown = {
        match[1]: " ".join(match[2].replace("│", " ").split())
        for line in capsys.readouterr().out.splitlines()
        if (match := re.match(r"│\s+(--[\w-]+)(.*)", line))
    }
    assert shown["--width"].endswith("Channels [default: quick 8, paper 64]")
    assert shown["--rates"].endswith("<float,...> Rates [default: 0.5,0.25]")
    assert shown["--flip"].endswith("Mirror half of the images [default: quick yes, paper no]")
    assert "--no-flip" in shown["--flip"]
    assert shown["--pixels"].endswith("Side (px) [default: 32]")
    assert shown["--limit"].endswith("Number of images [default: all]")
    assert shown["--share"].endswith("Share [0, 1) [default: 0.5]")
    assert shown["--seed"].startswith("<int,...>")
    assert shown["--preset"].endswith("[default: quick]")
    assert not {"--digest", "--side"} & shown.keys()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "backbone",
            "quick: resnet18 (csp), hrnet (others); paper: resnet50 (csp), hrnet (others)",
        ),
        ("schedule", "quick: cosine; paper: cosine (cascade-rcnn), steps (others)"),
        ("clip", "35"),
        ("crop", "quick: whole images; paper: 640,1280 (csp), whole images (others)"),
    ],
)
def test_help_shows_defaults_that_differ_by_what_is_trained(name, shown):
    """Those of a detector, of two of gpe's presets."""
    presets = DetectionConfig.PRESETS
    two = {"quick": presets["quick"], "paper": presets["citypersons"]}
    config = type("Two", (DetectionConfig,), {"PRESETS": two})
    assert cli._preset_defaults(config, name) == shown


# Of gpe


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_has_gone(name):
    found = typer.main.get_command(cli.app)
    for word in name.split():
        found = found.commands[word]
    flags = {flag for one in found.params for flag in (*one.opts, *one.secondary_opts)}
    assert {f"--{option}" for option in OPTIONS[name].split()} <= flags


def fields_of_all():
    for command in COMMANDS:
        for cls in filter(None, (command.config, command.extra, Places)):
            for one in fields(cls):
                yield pytest.param(cls, one, id=f"{command.name} {one.name}")


@pytest.mark.parametrize(("cls", "one"), [*fields_of_all()])
def test_help_is_a_whole_phrase(cls, one):
    """It begins with a capital, or is a list of what may be said; it has no full stop."""
    said = option_of(one)
    choices = choices_of(plain_type(hints_of(cls)[one.name]))
    assert said.help[0].isupper() or said.help[0] == "λ" or re.search(" or |; |: ", said.help)
    assert not said.help.endswith("."), said.help
    for choice in choices:
        assert said.hidden or choice in said.help, f"{choice} is not in {said.help!r}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_begins_with_a_sentence_and_names_real_options(command):
    assert re.match(r"[A-Z].*[.?]", command.help)
    for name in re.findall(r"--[\w-]+", command.help.replace(TORCHRUN_HELP, "")):
        known = {
            option_of(one).flag or f"--{one.name.replace('_', '-')}"
            for cls in (command.config, command.extra)
            if cls is not None
            for one in fields(cls)
        }
        assert name in known or f"ablate {name}" in command.help
