"""gpe atlas: what is mapped, what is kept, and that its rankings are rankings."""

import json

import pytest
import torch

from gpe.data import load
from gpe.data.resident import generator
from gpe.errors import InputError
from gpe.experiments.atlas.config import AtlasConfig, cells_of
from gpe.experiments.atlas.run import run as run_all
from gpe.experiments.removal.config import ClassificationConfig
from gpe.experiments.removal.run import run as remove
from gpe.experiments.trained import open_trained
from gpe.models.inside import digest
from gpe.ops.place_on_grid import place_on_grid
from gpe.ranking import ChannelRanking, rank_channels
from gpe.records import Record, load_arrays
from tests.experiments import tiny
from tests.experiments.tiny import launch, outside_run, told

TINY = {
    "model": "squeezenet1_1",
    "weights": "random",
    "grid_size": 2,
    "layer": "features.3",
    "regions": ("left", "3"),
    "data": "digits",
    "image_size": 16,
    "images": 24,
    "canvases": 16,
    "device": "cpu",
    "seed": 0,
}
MODES = ["information", "overall", "cells:0+2", "cells:3"]


def config(**options):
    return AtlasConfig(**TINY | options)


def run(configs, out):
    directories, _ = launch(run_all, out, *configs)
    return directories


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    (directory,) = run([config()], tmp_path_factory.mktemp("mapped"))
    return directory


def canvases(cells, images=None):
    """What the network sees of the test images."""
    frozen = open_trained("squeezenet1_1", "random")
    if images is None:
        _, images = load("digits", image_size=16, train_images=24, test_images=24)
    return place_on_grid(
        images.images, cells, 2, mean=frozen.mean, std=frozen.std, dtype=torch.float32
    )


def test_maps_are_the_means_of_what_the_network_yields(mapped):
    model = open_trained("squeezenet1_1", "random").model
    maps = load_arrays(mapped)["maps"]
    for cell in range(4):
        with torch.no_grad():
            features = model.features[:4](canvases(torch.full((24,), cell)))
        torch.testing.assert_close(maps[:, cell], features.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_the_mirror_ranking_is_that_of_rank_channels(mapped):
    model = open_trained("squeezenet1_1", "random").model
    cells = torch.randint(4, (24,), generator=generator(0, 0, 0, "mirrored cells 2×2"))
    expected = rank_channels(model, [canvases(cells)], layer="features.3")["overall"]
    found = ChannelRanking.load(mapped / "overall.safetensors")
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-6)
    assert (found.layer, found.weights) == (expected.layer, expected.weights)


def test_the_record_says_what_was_mapped_and_how(mapped):
    record, arrays = Record.load(mapped), load_arrays(mapped)
    assert record.experiment == "atlas" and record.epochs == [] and record.paper is None
    assert told(record.config) == told(json.loads(json.dumps(vars(config()))))
    result = record.result
    assert (result["network"], result["layer"]) == ("torchvision/squeezenet1_1", "features.3")
    assert (result["channels"], result["images"]) == (128, 24)
    assert list(result["rankings"]) == MODES
    assert result["regions"] == {"left": "cells:0+2", "3": "cells:3"}
    assert arrays["maps"].shape == (128, 4)
    bits = arrays["scores.information"]
    low, high = arrays["low.information"], arrays["high.information"]
    assert (low <= bits).all() and (bits <= high).all() and (low < high).any()
    assert bits.max() < 2.2, "two bits name the cell"
    assert result["above_noise"] == int((bits > result["noise"]).sum())
    correlation = result["correlation"]
    assert -1 <= correlation["low"] <= correlation["rho"] <= correlation["high"] <= 1


def test_rankings_lie_beside_the_record(mapped):
    weights = digest(open_trained("squeezenet1_1", "random").model)
    arrays = load_arrays(mapped)
    for mode in MODES:
        ranking = ChannelRanking.load(mapped / f"{mode}.safetensors")
        assert (ranking.mode, ranking.layer, ranking.images) == (mode, "features.3", 24)
        assert ranking.weights == weights
        assert torch.equal(ranking.order, arrays[f"order.{mode}"])
    assert len(list(mapped.glob("*.safetensors"))) == len(MODES) + 1


def test_a_network_of_gpe_augshift_is_mapped_and_ablated_by_it(tmp_path):
    (network,), _ = tiny.train(tmp_path / "runs", tiny.config(epochs=1))
    options = {"model": str(network), "weights": "pretrained", "layer": "last"}
    (mapped,) = run([config(**options)], tmp_path / "atlas")
    assert Record.load(mapped).result["layer"] == "backbone.layer4"
    files = tuple(str(mapped / f"{mode}.safetensors") for mode in MODES)
    options = {"images": 30, "modes": (), "rankings": files, "random_seeds": 1, "device": "cpu"}
    chosen = ClassificationConfig(model=str(network), data="digits", **options)
    ((removed,), _) = launch(remove, tmp_path / "removed", chosen)
    rows = Record.load(removed).result["rows"]
    assert {row["ranking"] for row in rows} == {*MODES, "random/0"}


def test_the_same_configuration_leaves_the_same_record(mapped, tmp_path):
    (again,) = run([config()], tmp_path)
    assert outside_run(again) == outside_run(mapped)
    _, shown = launch(run_all, tmp_path, config())
    assert shown == f"{again.name}: finished before; --force runs it again\n"
    assert config(seed=1).name != config().name


def test_regions_have_names_at_any_size():
    assert cells_of("right", 3) == (2, 5, 8) and cells_of("top", 3) == (0, 1, 2)
    assert cells_of("bottom", 2) == (2, 3) and cells_of("centre", 3) == (4,)
    assert cells_of("centre", 4) == (5, 6, 9, 10) and cells_of("8+0", 3) == (0, 8)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"images": 3}, "images: expected at least 4, got 3"),
        ({"grid_size": 1}, "grid_size: expected at least 2, got 1"),
        ({"layer": "depth"}, "layer: expected last or the name of one, got 'depth'"),
        ({"regions": ("middle",)}, "regions: expected left, right, top, bottom, centre or some"),
        ({"regions": ("0+4",)}, r"cells of 0 to 3 as 0\+3, not all, got '0\+4'"),
        ({"regions": ("0+0",)}, r"regions: expected .* got '0\+0'"),
        ({"regions": ("centre",)}, "regions: expected .* not all, got 'centre'"),
        ({"regions": ("left", "2+0")}, r"regions: expected each once, got 'left' and '2\+0'"),
        ({"canvases": 0}, "canvases: expected at least 1, got 0"),
    ),
)
def test_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        config(**options)


def test_a_folder_with_too_few_images_is_refused(tmp_path, image_tree):
    for image in list((image_tree / "test").rglob("0.png")):
        image.unlink()
    with pytest.raises(InputError, match="images: expected at least 4, got 2"):
        run([config(data=str(image_tree))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_size_that_the_network_refuses_is_told(tmp_path):
    with pytest.raises(InputError, match="image_size: expected cells that make canvases of a size"):
        run([config(image_size=4, layer="last")], tmp_path)
