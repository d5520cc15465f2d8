"""``gpe ablate --task classify``: what it leaves behind, and that it is true of the network."""

import json

import pytest
import torch

import gpe
from gpe.ablation import random_orders
from gpe.data import load
from gpe.errors import InputError
from gpe.experiments.removal.classify import run
from gpe.experiments.removal.config import ClassificationConfig
from gpe.experiments.removal.rankings import SHOWN
from gpe.experiments.trained import open_trained
from gpe.records import RECORD, Record, load_arrays
from tests.experiments.tiny import config as tiny_run
from tests.experiments.tiny import launch, train

WIDTH = 32  # of the tiny network's latents


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The directory of a network trained on digits."""
    (directory,), _ = train(tmp_path_factory.mktemp("runs"), tiny_run(epochs=2))
    return directory


@pytest.fixture(scope="module")
def images():
    return load("digits", image_size=10, test_images=50)[1]


def config(network, data="digits", **options):
    options = {"images": 50, "batch_size": 16, "random_seeds": 2} | options
    return ClassificationConfig(model=str(network), data=str(data), device="cpu", **options)


def ablate(config, out, **places):
    """The directory that a run leaves below ``out``."""
    ((directory,), _) = launch(run, out, config, **places)
    return directory


@pytest.fixture(scope="module")
def removed(network, tmp_path_factory):
    return ablate(config(network), tmp_path_factory.mktemp("removed"))


def seen(opened, images):
    mean, std = (torch.tensor(v)[:, None, None] for v in (opened.mean, opened.std))
    return (images.images / 255 - mean) / std


def test_a_row_is_what_the_network_scores_without_the_channels(removed, network, images):
    record, arrays = Record.load(removed), load_arrays(removed)
    opened = open_trained(str(network))
    names = ("overall", "relative", "magnitude", "deviation", "taylor")
    orders = {name: arrays[f"order.{name}"] for name in names} | random_orders(WIDTH, 2)
    rows = record.result["rows"]
    assert {row["ranking"] for row in rows} == {*orders, "matched/0", "matched/1"}
    for row, right in zip(rows, arrays["right"], strict=True):
        if row["ranking"] not in orders:
            continue
        channels = orders[row["ranking"]][row["start"] : row["stop"]]
        with torch.no_grad(), gpe.ablated(opened.model, "backbone", channels):
            expected = opened.model(seen(opened, images)).argmax(1) == images.labels
        assert torch.equal(right, expected)
        assert row["accuracy"] == pytest.approx(100 * expected.double().mean().item())
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert len({row["accuracy"] for row in rows}) > 5


def test_a_layer_by_name_is_removed_from_the_whole_network(removed, network, tmp_path):
    """What the linear layer reads are the pooled channels of this one."""
    directory = ablate(config(network, layer="backbone"), tmp_path)
    found, expected = load_arrays(directory), load_arrays(removed)
    assert torch.equal(found["order.overall"], expected["order.overall"])
    assert torch.equal(found["right"], expected["right"])
    record = Record.load(directory)
    assert record.config["layer"] == "backbone"
    assert record.result["engine"]["measured"] < 1e-5


def test_the_last_feature_map_where_logits_are_no_linear_map(tmp_path):
    options = {"weights": "random", "image_size": 64, "images": 6, "counts": (0, 9)}
    options["modes"] = ("overall",)
    directory = ablate(config("squeezenet1_1", **options, ranges=False), tmp_path)
    record = Record.load(directory)
    assert record.config["layer"] == "features.12" and record.result["channels"] == 512
    assert record.result["engine"]["measured"] < 1e-5 and len(record.result["rows"]) == 6


def test_rank_alone(network, tmp_path, removed):
    directory = ablate(config(network, job="rank", layer="last"), tmp_path)
    record = Record.load(directory)
    assert record.experiment == "rank" and record.config["layer"].startswith("backbone")
    found, expected = load_arrays(directory), load_arrays(removed)
    torch.testing.assert_close(found["scores.overall"], expected["scores.overall"])


def test_channels_are_ranked_as_before_the_pooling(removed, network, images):
    opened, arrays = open_trained(str(network)), load_arrays(removed)
    modes = ("overall", "kernel_flip_pair")
    expected = gpe.rank_channels(
        opened.model, seen(opened, images).split(25), layer="backbone", modes=modes
    )
    torch.testing.assert_close(
        arrays["scores.overall"], expected["overall"].scores, rtol=1e-4, atol=1e-6
    )
    saved = gpe.ChannelRanking.load(removed / "overall.safetensors")
    assert (saved.images, saved.layer) == (50, "head")
    shown = Record.load(removed).result["rankings"]["overall"]
    assert shown["top"] == saved.order[:SHOWN].tolist()


def test_the_excess_is_the_difference_to_random_orders(removed):
    record = Record.load(removed)
    accuracy = {
        (row["ranking"], row["stop"]): row["accuracy"]
        for row in record.result["rows"]
        if row["removal"] == "top"
    }
    excess = [row for row in record.result["excess"] if row["ranking"] == "overall"]
    counts = [n for n in record.config["counts"] if n]
    beyond = record.result["beyond_matched"]
    assert [row["stop"] for row in excess] == [row["stop"] for row in beyond] == counts
    for row, kind in [(row, "random") for row in excess] + [(row, "matched") for row in beyond]:
        random = sum(accuracy[f"{kind}/{draw}", row["stop"]] for draw in (0, 1)) / 2
        assert row["points"] == pytest.approx(random - accuracy["overall", row["stop"]], abs=1e-4)
        assert row["low"] <= row["points"] <= row["high"]


def test_the_record_says_what_was_done(removed, network):
    record = Record.load(removed)
    assert record.experiment == "ablate-classify" and record.paper is None and record.chance == 10
    about = {name: record.config[name] for name in ("task", "network", "layer", "data")}
    names = {"task": "classify", "network": network.name, "layer": "head", "data": "digits"}
    assert about == names
    assert record.result["channels"] == WIDTH and record.result["images"] == 50
    assert record.config["counts"] == list(range(0, WIDTH, 2))
    ranges = {(r["start"], r["stop"]) for r in record.result["rows"] if r["removal"] == "range"}
    assert ranges == {(at, at + 2) for at in range(0, WIDTH, 2)}


def test_rankings_come_from_files(removed, network, tmp_path):
    order = list(range(WIDTH))[::-1]
    (tmp_path / "paper.json").write_text(json.dumps({"overall": order}))
    files = (f"reverse={tmp_path / 'paper.json'}", str(removed / "overall.safetensors"))
    options = {"modes": (), "rankings": files, "counts": (4,), "ranges": False, "random_seeds": 0}
    record = Record.load(ablate(config(network, **options), tmp_path))
    rows = [(row["ranking"], row["stop"]) for row in record.result["rows"]]
    assert rows == [("reverse", 0), ("reverse", 4), ("overall", 0), ("overall", 4)]
    assert record.result["excess"] == []
    (same,) = (
        row
        for row in Record.load(removed).result["rows"]
        if (row["ranking"], row["removal"], row["stop"]) == ("overall", "top", 4)
    )
    assert record.result["rows"][-1] == same


def test_finished_it_is_left_alone(removed, network):
    before = (removed / RECORD).stat().st_mtime_ns
    assert ablate(config(network), removed.parent) == removed
    assert (removed / RECORD).stat().st_mtime_ns == before
    ablate(config(network), removed.parent, force=True)
    assert (removed / RECORD).stat().st_mtime_ns > before


def test_any_network_on_a_folder(tmp_path, image_tree):
    """Here a torchvision network whose weights, of two classes, lie in a file."""
    from torchvision.models import mobilenet_v3_small

    torch.save(mobilenet_v3_small(num_classes=2).state_dict(), tmp_path / "two.pth")
    chosen = config(
        "mobilenet_v3_small",
        image_tree,
        weights=str(tmp_path / "two.pth"),
        image_size=32,
        resize_size=40,
        modes=("overall", "kernel_flip_mirror"),
        counts=(512,),
    )
    record = Record.load(ablate(chosen, tmp_path / "out"))
    assert record.result["images"] == 4 and record.result["channels"] == 1024
    assert record.config["layer"] == "classifier.3"
    assert set(record.result["rankings"]) == {"overall", "kernel_flip_mirror"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"modes": ()}, "modes: expected at least one"),
            ({"modes": ("left",)}, "modes: expected one of overall"),
            ({"counts": (-1,)}, "counts: expected at least 0, got -1"),
            ({"counts": (33,)}, "counts: expected each from 0 to 32, got 33"),
            ({"random_seeds": -1}, "random_seeds: expected at least 0"),
            ({"rankings": ("no.json",)}, "there is no no.json"),
            ({"data": "nowhere"}, "data: there is no nowhere"),
            ({"batch_size": 0}, "batch_size: expected at least 1"),
        ],
    )
    def test_one_message(self, network, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            ablate(config(network, **options), tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_images_of_other_classes_are_scored_by_what_the_whole_network_answers(
    network, tmp_path, image_tree
):
    record = Record.load(ablate(config(network, image_tree, counts=(4,)), tmp_path / "out"))
    assert record.result["reference"] == "answers"
    whole = [row for row in record.result["rows"] if row["start"] == row["stop"] == 0]
    assert whole and all(row["accuracy"] == 100 for row in whole)


def test_taylor_is_the_latent_times_the_gradient_of_its_loss(removed, network, images):
    """Of the cross-entropy of the linear layer: the weights of the label minus those expected."""
    opened, arrays = open_trained(str(network)), load_arrays(removed)
    with torch.no_grad():
        latents = opened.model.backbone(seen(opened, images)).mean((2, 3))
        weights = opened.model.head.weight
        answered = opened.model.head(latents).softmax(1)
    slope = answered @ weights - weights[images.labels]
    expected = (latents * slope).abs().mean(0).double()
    torch.testing.assert_close(arrays["scores.taylor"], expected, rtol=1e-3, atol=1e-6)
