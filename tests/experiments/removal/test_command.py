"""``gpe rank``, ``gpe ablate`` and the figures: what they run, print and refuse."""

import json

import pytest

from gpe.records import RECORD
from tests.experiments.tiny import runs

TINY = [
    *("--size", "32,64", "--width", "4", "--epochs", "1", "--train-images", "8"),
    *("--test-images", "3", "--batch-size", "4", "--workers", "0", "--device", "cpu"),
]
HERE = ["--workers", "0", "--device", "cpu", "--json"]


@pytest.fixture
def network(call):
    code, _, err = call("segment", "train", *TINY)
    assert code == 0, err
    (directory,) = runs()
    return directory


def test_rank_then_ablate_by_its_files(call, network):
    code, out, err = call("rank", network, "--modes", "overall,random", "--out", "ranked", *HERE)
    assert code == 0, err
    ranked = json.loads(out)
    assert ranked["config"]["modes"] == ["overall", "random"]
    (file,) = network.parent.parent.glob("ranked/*/overall.safetensors")

    # Channels of another dimension are other channels.
    by_row = ["--layer", "backbone.layer4", "--channel-dim", "-2", "--out", "rows"]
    code, out, err = call("rank", network, *by_row, *HERE)
    assert code == 0, err
    assert json.loads(out)["result"]["channels"] < ranked["result"]["channels"]

    options = ["--counts", "0,4", "--no-ranges", "--regions", "left", "--random-seeds", "1"]
    options += ["--engine", "general", "--out", "removed"]
    code, out, err = call("ablate", network, "--rankings", file, *options, *HERE)
    assert code == 0, err
    removed = json.loads(out)
    rows = [(row["ranking"], row["stop"], row["region"]) for row in removed["result"]["rows"]]
    assert rows == [(name, n, "left") for name in ("overall", "random/0") for n in (0, 4)]
    assert removed["result"]["engine"] == "general"
    assert (
        removed["result"]["rankings"]["overall"]["top"]
        == (ranked["result"]["rankings"]["overall"]["top"])
    )


@pytest.mark.parametrize("job", ["figure4", "figure5"])
def test_figures_of_a_network(call, network, job):
    code, out, err = call(job, network, "--images", "2", "--out", "figures", *HERE)
    assert code == 0, err
    record = json.loads(out)
    assert record["experiment"] == job and record["result"]["images"] == 2
    (directory,) = network.parent.parent.glob("figures/*")
    assert record == json.loads((directory / RECORD).read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rank", "nowhere.pth"], "gpe: path: there is no nowhere.pth"),
        (["ablate", "nowhere.pth", "--counts", "1,x"], "gpe: counts: expected whole numbers"),
        (["figure4", "--preset", "slow"], "gpe: preset: expected one of quick"),
        (["figure4", "--data", "voc"], "gpe: data: expected, without a checkpoint, one of streets"),
        (["figure4", "--data", "camvid"], "gpe: data: no camvid in data: "),  # its preset, at once
        (["figure5", "--split", "vla"], "gpe: split: expected one of train, val, got 'vla'"),
        (["figure6", "--data", "camvid", "--preset", "quick"], "gpe: data: expected, without a ch"),
        (["figure5", "a.pth", "--preset", "quick"], "gpe: preset: expected none beside a checkp"),
        (["rank"], "gpe: checkpoint: expected one or more, got none"),
    ],
)
def test_refusals_take_one_line(call, words, message):
    code, _, err = call(*words)
    assert code == 2 and err.splitlines()[-1].startswith(message)
    assert runs() == []


def test_a_layer_that_is_not_there(call, network):
    code, _, err = call("rank", network, "--layer", "backbone.layer7", "--device", "cpu")
    assert code == 2
    assert err.splitlines()[-1].startswith("gpe: layer: expected one of the network's, got")


CLASSIFY = ["--task", "classify", "--data", "digits", "--random-seeds", "1", "--counts", "0,4"]
TRAIN = [
    *("--data", "digits", "--width", "4", "--image-size", "20", "--epochs", "1", "--device", "cpu"),
    *("--train-images", "40", "--test-images", "20", "--batch-size", "16", "--shifts", "1"),
]


def test_classifiers_side_by_side(call):
    code, _, err = call("augshift", "--method", "baseline,augshift", *TRAIN)
    assert code == 0, err
    networks = runs()
    code, out, err = call("ablate", *networks, *CLASSIFY, "--out", "removed", "--json")
    assert code == 0, err
    records = json.loads(out)
    assert [record["config"]["network"] for record in records] == [n.name for n in networks]
    assert {record["experiment"] for record in records} == {"ablate-classify"}
    code, out, err = call("ablate", *networks, *CLASSIFY, "--out", "removed")
    assert code == 0 and all(network.name in out for network in networks), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--task", "detect"], "gpe: task: expected one of segment, classify"),
        (["a", "--task", "classify"], "gpe: data: expected one with --task classify"),
        (["a", "--regions", "left", *CLASSIFY], "gpe: regions: expected none with --task classify"),
        (["a", "--image-size", "9"], "gpe: image_size: expected none with --task segment"),
        (["resnet81", *CLASSIFY], "gpe: name: expected a classifier of torchvision or timm"),
    ],
)
def test_each_task_has_its_options(call, words, message):
    code, _, err = call("ablate", *words)
    assert code == 2 and err.splitlines()[-1].startswith(message)


def test_one_image_one_count_and_no_random_order(call):
    """Each part of the report that needs more is left out."""
    code, _, err = call("augshift", "--method", "baseline", *TRAIN)
    assert code == 0, err
    few = [
        "--images",
        "1",
        "--counts",
        "1",
        "--no-ranges",
        "--random-seeds",
        "0",
        "--device",
        "cpu",
    ]
    classify = ["--task", "classify", "--data", "digits"]
    code, out, err = call("ablate", *runs(), *classify, *few, "--out", "removed")
    assert code == 0 and "all channels" in out, err
    code, _, err = call("report", "removed")
    assert code == 0, err


def test_a_segmentation_network_of_a_library_ranks_its_last_feature_map(call):
    """Its classes are not the images'; no label is needed for that."""
    words = ["--weights", "random", "--data", "streets", "--size", "32,64", "--images", "2"]
    code, out, err = call("rank", "lraspp_mobilenet_v3_large", *words, "--layer", "last", *HERE)
    assert code == 0, err
    assert json.loads(out)["config"]["layer"] == "backbone.16" and "followed by" in err
    code, _, err = call("ablate", "lraspp_mobilenet_v3_large", *words, "--layer", "last", *HERE)
    assert code == 2 and "gpe: data: expected a set with the classes of" in err
