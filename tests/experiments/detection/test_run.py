"""Detection runs: what they leave behind, and that it is true."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpe.ablation import random_orders
from gpe.data.pixels import normalised
from gpe.data.streets import boxed_streets
from gpe.errors import InputError
from gpe.experiments.detection import layers, networks, removal
from gpe.experiments.detection.config import (
    SETTINGS,
    AblationConfig,
    DetectionConfig,
    EvaluationConfig,
)
from gpe.experiments.detection.networks import open_detector
from gpe.experiments.detection.report import blocks
from gpe.experiments.detection.run import DetectionTrial, _rate, ablate, evaluate
from gpe.experiments.detection.scores import FALSE, FOUND, MISSED, People, _told
from gpe.experiments.runs import Partial
from gpe.metrics import log_average_miss_rate
from gpe.metrics.detections import write_detections
from gpe.ranking import rank_channels
from gpe.records import Record, load_arrays
from gpe.report.blocks import Finding
from gpe.report.runs import Run
from tests.data.labelled_trees import annotations
from tests.experiments.tiny import launch, outside_run, same, weights
from tests.experiments.tiny_detectors import config, remove, train


def detected(directory, channels=(), layer="neck"):
    """Plainly: the whole network on the whole set, with channels of a layer zeroed."""
    _, model = open_detector(EvaluationConfig.of(checkpoint=str(directory), device="cpu"))
    images = boxed_streets("val", (64, 128), images=12)
    with torch.no_grad():
        removed = torch.as_tensor(channels, dtype=torch.int64)
        handle = model.get_submodule(layer).register_forward_hook(
            lambda module, given, output: output.index_fill(1, removed, 0.0)
        )
        latent = model.latent(normalised(images.images))
        handle.remove()
        found = model.detect(latent, images.size, least_score=0.0)
    return images, [{"boxes": one["boxes"] * 4, "scores": one["scores"]} for one in found]


def miss_rates(images, found):
    scaled = [rows * np.array([1, 4, 4, 4, 4, 1, 4, 4, 4, 4]) for rows in images.boxes]
    every = People(images)
    return log_average_miss_rate(found, scaled, settings=every.settings)


def ranked(directory, modes, layer="neck"):
    """By the public function, which knows of no detector."""
    _, model = open_detector(EvaluationConfig.of(checkpoint=str(directory), device="cpu"))
    images = boxed_streets("val", (64, 128), images=12)
    return rank_channels(model, [(normalised(images.images), images.ids)], layer=layer, modes=modes)


def blocks_text(directory):
    """The findings of a run's report."""
    found = blocks([Run.load(directory)])
    return " ".join(block.text for block in found if isinstance(block, Finding))


class TestTraining:
    def test_the_record_holds_miss_rates_of_the_set(self, finished):
        record = Record.load(finished)
        assert record.experiment == "detect" and len(record.epochs) == 5
        found = {name: value for name, (value, _, _) in record.result["miss_rates"].items()}
        assert found == pytest.approx(miss_rates(*detected(finished)), abs=0.5)
        assert found["reasonable"] < 95, "or nothing here says anything"
        assert record.result["pedestrians"].keys() == set(SETTINGS)
        assert record.epochs[-1]["test_accuracy"] == pytest.approx(100 - found["reasonable"])

    def test_interrupted_and_resumed_it_ends_with_the_same_bits(self, tmp_path, monkeypatch):
        ((whole,), _) = train(tmp_path / "whole", config())
        real = DetectionTrial.train_epoch

        def interrupted(self, epoch):
            if epoch == 2:
                raise KeyboardInterrupt
            yield from real(self, epoch)

        monkeypatch.setattr(DetectionTrial, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, config())
        monkeypatch.setattr(DetectionTrial, "train_epoch", real)
        (directory,), shown = train(tmp_path, config())
        assert "continues after epoch 1" in shown
        assert outside_run(directory) == outside_run(whole)
        assert same(weights(directory), weights(whole))

    def test_what_is_compiled_is_what_runs(self, tmp_path, monkeypatch):
        ((plain,), _) = train(tmp_path, config(epochs=1))
        ran = set()

        def compiled(call, **_):
            def run(*args, **kwargs):
                ran.add(call.__self__)
                return call(*args, **kwargs)

            return run

        monkeypatch.setattr(torch, "compile", compiled)
        ((directory,), _) = train(tmp_path, config(epochs=1, compile=True))
        assert len(ran) == 2, "the backbone and the neck"
        assert directory != plain and same(weights(directory), weights(plain))

    @pytest.mark.parametrize("detector", ["faster-rcnn", "cascade-rcnn"])
    def test_two_stage_detectors_train_and_lose_channels_too(self, detector, tmp_path):
        chosen = config(detector=detector, neck_width=8, backbone="hrnet", epochs=1, averaging=0.9)
        ((directory,), _) = train(tmp_path, chosen)
        assert Record.load(directory).result["miss_rates"]["all"][0] <= 100
        found, _ = remove(tmp_path, str(directory), counts=(3,), cache=0.0)
        result = Record.load(found).result
        assert (result["detector"], result["channels"], result["count"]) == (detector, 8, 3)

    def test_averaged_weights_are_a_running_mean_and_survive_a_resume(self, tmp_path):
        images = boxed_streets("train", (64, 128), images=4)
        trial = DetectionTrial(config(averaging=0.5), images, images, 0)
        mean = {name: value.clone() for name, value in trial.model.named_parameters()}
        for step, _ in enumerate(trial.train_epoch(1)):
            for name, value in trial.raw.named_parameters():
                # The first step begins the mean.
                mean[name] = value.detach() if step == 0 else (mean[name] + value.detach()) / 2
                mean[name] = mean[name].clone()
        for name, value in trial.model.named_parameters():
            torch.testing.assert_close(value, mean[name])
        other = DetectionTrial(config(averaging=0.5), images, images, 0)
        other.load_state_dict(copy.deepcopy(trial.state_dict()))
        for one in (trial, other):
            torch.manual_seed(0)
            list(one.train_epoch(2))
        assert same(trial.model.state_dict(), other.model.state_dict())

    def test_the_backbone_starts_from_imagenets_weights_where_they_fit(self, monkeypatch):
        from torchvision.models import resnet18

        source = resnet18()
        opened = SimpleNamespace(model=source)
        monkeypatch.setattr(networks, "open_model", lambda name: opened)
        model = networks.build(config(width=64, weights="imagenet"))
        assert torch.equal(model.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
        with pytest.raises(InputError, match="width: expected ImageNet's with weights, got 4"):
            networks.build(config(weights="imagenet"))
        assert DetectionConfig.of(preset="citypersons", device="cpu").weights == "imagenet"

    def test_what_several_processes_do_not_train_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        for detector in ("faster-rcnn", "cascade-rcnn"):
            with pytest.raises(InputError, match=f"{detector}, whose random .* one process, not"):
                train(tmp_path / "out", config(detector=detector, backbone="hrnet"))
        with pytest.raises(InputError, match=r"checkpoint: expected one .* gpe detect train"):
            remove(tmp_path, "", preset="quick")

    def test_the_learning_rate_warms_up_and_falls(self):
        steps = config(schedule="steps", milestones=(1, 2), warmup=3, epochs=3)
        assert [_rate(steps, n, 4) for n in (0, 3, 4, 8)] == pytest.approx([1 / 3, 1, 0.1, 0.01])
        cosine = config(schedule="cosine", warmup=0, epochs=2)
        assert [_rate(cosine, n, 4) for n in (0, 4, 8)] == pytest.approx([1, 0.5, 0])


class TestRemoval:
    def test_the_rankings_are_those_of_the_necks_output(self, finished, removed):
        expected = ranked(finished, ("overall", "relative", "magnitude", "deviation"))
        arrays = load_arrays(removed)
        for mode, ranking in expected.items():
            found = arrays[f"scores.{mode}"]
            torch.testing.assert_close(found, ranking.scores, rtol=1e-4, atol=1e-7)

    def test_each_row_is_the_whole_network_without_these_channels(self, finished, removed):
        result, arrays = Record.load(removed).result, load_arrays(removed)
        assert result["channels"] == 12 and result["count"] == 2 and result["counts"] == [2, 5]
        names = ("overall", "relative", "magnitude", "deviation")
        orders = {name: arrays[f"order.{name}"] for name in names} | random_orders(12, 2)
        for mode, ranking in ranked(finished, ("matched:0", "matched:1")).items():
            orders[mode.replace(":", "/")] = ranking.order
        orders[""] = orders["overall"]
        assert len(result["rows"]) == 1 + 2 * 8
        for row in result["rows"]:
            channels = orders[row["order"]][: row["count"]].tolist()
            expected = miss_rates(*detected(finished, channels))
            assert {name: row[name] for name in expected} == pytest.approx(expected, abs=0.5)

    def test_differences_are_those_of_the_rows(self, removed):
        result = Record.load(removed).result
        rows = {(row["order"], row["count"]): row for row in result["rows"]}
        for name in result["miss_rates"]:
            random = (rows["random/0", 2][name] + rows["random/1", 2][name]) / 2
            value, low, high = result["targeted_less_random"][name]
            assert value == pytest.approx(rows["overall", 2][name] - random) and low <= high
            assert result["random_less_whole"][name][0] == pytest.approx(random - rows["", 0][name])
            alike = (rows["matched/0", 2][name] + rows["matched/1", 2][name]) / 2
            value, low, high = result["targeted_less_matched"][name]
            assert value == pytest.approx(rows["overall", 2][name] - alike) and low <= high
            for mode, one in result["controls"].items():
                assert one[name][0] == pytest.approx(rows[mode, 2][name])
        assert set(result["controls"]) == {"relative", "magnitude", "deviation"}
        assert 0 <= result["shared"]["2"] <= 2

    def test_other_rankings_are_a_choice(self, finished, tmp_path):
        directory, _ = remove(tmp_path, str(finished), modes=("overall", "magnitude"), counts=(2,))
        result = Record.load(directory).result
        assert [row["order"] for row in result["rows"]] == [
            *("", "overall", "magnitude", "random/0", "random/1"),
        ]
        assert "targeted_less_matched" not in result
        with pytest.raises(InputError, match="modes: expected overall among them, got magnitude"):
            remove(tmp_path, str(finished), modes=("magnitude",))
        with pytest.raises(InputError, match="modes: expected one of overall, relative"):
            remove(tmp_path, str(finished), modes=("overall", "taylor"))

    def test_without_a_cache_the_same_is_found(self, finished, removed, tmp_path):
        directory, _ = remove(tmp_path, str(finished), cache=0.0)
        assert Record.load(directory).result == Record.load(removed).result

    def test_interrupted_it_continues_with_the_same_bits(
        self, finished, removed, tmp_path, monkeypatch
    ):
        """The first time within the ranking, then within the removal."""
        monkeypatch.setattr(Partial, "SECONDS", 0.0)
        real, calls = removal.flip_difference, []

        def interrupted(*given):
            calls.append(given)
            if len(calls) == 5:  # of three a batch
                raise KeyboardInterrupt
            return real(*given)

        monkeypatch.setattr(removal, "flip_difference", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove(tmp_path, str(finished))
        monkeypatch.setattr(removal, "flip_difference", real)
        search, batches = layers.detections_without, []

        def interrupted_again(*given, **options):
            batches.append(given)
            if len(batches) == 2:
                raise KeyboardInterrupt
            return search(*given, **options)

        monkeypatch.setattr(layers, "detections_without", interrupted_again)
        with pytest.raises(KeyboardInterrupt):
            remove(tmp_path, str(finished))
        monkeypatch.setattr(layers, "detections_without", search)
        directory, _ = remove(tmp_path, str(finished))
        assert outside_run(directory) == outside_run(removed)
        assert not list(directory.glob("partial*"))

    def test_what_is_finished_is_kept(self, tmp_path, finished):
        directory, _ = remove(tmp_path, str(finished))
        again, shown = remove(tmp_path, str(finished))
        assert again == directory and "finished before" in shown

    @pytest.mark.parametrize("layer", ["backbone.layer3", "neck.p3"])
    def test_another_layer_loses_channels(self, finished, tmp_path, layer):
        """Ranked as any network's, and removed as by hand."""
        chosen = {"layer": layer, "modes": ("overall",), "counts": (3,), "count": 3}
        directory, _ = remove(tmp_path, str(finished), **chosen)
        assert layer in directory.name and f"of {layer}" in blocks_text(directory)
        ranking = ranked(finished, ("overall",), layer)["overall"]
        scores = load_arrays(directory)["scores.overall"]
        torch.testing.assert_close(scores, ranking.scores, rtol=1e-4, atol=1e-7)
        rows = {row["order"]: row for row in Record.load(directory).result["rows"]}
        expected = miss_rates(*detected(finished, ranking.top(3), layer))
        assert {name: rows["overall"][name] for name in expected} == pytest.approx(
            expected, abs=0.5
        )

    def test_one_level_is_ranked_and_loses_channels_by_itself(self, tmp_path):
        chosen = config(detector="faster-rcnn", neck_width=8, backbone="hrnet", epochs=1)
        ((trained,), _) = train(tmp_path, chosen)
        found, _ = remove(tmp_path, str(trained), counts=(3,), level=2, modes=("overall",))
        assert "level2" in found.name and "of level 2" in blocks_text(found)
        _, model = open_detector(EvaluationConfig.of(checkpoint=str(trained), device="cpu"))
        images = normalised(boxed_streets("val", (64, 128), images=12).images)
        with torch.no_grad():
            maps, mirrored = model.latent(images)[2], model.latent(images.flip(-1))[2]
        scores = (maps.mean((2, 3)) - mirrored.mean((2, 3))).abs().mean(0).double()
        torch.testing.assert_close(
            load_arrays(found)["scores.overall"], scores, rtol=1e-3, atol=1e-6
        )
        with pytest.raises(InputError, match="level: expected at most 4 of faster-rcnn, got 5"):
            remove(tmp_path, str(trained), level=5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"level": 1}, "level: expected at most 0 of csp, got 1"),
            ({"level": 0, "layer": "neck.p3"}, "level: expected none beside a layer, got 0"),
            (
                {"layer": "bbox_head.csp_cls"},
                "layer: expected one that begins with backbone or neck, got 'bbox_head.csp_cls'",
            ),
            ({"layer": "backbone.layer9"}, "layer: expected one of the network's.*; nearest: "),
        ],
    )
    def test_where_nothing_can_be_removed_is_said(self, finished, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            remove(tmp_path, str(finished), **options)

    def test_a_layer_that_is_not_there_is_told_before_the_training(self, tmp_path):
        chosen = AblationConfig.of(
            job="table-s1", detector="csp", layer="backbone.layer9", device="cpu"
        )
        with pytest.raises(InputError, match="layer: expected one of the network's"):
            launch(ablate, tmp_path, chosen)
        assert not list(tmp_path.glob("detect-*"))

    def test_more_channels_than_there_are_are_refused(self, finished, tmp_path):
        with pytest.raises(InputError, match="count: expected at most 12, got 13"):
            remove(tmp_path, str(finished), count=13)


class TestEvaluation:
    def test_a_run_scores_as_it_did(self, finished, tmp_path):
        chosen = EvaluationConfig.of(checkpoint=str(finished), device="cpu")
        ((directory,), _) = launch(evaluate, tmp_path, chosen)
        scored, trained = (Record.load(each).result for each in (directory, finished))
        assert scored["miss_rates"] == trained["miss_rates"]

    def test_anybodys_detections_are_scored(self, tmp_path):
        person = [1, 100, 50, 41, 100, 24000, 100, 50, 41, 100]
        names = [f"ulm_000000_0000{n}" for n in range(10, 20)]
        annotations(tmp_path / "anno_val.mat", {name: np.array([person]) for name in names})
        box = {"boxes": torch.tensor([[100.0, 50, 141, 150]]), "scores": torch.ones(1)}
        none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
        write_detections(tmp_path / "found.json", [box] * 5 + [none] * 5)
        options = {"checkpoint": str(tmp_path / "found.json"), "device": "cpu"}
        ((directory,), _) = launch(
            evaluate, tmp_path / "out", EvaluationConfig.of(**options), root=tmp_path
        )
        result = Record.load(directory).result
        assert result["images"] == 10 and result["pedestrians"]["heavy"] == 0
        assert {name: value[0] for name, value in result["miss_rates"].items()} == {
            "reasonable": pytest.approx(50),
            "all": pytest.approx(50),
        }
        # Another content is another run.
        write_detections(tmp_path / "found.json", [none] * 10)
        ((other,), _) = launch(
            evaluate, tmp_path / "out", EvaluationConfig.of(**options), root=tmp_path
        )
        assert other != directory
        assert Record.load(other).result["miss_rates"]["all"] == [100, 100, 100]

    def test_what_cannot_be_scored_is_refused_in_one_line(self, tmp_path):
        for options, message in (
            ({"checkpoint": "absent.json"}, "checkpoint: there is no absent.json"),
            ({"checkpoint": "absent.pth"}, "path: there is no absent.pth"),
        ):
            with pytest.raises(InputError, match=message):
                launch(evaluate, tmp_path, EvaluationConfig.of(device="cpu", **options))
        (tmp_path / "found.json").write_text("[]")
        chosen = EvaluationConfig.of(checkpoint=str(tmp_path / "found.json"), device="cpu")
        with pytest.raises(InputError, match=r"path: there is no .*anno_val\.mat"):
            launch(evaluate, tmp_path / "out", chosen, root=tmp_path)
        people = np.array([[2, 100, 50, 41, 100, 25000, 100, 50, 41, 100]])
        annotations(tmp_path / "anno_val.mat", {"ulm_000000_000010": people})
        with pytest.raises(InputError, match="data: expected pedestrians, got none in 1 images"):
            launch(evaluate, tmp_path / "out", chosen, root=tmp_path)


def test_boxes_of_pictures_are_found_missed_or_false():
    """A pedestrian who is found, one who is missed, a rider who is neither, and nobody."""
    rows = np.array(
        [[kind, x, 50, 41, 100, 24000, x, 50, 41, 100] for kind, x in ((1, 0), (1, 200), (2, 400))],
        float,
    )
    corners = [[x, 50.0, x + 41, 150] for x in (2, 402, 600)]
    found = {"boxes": torch.tensor(corners) / 2, "scores": torch.tensor([0.9, 0.8, 0.7])}
    told = _told(found, rows, 2.0, 0.0)
    assert told[:, 4].tolist() == [FOUND, FALSE, MISSED]
    torch.testing.assert_close(told[:, :4], torch.tensor([corners[0], corners[2],
                                                          [200.0, 50, 241, 150]]) / 2)  # fmt: skip


class TestConfig:
    @pytest.mark.parametrize("preset", DetectionConfig.PRESETS)
    @pytest.mark.parametrize("detector", ["csp", "faster-rcnn", "cascade-rcnn"])
    def test_presets_are_sound_for_each_detector(self, preset, detector):
        found = DetectionConfig.of(preset=preset, detector=detector, device="cpu")
        assert found.detector == detector and isinstance(found.width, int)

    def test_the_papers_row_stands_beside_its_network_alone(self):
        paper = DetectionConfig.of(
            preset="citypersons", detector="cascade-rcnn", device="cpu"
        ).paper
        assert paper["value"] == 7.55
        assert config().paper is None

    def test_full_width_removes_100_and_a_narrow_one_the_same_share(self):
        chosen = AblationConfig.of(job="table-s1", checkpoint="run", device="cpu")
        assert chosen.removed("csp", 768)[0] == chosen.removed("cascade-rcnn", 256)[0] == 100
        assert chosen.removed("csp", 96) == (12, (12, 24, 36, 48, 60, 72, 84))
        assert chosen.removed("faster-rcnn", 32) == (12, (4, 8, 12, 16, 20, 24, 28))

    def test_without_a_checkpoint_the_presets_detectors_are_trained(self):
        def names(**options):
            return [c.detector for c in AblationConfig.several(job="table-s1", **options)]

        assert names() == ["csp"]
        assert names(preset="streets") == ["faster-rcnn", "cascade-rcnn", "csp"]
        assert names(preset="streets", detector=("csp",), seed=(0, 1)) == ["csp", "csp"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"detector": "yolo"}, "detector: expected one of faster-rcnn, cascade-rcnn, csp"),
            ({"backbone": "hrnet"}, "backbone: expected one of resnet18, resnet50, got 'hrnet'"),
            ({"data": "citypersons"}, "size: expected none with citypersons"),
            ({"scales": (2.0, 1.0)}, "scales: expected the smaller one first, got 2.0, 1.0"),
            ({"averaging": 1.0}, "averaging: expected below 1, got 1.0"),
            ({"weights": "file.pth"}, "weights: expected imagenet or none, got 'file.pth'"),
            ({"optimizer": "adamw"}, "optimizer: expected one of adam, sgd"),
        ],
    )
    def test_wrong_options_are_named(self, options, message):
        with pytest.raises(InputError, match=message):
            config(**options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"job": "detect-ablate"}, "checkpoint: expected one or more, got none"),
            ({"job": "table-s1", "preset": "paper"}, "preset: expected one of quick, streets"),
            (
                {"job": "table-s1", "checkpoint": ["run"], "preset": "quick"},
                "preset: expected none beside a checkpoint, got quick",
            ),
        ],
    )
    def test_a_removal_without_its_network_is_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            AblationConfig.several(**options)
