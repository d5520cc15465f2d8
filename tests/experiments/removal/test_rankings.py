"""Rankings from files: the names they may have, what of them counts, and when they are refused."""

import json

import pytest
import torch
from torch import nn

from gpe.errors import InputError
from gpe.experiments.removal import classify, rankings
from gpe.experiments.removal import run as removal
from gpe.experiments.removal.config import AblateConfig, RemovalConfig
from gpe.experiments.removal.rankings import digest_of, in_parts, kept_of, merged, read_rankings
from gpe.ranking import ChannelRanking, rank_channels
from gpe.records import Record
from tests.experiments.tiny import config as classifier_config
from tests.experiments.tiny import launch
from tests.experiments.tiny import train as train_classifier
from tests.experiments.tiny_segments import config, train

WIDTH = 32  # of the last feature map of either tiny network


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    ((directory,), _) = train(tmp_path_factory.mktemp("segments"), config())
    return str(directory)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    ((directory,), _) = train_classifier(tmp_path_factory.mktemp("runs"), classifier_config())
    return str(directory)


@pytest.fixture
def file(tmp_path):
    """A ranking of channels from the last to the first, called ``overall``."""
    return ranking(tmp_path / "mine.json", WIDTH)


@pytest.fixture
def unranked(monkeypatch):
    """Fails where images are ranked."""
    for module in (removal, classify):
        monkeypatch.setattr(module, "rank_channels", lambda *_, **__: pytest.fail("ranked"))


def ranking(path, width):
    path.write_text(json.dumps({"overall": list(range(width))[::-1]}))
    return path


def chosen(network, **options):
    return RemovalConfig.several(job="ablate", checkpoint=[network], **options)[0]


def ablate(network, out, **options):
    short = {"counts": (4,), "ranges": False, "random_seeds": 1}
    ((directory,), _) = launch(removal.run, out, chosen(network, **short | options))
    return Record.load(directory)


def of_classifier(model, **options):
    """The configuration as ``gpe ablate --task classify`` makes it."""
    given = {"job": "ablate", "task": "classify", "checkpoint": [model], "data": "digits"}
    given |= dict.fromkeys(("weights", "image_size", "resize_size", "rankings", "modes"))
    given |= dict.fromkeys(("split", "size", "output_stride", "boxes", "person", "regions"))
    given |= {
        "layer": None,
        "channel_dim": None,
        "engine": None,
        "images": 40,
        "counts": (4,),
        "ranges": False,
    }
    (found,) = AblateConfig.several(**given | {"random_seeds": 1} | options)
    return found


class TestBesideModes:
    def test_both_are_used(self, network, file, tmp_path):
        options = {"rankings": (f"mine={file}",), "modes": ("overall", "kernel_flip_pair")}
        record = ablate(network, tmp_path / "out", **options)
        names = dict.fromkeys(row["ranking"] for row in record.result["rows"])
        assert list(names) == ["overall", "kernel_flip_pair", "mine", "random/0"]
        assert record.result["rankings"]["mine"]["top"][0] == WIDTH - 1

    def test_without_modes_they_stand_in_place_of_the_default(self, network, file, tmp_path):
        record = ablate(network, tmp_path / "out", rankings=(f"mine={file}",))
        assert list(record.result["rankings"]) == ["mine"] and record.config["modes"] == []

    def test_of_a_classifier_too(self, classifier, file, tmp_path):
        both = of_classifier(classifier, rankings=(f"mine={file}",), modes=("overall",))
        ((directory,), _) = launch(removal.run, tmp_path / "out", both)
        assert list(Record.load(directory).result["rankings"]) == ["overall", "mine"]
        assert of_classifier(classifier, rankings=(f"mine={file}",)).modes == ()


class TestNames:
    @pytest.mark.parametrize(
        ("rankings", "message"),
        [
            ("{0},{0}", "expected names that differ, got 'overall' and 'overall'"),
            ("a/b={0},a-b={0}", "expected names that differ, got 'a/b' and 'a-b'"),
            ("kernel_flip_pair={0}", "expected names that differ, got 'kernel_flip_pair'"),
            # These were lost without a word.
            ("random/0={0}", "expected names that differ, got 'random/0' and 'random/0'"),
            ("arrays={0}", "expected a name that no file of the run has, got 'arrays'"),
            ("partial-1={0}", "expected a name that no file of the run has, got 'partial-1'"),
        ],
    )
    @pytest.mark.usefixtures("unranked")
    def test_that_clash_are_refused_before_images_are_ranked(
        self, network, file, tmp_path, rankings, message
    ):
        files = tuple(rankings.format(file).split(","))
        modes = ("kernel_flip_pair",)
        with pytest.raises(InputError, match=f"rankings: {message}"):
            ablate(network, tmp_path / "out", rankings=files, modes=modes)
        assert not (tmp_path / "out").exists()

    @pytest.mark.usefixtures("unranked")
    def test_that_clash_are_refused_of_a_classifier_too(self, classifier, file, tmp_path):
        twice = of_classifier(classifier, rankings=(str(file),), modes=("overall",))
        with pytest.raises(InputError, match="rankings: expected names that differ"):
            launch(removal.run, tmp_path / "out", twice)
        assert not (tmp_path / "out").exists()

    def test_a_number_that_no_random_order_has_is_free(self, network, file):
        read = read_rankings(chosen(network, rankings=(f"random/7={file}",), random_seeds=2))
        assert list(read) == ["random/7"]


@pytest.mark.usefixtures("unranked")
def test_another_width_is_refused_before_images_are_ranked(network, classifier, tmp_path):
    files = (f"narrow={ranking(tmp_path / 'narrow.json', 3)}",)
    wanted = "rankings: expected 'narrow' to rank the 32 channels of the layer, got 3"
    with pytest.raises(InputError, match=wanted):
        ablate(network, tmp_path / "out", rankings=files, modes=("overall",))
    with pytest.raises(InputError, match=wanted):
        beside = of_classifier(classifier, rankings=files, modes=("overall",))
        launch(removal.run, tmp_path / "out", beside)
    assert not (tmp_path / "out").exists()


class TestLargeSets:
    """Of more images than are kept, sums stand for them; a run goes on where it stopped."""

    def test_ranked_alike(self, network, classifier, tmp_path, monkeypatch):
        def both(name):
            segments = ablate(network, tmp_path / name, modes=("overall",))
            images = of_classifier(classifier, modes=("overall",))
            ((directory,), _) = launch(removal.run, tmp_path / name, images)
            return [r.result["rankings"]["overall"] for r in (segments, Record.load(directory))]

        small = both("small")
        monkeypatch.setattr(rankings, "_LARGE", 0)
        for one, other in zip(small, both("large"), strict=True):
            assert one["top"] == other["top"] and one["images"] == other["images"]
            assert one["scores"] == pytest.approx(other["scores"], rel=1e-6)
            assert one["low"] != other["low"]  # another bootstrap

    def test_parts_are_read_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rankings, "_LARGE", 0)
        net, images, made = nn.Conv2d(3, 4, 3), torch.rand(64, 3, 8, 8), []

        def part(indices):
            made.append(indices)
            options = {"layer": "0", "start": indices[0], "keep": kept_of(64)}
            return rank_channels(nn.Sequential(net), [images[indices]], **options), None

        both = [merged(r for r, _ in in_parts(tmp_path, 64, 1, part))["overall"] for _ in range(2)]
        assert len(made) == 2 and torch.equal(both[0].interval, both[1].interval)
        assert both[0].differences is None and both[0].images == 64


class TestContent:
    def test_other_scores_in_the_same_order_are_another_run(self, network, tmp_path):
        """The record shows them."""
        file, shown = tmp_path / "mine.safetensors", []
        for factor in (1.0, 2.0):
            scores = factor * torch.arange(WIDTH, 0, -1, dtype=torch.float64)
            ChannelRanking("overall", scores).save(file)
            record = ablate(network, tmp_path / "out", rankings=(str(file),))
            shown.append(record.result["rankings"]["overall"]["scores"][0])
        assert shown == [WIDTH, 2 * WIDTH]
        assert len(list((tmp_path / "out").iterdir())) == 2

    def test_the_same_content_elsewhere_has_the_same_digest(self, network, file, tmp_path):
        other = ranking(tmp_path / "copy.json", WIDTH)
        digests = {
            digest_of(read_rankings(chosen(network, rankings=(f"{f}",)))) for f in (file, other)
        }
        assert len(digests) == 1
        named = digest_of(read_rankings(chosen(network, rankings=(f"mine={file}",))))
        assert named not in digests
