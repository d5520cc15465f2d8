"""What was mapped of frozen networks, as a page and on a terminal."""

import io

import pytest
import torch
from rich.console import Console

from gpe.errors import InputError
from gpe.experiments.atlas.report import blocks, sentences, tables
from gpe.experiments.reports import print_findings, print_tables
from gpe.records import Record, load_arrays, save_arrays
from gpe.report.blocks import Finding
from tests.reporting import Page, report, runs_of

CHANNELS = 20


def atlas_run(directory, grid=3, *, regions=None, layer="layer4", without=(), **config):
    """Channel c tells c tenths of a bit, and is highest in cell c, or c less the grid's cells."""
    regions = {"left": "cells:0+3+6"} if regions is None else regions
    bits = torch.arange(CHANNELS).double() / 10
    maps = torch.zeros(CHANNELS, grid**2)
    maps[torch.arange(CHANNELS), torch.arange(CHANNELS) % grid**2] = 2
    maps[0] = 1  # the same everywhere
    arrays = {"maps": maps}
    for mode in ("information", "overall", *regions.values()):
        arrays |= {
            f"order.{mode}": bits.argsort(descending=True),
            f"scores.{mode}": bits,
            f"low.{mode}": bits - 0.05,
            f"high.{mode}": bits + 0.05,
        }
    save_arrays(directory, {name: a for name, a in arrays.items() if name not in without})
    defaults = {"model": "resnet18", "weights": "random", "data": "digits", "seed": 0}
    Record(
        experiment="atlas",
        config=defaults | {"grid_size": grid} | config,
        epochs=[],
        result={
            "network": "torchvision/resnet18",
            "task": "classification",
            "layer": layer,
            "channels": CHANNELS,
            "images": 200,
            "noise": 0.25,
            "above_noise": 17,
            "regions": regions,
            "rankings": {},
            "correlation": {"rho": 0.5, "low": -0.1, "high": 0.75},
        },
        chance=100 / grid**2,
        paper=None,
        run={"seconds": 3.0},
    ).save(directory)
    return directory


def test_sixteen_maps_are_drawn_from_lowest_to_highest(tmp_path):
    atlas_run(tmp_path / "a")
    page = Page(report(tmp_path))
    assert page.count("svg", role="img") == 16
    shades = [has["fill-opacity"] for _, has in page.tags if "fill-opacity" in has]
    assert len(shades) == 16 * 9 and shades.count("1.0") == 16 and shades.count("0.0") == 16 * 8
    first = next(has for _, has in page.tags if has.get("fill-opacity") == "1.0")
    assert (first["x"], first["y"]) == ("1", "0"), "channel 19, in cell 19 - 18"
    assert page.count("svg") >= 17, "and information by rank"
    assert ("b", "19") in page.texts


def test_a_channel_that_is_the_same_everywhere_has_a_blank_map(tmp_path):
    atlas_run(tmp_path / "a")
    arrays = load_arrays(tmp_path / "a")
    save_arrays(tmp_path / "a", arrays | {"maps": torch.full((CHANNELS, 9), 2.5)})
    page = Page(report(tmp_path))
    assert page.count("rect", **{"fill-opacity": "0.0"}) == 16 * 9


def test_the_table_has_a_row_a_region(tmp_path):
    atlas_run(tmp_path / "a", regions={"left": "cells:0+3+6", "8": "cells:8"})
    rows = Page(report(tmp_path)).tables[0]
    assert rows[0] == ["region", "1", "2", "3", "4"]
    assert rows[1][:2] == ["left cells 0, 3, 6", "19 1.90 (1.85 to 1.95)"]
    assert rows[2][0] == "8 cells 8"


def test_findings_say_it_in_words(tmp_path):
    runs = runs_of(atlas_run(tmp_path / "a"), atlas_run(tmp_path / "b", 2))
    first, second = tables(runs)
    found = [block.text for block in blocks(runs) if isinstance(block, Finding)]
    assert found == [" ".join(sentences(trial)) for trial in (first, second)]
    noise, most, correlation, regions = sentences(first)
    assert noise == (
        "resnet18, random weights, digits, grid size 3: 17 of the 20 channels of layer4 carry "
        "more information about the cell of a 3×3 grid than any does once cells are shuffled "
        "(0.25 bits)."
    )
    assert most == (
        "Channel 19 carries most: 1.90 bits (1.85 to 1.95) of the 3.17 that name the cell."
    )
    assert "correlation of +0.50 (95\u00a0% interval −0.10 to +0.75)." in correlation
    assert regions == "First of each region: left 19."
    assert "of the 2.00 that name" in sentences(second)[1]


def test_no_regions_will_do(tmp_path):
    atlas_run(tmp_path / "a", regions={})
    assert "of each region" not in report(tmp_path)
    assert len(sentences(*tables(runs_of(tmp_path / "a")))) == 3


def test_the_terminal_has_both_tables(tmp_path):
    atlas_run(tmp_path / "a")
    console = Console(file=io.StringIO(), width=140)
    print_tables([tmp_path / "a"], console)
    print_findings([tmp_path / "a"], console)
    text = console.file.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert cells[0] == ["19", "1.90 bits (1.85 to 1.95)", "row 1, column 2"]
    assert ["left", "19 1.90", "18 1.80", "17 1.70", "16 1.60"] in cells
    assert "17 of 20 channels carry more" in text and "+0.50 (−0.10 to +0.75)" in text
    assert "Channel 19 carries most" in text


@pytest.mark.parametrize("array", ("maps", "order.information", "low.cells:0+3+6"))
def test_what_is_no_such_record_is_told(tmp_path, array):
    directory = atlas_run(tmp_path / "a", without=(array,))
    with pytest.raises(InputError, match="is not an atlas record: KeyError"):
        tables(runs_of(directory))


def test_arrays_of_another_grid_are_told(tmp_path):
    directory = atlas_run(tmp_path / "a", grid_size=4)
    with pytest.raises(InputError, match=r"maps: expected finite \[20,16\]"):
        tables(runs_of(directory))


def test_names_are_escaped(tmp_path):
    atlas_run(tmp_path / "a", model="<b>", layer="<i>", regions={"[red]x": "cells:0"})
    page = report(tmp_path)
    assert "<b>, random" not in page and "<i>" not in page
    console = Console(file=io.StringIO(), width=140)
    print_tables([tmp_path / "a"], console)
    assert "[red]x" in console.file.getvalue()
