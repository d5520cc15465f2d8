"""``gpe rank``, ``gpe ablate`` and Figures 4 to 6: what they leave behind, and that it is true."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import gpe
from gpe.ablation import random_orders
from gpe.data import segmentation_set
from gpe.data.citypersons import labels_on_side
from gpe.data.streets import boxed_streets
from gpe.errors import InputError
from gpe.experiments.removal import run as removal
from gpe.experiments.removal.config import FIGURE_4, RemovalConfig, step_of
from gpe.experiments.removal.rankings import SHOWN
from gpe.experiments.removal.run import run as run_all
from gpe.experiments.segmentation.scores import region_scores
from gpe.experiments.trained import open_trained
from gpe.records import RECORD, Record, load_arrays
from tests.data.labelled_trees import annotations
from tests.experiments.tiny import launch
from tests.experiments.tiny_segments import config, train

LAYER = "backbone.layer4"


def run(job, network, out, **options):
    """The directory that a job leaves below ``out``."""
    (chosen,) = RemovalConfig.several(job=job, checkpoint=[network], **options)
    ((directory,), _) = launch(run_all, out, chosen)
    return directory


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    ((directory,), _) = train(tmp_path_factory.mktemp("segments"), config(test_images=64))
    return str(directory)


@pytest.fixture(scope="module")
def images(network):
    return segmentation_set("streets", size=(32, 64), images=64)


@pytest.fixture(scope="module")
def figure4(network, tmp_path_factory):
    return run("figure4", network, tmp_path_factory.mktemp("figure4"), random_seeds=2)


@pytest.fixture(scope="module")
def figure6(network, tmp_path_factory):
    return run("figure6", network, tmp_path_factory.mktemp("figure6"), random_seeds=1)


class TestRank:
    def test_the_record_holds_what_rank_channels_finds(self, network, images, tmp_path):
        directory = run("rank", network, tmp_path, modes=("overall", "left"))
        model = open_trained(network).model
        left = labels_on_side(images, "left")
        expected = gpe.rank_channels(
            model,
            images.batches(3),
            layer=LAYER,
            modes=("overall", "left"),
            subsets={"left": left},
        )
        record, arrays = Record.load(directory), load_arrays(directory)
        assert record.experiment == "rank" and record.paper is None
        assert record.result["subsets"] == {"left": len(left)}
        for mode, ranking in expected.items():
            torch.testing.assert_close(arrays[f"scores.{mode}"], ranking.scores, rtol=1e-4, atol=0)
            saved = gpe.ChannelRanking.load(directory / f"{mode}.safetensors")
            assert torch.equal(saved.order, arrays[f"order.{mode}"])
            shown = record.result["rankings"][mode]
            assert shown["images"] == ranking.images
            assert shown["top"] == saved.order[:SHOWN].tolist()
            assert shown["scores"] == saved.scores[saved.order[:SHOWN]].tolist()
            assert all(low <= high for low, high in zip(shown["low"], shown["high"], strict=True))

    def test_people_may_come_as_boxes(self, network, images, tmp_path):
        file = tmp_path / "anno_streets.mat"
        streets = boxed_streets("val", (32, 64), images=64)
        annotations(file, dict(zip(streets.ids, streets.boxes, strict=True)))
        # Their width in pixels is that of Cityscapes: all boxes of a small street are on the left.
        directory = run("rank", network, tmp_path, modes=("left",), boxes=str(file))
        with_people = sum(len(people) > 0 for people in streets.boxes)
        assert Record.load(directory).result["subsets"] == {"left": with_people}


class TestFigure4:
    def test_every_curve_region_and_range_is_there_once(self, figure4):
        record = Record.load(figure4)
        width, counts = record.result["channels"], record.config["counts"]
        rows = [
            (row["ranking"], row["removal"], row["start"], row["stop"], row["region"])
            for row in record.result["rows"]
        ]
        assert len(set(rows)) == len(rows)
        rankings = {"overall", "kernel_flip_mirror", "kernel_flip_pair", "random/0", "random/1"}
        rankings |= {"relative", "magnitude", "deviation", "taylor", "matched/0", "matched/1"}
        assert {row[0] for row in rows} == rankings
        assert {row[4] for row in rows} == {"full", "left", "centre", "right"}
        step = step_of(width)
        assert counts == [*range(0, width, step)]
        ranges = {row[2:4] for row in rows if row[1] == "range"}
        assert ranges == {(at, at + step) for at in range(0, width - step + 1, step)}

    def test_nothing_removed_is_the_network_as_it_is(self, figure4, network, images):
        expected, _ = region_scores(open_trained(network).model, images, batch_size=5)
        for row in Record.load(figure4).result["rows"]:
            if row["removal"] == "top" and row["stop"] == 0:
                assert row["miou"] == pytest.approx(expected["miou"][row["region"]], abs=0.2)

    def test_a_row_is_what_the_network_scores_without_the_channels(self, figure4, network, images):
        record, arrays = Record.load(figure4), load_arrays(figure4)
        model, width = open_trained(network).model, record.result["channels"]
        orders = {
            "overall": arrays["order.overall"],
            "random/1": random_orders(width, 2)["random/1"],
        }
        count = record.config["counts"][3]
        for name, order in orders.items():
            with gpe.ablated(model, LAYER, order[:count]):
                expected, _ = region_scores(model, images, batch_size=64)
            for row, confusion in zip(record.result["rows"], arrays["confusion"], strict=True):
                if (row["ranking"], row["removal"], row["stop"]) == (name, "top", count):
                    assert row["miou"] == pytest.approx(expected["miou"][row["region"]], abs=0.2)
                    assert confusion.sum() > 0

    def test_finished_it_is_left_alone(self, figure4, network, monkeypatch):
        before = (figure4 / RECORD).stat().st_mtime_ns
        again = run("figure4", network, figure4.parent, random_seeds=2)
        assert again == figure4 and (figure4 / RECORD).stat().st_mtime_ns == before

    def test_the_papers_numbers_are_of_its_network_alone(self, figure4):
        assert Record.load(figure4).paper is None
        assert FIGURE_4["overall", 500] < FIGURE_4["random", 500] < FIGURE_4["overall", 0] == 74.0


def test_figure5_keeps_what_the_network_says_without_channels(network, images, tmp_path):
    directory = run("figure5", network, tmp_path, counts=(0, 5))
    record, arrays = Record.load(directory), load_arrays(directory)
    model = open_trained(network).model
    assert record.result["counts"] == [0, 5] and record.result["samples"][0] == images.ids[0]
    image, labels = images.samples[0]
    orders = {"overall": arrays["order.overall"]}
    orders["random"] = random_orders(record.result["channels"], 1)["random/0"]
    for name, order in orders.items():
        with torch.no_grad(), gpe.ablated(model, LAYER, order[:5]):
            logits = model(images.normalise(image[None]))["out"]
        predictions = arrays[f"{name}0"]
        assert torch.equal(predictions[1].long(), logits[0].argmax(0))
        assert record.result["accuracy"][name][0] == record.result["accuracy"]["overall"][0]
    assert torch.equal(arrays["labels0"], labels) and torch.equal(arrays["image0"], image)


def test_figure6_ranks_each_side_by_its_images(figure6, images):
    record = Record.load(figure6)
    sides = {side: labels_on_side(images, side) for side in ("left", "right")}
    assert record.result["subsets"] == {side: len(ids) for side, ids in sides.items()}
    assert {row["removal"] for row in record.result["rows"]} == {"top"}
    modes = {"left", "overall", "right", "left_right", "right_left"}
    modes |= {"activity:left", "activity:right"}
    assert set(record.result["rankings"]) == modes


def test_ablate_takes_rankings_from_files(network, tmp_path):
    width = 8 * config().width
    order = list(range(width))[::-1]
    (tmp_path / "paper.json").write_text(json.dumps({"overall": order}))
    ranked = run("rank", network, tmp_path)
    files = (f"reverse={tmp_path / 'paper.json'}", str(ranked / "overall.safetensors"))
    options = {"counts": (0, 4), "ranges": False, "regions": ("full",), "random_seeds": 0}
    directory = run("ablate", network, tmp_path, modes=(), rankings=files, **options)
    record = Record.load(directory)
    assert [(row["ranking"], row["stop"]) for row in record.result["rows"]] == [
        ("reverse", 0),
        ("reverse", 4),
        ("overall", 0),
        ("overall", 4),
    ]
    assert record.result["rankings"]["reverse"]["top"] == order[:SHOWN]
    assert load_arrays(directory).keys() >= {"order.reverse", "scores.reverse"}


def test_two_processes_find_what_one_finds(network, tmp_path):
    options = ["--random-seeds", "1", "--device", "cpu", "--workers", "0", "--out"]
    alone = run("figure6", network, tmp_path / "one", random_seeds=1)
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gpe.cli"]
    subprocess.run(
        [sys.executable, *command, "figure6", network, *options, tmp_path / "two"], check=True
    )
    (together,) = (tmp_path / "two").iterdir()
    a, b = load_arrays(alone), load_arrays(together)
    assert a.keys() == b.keys()
    for name, values in a.items():
        if name.startswith("order."):
            assert torch.equal(values, b[name])
        elif name == "confusion":  # the batches are others, and so is the rounding
            assert (values - b[name]).abs().sum() <= 2e-3 * values.sum()
        else:
            torch.testing.assert_close(values, b[name], rtol=1e-4, atol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"modes": ()}, "modes: expected at least one"),
            ({"modes": ("up",)}, "modes: expected one of overall"),
            ({"regions": ("top",)}, "regions: expected one of full"),
            ({"counts": (-1,)}, "counts: expected at least 0, got -1"),
            ({"counts": (10_000,)}, "counts: expected each from 0 to 32, got 10000"),
            ({"layer": "backbone.layer5"}, "nearest: backbone.layer4"),
            ({"data": "street"}, "data: expected one of streets"),
            ({"random_seeds": -1}, "random_seeds: expected at least 0"),
            ({"rankings": ("no.json",), "modes": ()}, "there is no no.json"),
            ({"modes": ("left",), "person": "people"}, "class_name: expected one of"),
        ],
    )
    def test_one_message(self, network, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            run("ablate", network, tmp_path, images=3, **options)
        assert list(tmp_path.iterdir()) == []

    def test_a_ranking_of_another_width(self, network, tmp_path):
        file = tmp_path / "narrow.json"
        file.write_text(json.dumps({"overall": [0, 1, 2]}))
        with pytest.raises(InputError, match="channels of the layer"):
            run("ablate", network, tmp_path, modes=(), rankings=(str(file),))


class TestFinishedAndInterrupted:
    """Each of these once gave the wrong record, or began again, without a word."""

    def test_other_weights_in_the_same_place_are_another_run(self, tmp_path):
        ((first,), _) = train(tmp_path / "a", config(test_images=8))
        ((second,), _) = train(tmp_path / "b", config(test_images=8, seed=1))
        place = tmp_path / "network"
        options = {"images": 4}
        shutil.copytree(first, place)
        before = run("rank", str(place), tmp_path / "out", **options)
        shutil.rmtree(place)
        shutil.copytree(second, place)
        after = run("rank", str(place), tmp_path / "out", **options)
        scores = [load_arrays(each)["scores.overall"] for each in (before, after)]
        assert before != after and not torch.equal(*scores)

    def test_another_ranking_in_the_same_file_is_another_run(self, network, tmp_path):
        file, width = tmp_path / "mine.json", 8 * config().width
        options = {"counts": (4,), "ranges": False, "random_seeds": 0, "images": 4}
        tops = []
        for order in (list(range(width)), list(range(width))[::-1]):
            file.write_text(json.dumps({"overall": order}))
            directory = run("ablate", network, tmp_path / "out", rankings=(str(file),), **options)
            tops.append(Record.load(directory).result["rankings"]["overall"]["top"])
        assert tops == [list(range(width))[:SHOWN], list(range(width))[::-1][:SHOWN]]

    def test_interrupted_it_goes_on_where_it_stopped(self, network, tmp_path, monkeypatch):
        options = {"random_seeds": 0, "modes": ("overall",), "counts": (4,), "ranges": False}
        whole = run("ablate", network, tmp_path / "whole", **options)
        ranked = []
        real = removal.rank_channels

        def counted(model, batches, **about):
            if len(ranked) == 1:
                raise KeyboardInterrupt
            ranked.append(about)
            return real(model, batches, **about)

        monkeypatch.setattr(removal, "rank_channels", counted)
        with pytest.raises(KeyboardInterrupt):
            run("ablate", network, tmp_path / "cut", **options)
        monkeypatch.setattr(
            removal, "rank_channels", lambda *a, **k: again.append(1) or real(*a, **k)
        )
        again = []
        cut = run("ablate", network, tmp_path / "cut", **options)
        assert len(ranked) == len(again) == 1  # 64 images are two parts
        assert not list(cut.glob("partial*"))
        assert Record.load(cut).result["rows"] == Record.load(whole).result["rows"]
        for name, values in load_arrays(whole).items():
            torch.testing.assert_close(load_arrays(cut)[name], values, rtol=1e-5, atol=1e-7)

    def test_a_ranking_of_other_weights_or_another_layer_is_refused(self, network, tmp_path):
        ranked = run("rank", network, tmp_path / "out", images=4)
        file = (str(ranked / "overall.safetensors"),)
        with pytest.raises(InputError, match=r"to be of the layer backbone\.layer3, got one of"):
            run(
                "ablate",
                network,
                tmp_path / "out",
                images=4,
                rankings=file,
                layer="backbone.layer3",
            )
        ((other,), _) = train(tmp_path / "other", config(test_images=8, seed=1))
        with pytest.raises(InputError, match="to be of the weights"):
            run("ablate", str(other), tmp_path / "out", images=4, rankings=file)

    def test_two_rankings_of_one_name_are_refused(self, network, tmp_path):
        ranked = run("rank", network, tmp_path / "out", images=4)
        file = (str(ranked / "overall.safetensors"),)
        for options in ({"rankings": file * 2}, {"rankings": file, "modes": ("overall",)}):
            with pytest.raises(InputError, match="expected names that differ, got 'overall'"):
                run("ablate", network, tmp_path / "out", images=4, **options)


class TestAFigureWithoutACheckpoint:
    def test_data_picks_the_training(self):
        (chosen,) = RemovalConfig.several(job="figure4", data="camvid")
        assert chosen.preset == "camvid"
        (chosen,) = RemovalConfig.several(job="figure4")
        assert chosen.preset == "quick"

    def test_data_that_no_training_is_of_is_refused(self):
        with pytest.raises(
            InputError, match="data: expected, without a checkpoint, one of streets"
        ):
            RemovalConfig.several(job="figure4", data="voc")

    def test_a_preset_beside_a_checkpoint_is_refused(self, network):
        with pytest.raises(InputError, match="preset: expected none beside a checkpoint"):
            RemovalConfig.several(job="figure4", checkpoint=[network], preset="quick")
