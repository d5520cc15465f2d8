"""What `gpe explore` leaves behind, and that it is true of the network."""

import base64
import zlib

import numpy as np
import pytest
import torch

import gpe
from gpe.data import load, segmentation_set
from gpe.errors import InputError
from gpe.experiments.explore import page
from gpe.experiments.trained import open_trained
from gpe.records import Record, load_arrays
from tests.experiments.explore.conftest import explore

LAYER = "backbone.layer4"
PLACES = [f"cells:{place}" for place in range(9)]


def packed(directory, step=1):
    """What the page holds, with the record and the arrays."""
    record, arrays = Record.load(directory), load_arrays(directory)
    data = page.payload(record, {name: value.numpy() for name, value in arrays.items()}, step)
    return data, record, arrays


def unpacked(text, *shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)


def segmented(explored):
    """The network, its images normalised and their labels."""
    images = segmentation_set("streets", size=(32, 64), images=5)
    batches = list(images.batches(1))
    return open_trained(str(explored.network)).model, batches


def test_the_page_has_what_the_network_says_with_channels_zeroed(segmenter):
    data, _, arrays = packed(segmenter.directory)
    model, batches = segmented(segmenter)
    assert data["counts"] == [0, 4, 16] and len(data["rankings"]) == 11
    for sample, index in zip(data["samples"], (0, 2), strict=True):
        answers = unpacked(sample["answers"], 11, 3, 32, 64)
        answers = np.bitwise_xor.accumulate(answers, axis=1)
        assert (unpacked(sample["labels"], 32, 64) == batches[index].labels[0].numpy()).all()
        for ranking, name in enumerate(["overall", *PLACES, "random/0"]):
            for place, count in enumerate(data["counts"]):
                channels = arrays[f"order.{name}"][:count]
                with torch.no_grad(), gpe.ablated(model, LAYER, channels):
                    logits = model(batches[index].images)["out"]
                assert (logits.argmax(1)[0].numpy() == answers[ranking, place]).mean() > 0.999
                metric = gpe.RegionIoU(logits.shape[1])
                metric.update(logits, batches[index].labels)
                for region, miou in metric.compute().items():
                    score = sample["scores"][ranking][place][region]
                    assert score == pytest.approx(100 * miou, abs=0.5)
                assert np.unique(answers[ranking, place]).size > 1


def test_numbers_are_those_of_gpe_ablate(segmenter, classifier):
    for explored, key in ((segmenter, "miou"), (classifier, "accuracy")):
        data, record, _ = packed(explored.directory)
        ablated = Record.load(explored.directory.parent / record.result["ablation"])
        names = list(ablated.result["rankings"])
        assert names == ["overall", *PLACES]
        rows = ablated.result["rows"]
        assert len(rows) == 11 * 3 * (4 if key == "miou" else 1)
        for row in rows:
            ranking = [*names, "random/0"].index(row["ranking"])
            scores = data["scores"][ranking][data["counts"].index(row["stop"])]
            assert scores[row.get("region", key)] == pytest.approx(row[key], abs=1e-4)


def test_a_place_ranks_by_how_much_more_a_channel_responds_there(segmenter):
    arrays = load_arrays(segmenter.directory)
    model, batches = segmented(segmenter)
    with torch.no_grad():
        maps = torch.cat([model.backbone(batch.images)["out"] for batch in batches])
    torch.testing.assert_close(arrays["responses"], maps.mean(0), rtol=1e-4, atol=1e-5)
    cells = torch.nn.functional.adaptive_avg_pool2d(maps, 3).flatten(2).mean(0)
    inside = cells[:, 6]
    score = inside - (cells.sum(1) - inside) / 8
    ranking = gpe.ranking.ChannelRanking.load(segmenter.directory / "cells:6.safetensors")
    torch.testing.assert_close(ranking.scores, score.double(), rtol=1e-3, atol=1e-5)
    assert torch.equal(arrays["order.cells:6"], ranking.order)


def test_a_channel_costs_what_the_network_loses_without_it(segmenter):
    data, _, arrays = packed(segmenter.directory)
    model, batches = segmented(segmenter)
    assert list(data["alone"]) == arrays["order.overall"][:5].tolist() == data["rank"][:5]
    for channel, scores in data["alone"].items():
        metric = gpe.RegionIoU(len(data["classes"]))
        with torch.no_grad(), gpe.ablated(model, LAYER, [channel]):
            for batch in batches:
                metric.update(model(batch.images)["out"], batch.labels)
        for region, miou in metric.compute().items():
            assert scores[region] == pytest.approx(100 * miou, abs=0.1)


def test_answers_are_those_of_the_classifier_with_channels_zeroed(classifier):
    data, record, arrays = packed(classifier.directory)
    opened = open_trained(str(classifier.network))
    images = load("digits", image_size=10, test_images=20)[1].images
    mean, std = (torch.tensor(values)[:, None, None] for values in (opened.mean, opened.std))
    views = (images / 255 - mean) / std
    said = {}
    for ranking, name in enumerate(["overall", *PLACES, "random/0"]):
        for place, count in enumerate(data["counts"]):
            channels = arrays[f"order.{name}"][:count]
            with torch.no_grad(), gpe.ablated(opened.model, "backbone", channels):
                likely = opened.model(views).softmax(1)
            said[name, count] = likely.argmax(1)
            kept = 100 * (said[name, count] == said["overall", 0]).double().mean().item()
            assert data["scores"][ranking][place]["kept"] == pytest.approx(kept)
            for sample, index in zip(data["samples"], (0, 6, 13), strict=True):
                assert sample["said"][ranking][place] == said[name, count][index]
                share = 100 * likely[index].max().item()
                assert sample["shares"][ranking][place] == pytest.approx(share, abs=0.06)
    assert len({str(answers.tolist()) for answers in said.values()}) > 5
    assert [region["name"] for region in data["regions"]] == ["kept", "accuracy"]
    assert all(scores.keys() == {"kept", "accuracy"} for scores in data["alone"].values())
    assert record.result["samples"][0]["label"] in record.result["classes"]


def test_maps_by_cell_are_those_of_gpe_atlas(segmenter):
    data, record, _ = packed(segmenter.directory)
    atlas = load_arrays(segmenter.directory.parent / record.result["atlas"])
    assert data["bits"] == pytest.approx(atlas["scores.information"].tolist(), abs=5e-4)
    maps, shown = atlas["maps"].numpy(), unpacked(data["cells"]["data"], 32, 9)
    assert (shown.argmax(1) == maps.argmax(1)).all() and (shown.min(1) == 0).all()


def test_a_finished_run_is_kept_and_its_page_written_again(segmenter):
    (segmenter.directory / page.PAGE).unlink()
    before = (segmenter.directory / "record.json").read_bytes()
    again = explore(segmenter.directory.parent, segmenter.network, images=5, samples=2)
    assert again == segmenter.directory and (again / page.PAGE).exists()
    assert (again / "record.json").read_bytes() == before


def test_the_page_loads_nothing_and_fits(segmenter, monkeypatch):
    text = (segmenter.directory / page.PAGE).read_text(encoding="utf-8")
    assert 'src="http' not in text and "@import" not in text and '<link rel="icon"' in text
    coarse, _, _ = packed(segmenter.directory, 2)
    assert list(coarse["samples"][0]["size"]) == [16, 32]
    monkeypatch.setattr(page, "LIMIT", len(text) - 1)
    assert page.write_page(segmenter.directory).stat().st_size < len(text.encode())
    monkeypatch.undo()
    page.write_page(segmenter.directory)


def test_a_run_of_gpe_ablate_gives_its_network_and_rankings(segmenter, tmp_path):
    result = Record.load(segmenter.directory).result
    ablated = segmenter.directory.parent / result["ablation"]
    found = explore(tmp_path, ablated, images=2, samples=1, alone=1, random_seeds=0)
    config = Record.load(found).config
    assert config["model"] == str(segmenter.network) and config["modes"] == []
    assert config["rankings"] == [f"overall={ablated}/overall.safetensors"]
    orders = [load_arrays(each)["order.overall"] for each in (found, segmenter.directory)]
    assert torch.equal(*orders)


def test_a_network_whose_head_reads_other_channels_has_no_places(tmp_path):
    options = {"weights": "random", "data": "digits", "images": 2, "samples": 1, "alone": 1}
    found = explore(tmp_path, "mobilenet_v3_small", **options)
    data, record, _ = packed(found)
    assert [ranking["label"] for ranking in data["rankings"]] == ["position-specific", "random"]
    assert data["responses"] is data["cells"] is data["bits"] is None
    assert (record.result["layer"], record.result["channels"]) == ("classifier.3", 1024)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"model": "resnet18"}, "data: expected one with torchvision/resnet18, got none"),
        ({"model": "resnet18", "data": "digits", "layer": "fc"}, "layer: expected none with"),
        ({"model": "resnet18", "data": "digits", "modes": ("left",)}, "modes: expected one of"),
        ({"model": "resnet18", "data": "digits", "alone": 0}, "alone: expected at least 1"),
    ),
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        explore(tmp_path / "out", **{"weights": "random"} | options)
    assert not (tmp_path / "out").exists()


def test_the_command_says_where_the_page_is_and_the_report_draws_it(call, segmenter):
    out = segmenter.directory.parent
    words = ["--images", 5, "--samples", 2, "--counts", "0,4,16", "--alone", 5, "--device", "cpu"]
    code, told, err = call("explore", segmenter.network, *words, "--out", out)
    assert code == 0, err
    assert f"open {segmenter.directory / page.PAGE} in a browser" in told
    assert "finished before" in err
    code, _, err = call("report", out, "--out", "report.html")
    assert code == 0 and "passed over" not in err, err
