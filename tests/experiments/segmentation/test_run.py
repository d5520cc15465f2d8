"""Segmentation runs: what they leave behind, and that it is true."""

import json

import pytest
import torch
from torch.nn import functional as F

from gpe.data import segmentation_set
from gpe.data.street_scene import CLASSES
from gpe.errors import InputError
from gpe.experiments.runs import CHECKPOINT
from gpe.experiments.segmentation import run as segmentation
from gpe.experiments.segmentation.config import EvaluationConfig, SegmentationConfig
from gpe.experiments.segmentation.run import PixelTally, SegmentationTrial, build
from gpe.experiments.segmentation.run import evaluate as evaluate_all
from gpe.experiments.segmentation.scores import REGIONS, region_scores
from gpe.experiments.trained import open_trained
from gpe.models.deeplab import deeplabv3
from gpe.records import RECORD, Record, load_arrays
from tests.data import labelled_trees as trees
from tests.experiments.tiny import launch, outside_run, same, weights
from tests.experiments.tiny_segments import config, train

PRESETS = SegmentationConfig.PRESETS


def evaluate(checkpoint, out, *, root="data", **options):
    """The directory of one score."""
    chosen = EvaluationConfig.of(checkpoint=str(checkpoint), **OPTIONS | options)
    ((directory,), _) = launch(evaluate_all, out, chosen, root=root)
    return directory


OPTIONS = {"batch_size": 2, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    ((directory,), _) = train(tmp_path_factory.mktemp("segments"), config())
    return directory


class TestRuns:
    def test_the_record_holds_miou_by_region_and_class(self, finished):
        record = Record.load(finished)
        assert record.experiment == "segment"
        assert [metrics["epoch"] for metrics in record.epochs] == [1, 2]
        result = record.result
        assert tuple(result["miou"]) == tuple(result["iou"]) == REGIONS
        assert result["classes"] == list(CLASSES) and result["images"] == 5
        for region, miou in result["miou"].items():
            present = [value for value in result["iou"][region] if value is not None]
            assert miou == pytest.approx(sum(present) / len(present))
        assert result["pixel_accuracy"] == pytest.approx(record.epochs[-1]["test_accuracy"])

    def test_arrays_hold_pictures_of_what_the_network_says(self, finished):
        arrays = load_arrays(finished)
        segmenter = open_trained(str(finished))
        found = segmentation_set("streets", size=(32, 64), images=5)
        for place in range(5):
            image, labels = found.samples[place]
            assert torch.equal(arrays[f"image{place}"], image)
            assert torch.equal(arrays[f"labels{place}"], labels)
            with torch.no_grad():
                logits = segmenter.model(found.normalise(image[None]))["out"]
            assert torch.equal(arrays[f"predictions{place}"].long(), logits[0].argmax(0))
        assert "image5" not in arrays
        assert arrays["palette"].tolist() == [list(colour) for colour in found.palette]

    def test_the_same_seed_gives_the_same_bits_another_one_others(self, finished, tmp_path):
        (again, other), _ = train(tmp_path, config(), config(seed=1))
        assert outside_run(again) == outside_run(finished)
        assert same(weights(again), weights(finished))
        assert not same(weights(other), weights(finished))

    def test_interrupted_and_resumed_it_ends_with_the_same_bits(
        self, finished, tmp_path, monkeypatch
    ):
        real = SegmentationTrial.train_epoch

        def interrupted(self, epoch):
            if epoch == 2:
                raise KeyboardInterrupt
            yield from real(self, epoch)

        monkeypatch.setattr(SegmentationTrial, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, config())
        monkeypatch.setattr(SegmentationTrial, "train_epoch", real)
        (directory,), shown = train(tmp_path, config(), resume=True)
        assert "continues after epoch 1" in shown
        assert outside_run(directory) == outside_run(finished)
        assert same(weights(directory), weights(finished))

    def test_training_lowers_the_loss_and_beats_one_answer_for_all(self, tmp_path):
        """The largest class everywhere has an mIoU below 5 %."""
        options = {"train_images": 32, "epochs": 6, "width": 8, "learning_rate": 0.1}
        (directory,), _ = train(tmp_path, config(**options))
        record = Record.load(directory)
        losses = [metrics["train_loss"] for metrics in record.epochs]
        assert losses[-1] < 0.7 * losses[0]
        assert record.result["miou"]["full"] > 10

    def test_the_learning_rates_fall_to_nothing_with_the_power_asked_for(self):
        found = segmentation_set("streets", split="train", size=(32, 64), images=8)
        trial = SegmentationTrial(config(backbone_rate=0.5, power=0.9, epochs=3), found, found)
        rates = []
        for epoch in (1, 2, 3):
            for _ in trial.train_epoch(epoch):
                rates.append([group["lr"] for group in trial.optimizer.param_groups])
        expected = [0.1 * (1 - step / 6) ** 0.9 for step in range(1, 7)]
        assert [head for head, _ in rates] == pytest.approx(expected)
        assert [backbone for _, backbone in rates] == pytest.approx([r / 2 for r in expected])

    def test_an_epoch_has_whole_batches_only(self):
        found = segmentation_set("streets", split="train", size=(32, 64), images=9)
        trial = SegmentationTrial(config(), found, found)
        assert [tally.count for tally in trial.train_epoch(1)] == [4, 8]
        assert trial.images_per_epoch == 8

    def test_camvid_trains_on_crops_from_files(self, tmp_path):
        root = trees.camvid(tmp_path, (("train", 4), ("val", 2)), (40, 60))
        options = {"size": None, "train_images": None, "crop": (32, 48), "batch_size": 2}
        (directory,), _ = train(tmp_path, config("camvid", epochs=1, **options), root=root)
        result = Record.load(directory).result
        assert len(result["classes"]) == 11 and result["images"] == 2
        assert load_arrays(directory)["image0"].shape == (3, 40, 60)

    def test_fewer_images_than_a_batch_are_refused_before_training(self, tmp_path):
        with pytest.raises(InputError, match=r"batch_size: expected at most 3, .* got 4"):
            train(tmp_path / "out", config(train_images=3))
        assert not (tmp_path / "out").exists()

    def test_the_backbone_starts_from_a_file(self, tmp_path):
        from torchvision.models import resnet18

        source = resnet18()
        torch.save(source.state_dict(), tmp_path / "resnet18.pth")
        options = {"width": 64, "weights": str(tmp_path / "resnet18.pth")}
        model = build(config(**options), 9)
        assert torch.equal(model.backbone.conv1.weight, source.conv1.weight)
        assert torch.equal(model.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)

    def test_bf16_trains_too(self, tmp_path):
        (directory,), _ = train(tmp_path, config(precision="bf16", epochs=1))
        assert Record.load(directory).result["miou"]["full"] > 0


class TestTally:
    def test_loss_and_accuracy_are_of_pixels_that_count(self):
        draw = torch.Generator().manual_seed(0)
        tally, losses, hits = PixelTally(), [], []
        for _ in range(3):
            logits = torch.randn(2, 4, 5, 6, generator=draw)
            labels = torch.randint(4, (2, 5, 6), generator=draw).byte()
            labels[torch.rand(labels.shape, generator=draw) < 0.3] = 255
            loss = tally.add(logits, labels)
            chosen = labels != 255
            each = F.cross_entropy(logits, labels.long() % 4, reduction="none")[chosen]
            torch.testing.assert_close(loss, each.mean())
            losses.append(each)
            hits.append((logits.argmax(1) == labels)[chosen])
        assert tally.count == 6
        assert tally.loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
        assert tally.accuracy == pytest.approx(100 * torch.cat(hits).float().mean().item())

    def test_nothing_but_ignored_pixels_costs_nothing(self):
        logits = torch.randn(1, 3, 2, 2, requires_grad=True)
        tally = PixelTally()
        loss = tally.add(logits, torch.full((1, 2, 2), 255, dtype=torch.uint8))
        loss.backward()
        assert loss == 0 and not logits.grad.any() and (tally.loss, tally.accuracy) == (0, 0)


class TestScores:
    def test_they_are_those_of_predictions_at_full_size(self):
        """Against counting with plain loops over regions and classes."""
        torch.manual_seed(0)
        model = deeplabv3("resnet18", 9, width=4).eval()
        found = segmentation_set("streets", size=(32, 64), images=3)
        result, _ = region_scores(model, found, batch_size=2)
        (batch,) = found.batches(3)
        with torch.no_grad():
            predictions = model(batch.images)["out"].argmax(1)
        for region, columns in {
            "full": slice(64),
            "left": slice(32),
            "centre": slice(16, 48),
            "right": slice(32, 64),
        }.items():
            said, true = predictions[..., columns], batch.labels[..., columns]
            said = said[true != 255]
            true = true[true != 255]
            for label in range(9):
                union = ((said == label) | (true == label)).sum().item()
                hits = ((said == label) & (true == label)).sum().item()
                expected = 100 * hits / union if union else None
                assert result["iou"][region][label] == pytest.approx(expected, abs=0.5)

    def test_a_network_for_other_classes_is_refused(self):
        found = segmentation_set("streets", size=(32, 64), images=1)
        with pytest.raises(InputError, match="for the 9 classes of streets, got one for 4"):
            region_scores(deeplabv3("resnet18", 4, width=4).eval(), found, batch_size=1)


class TestEvaluation:
    def test_a_run_scores_on_its_own_data_as_it_did(self, finished, tmp_path):
        directory = evaluate(finished, tmp_path, images=5)
        record, trained = Record.load(directory), Record.load(finished)
        assert record.result == {
            name: value for name, value in trained.result.items() if name not in ("last", "best")
        }
        assert record.experiment == "segment" and record.epochs == []
        assert record.config["size"] == [32, 64] and record.config["network"] == finished.name
        mine, its = load_arrays(directory), load_arrays(finished)
        assert same(mine, its)

    @pytest.mark.parametrize("form", ["torchvision", "authors"])
    def test_files_of_weights_score_too(self, form, tmp_path):
        torch.manual_seed(1)
        model = deeplabv3("resnet50", 11, output_stride=8, width=8)
        state = model.state_dict()
        if form == "authors":
            state = {
                name.replace("classifier.", "classifier.classifier.", 1): value
                for name, value in state.items()
            }
            state = {"model_state": state}
        torch.save(state, tmp_path / "weights.pth")
        root = trees.camvid(tmp_path)
        options = {"data": "camvid", "root": root, "output_stride": 8}
        directory = evaluate(str(tmp_path / "weights.pth"), tmp_path / "out", **options)
        record = Record.load(directory)
        expected, _ = region_scores(model.eval(), segmentation_set("camvid", root), batch_size=2)
        assert record.result == json.loads(json.dumps(expected))
        assert record.config["network"] == "weights.pth"

    def test_another_dataset_has_its_own_size_and_split(self, finished, tmp_path):
        with pytest.raises(InputError, match=r"data: expected a set with the classes of .* camvid"):
            evaluate(
                str(finished),
                tmp_path / "out",
                data="camvid",
                root=trees.camvid(tmp_path),
            )
        assert not (tmp_path / "out").exists()

    def test_a_file_needs_data(self, tmp_path):
        torch.save(deeplabv3("resnet18", 9, width=4).state_dict(), tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"data: expected one of streets, .* got none"):
            evaluate(str(tmp_path / "w.pth"), tmp_path)

    def test_what_is_no_checkpoint_is_refused(self, finished, tmp_path):
        with pytest.raises(InputError, match=r"model: there is no .*checkpoint\.pt"):
            open_trained(str(tmp_path))
        torch.save({"config": {}}, tmp_path / CHECKPOINT)
        with pytest.raises(InputError, match="augshift or segment train: StopIteration"):
            open_trained(str(tmp_path))
        with pytest.raises(InputError, match=r"there is no .*absent"):
            open_trained(str(tmp_path / "absent.pth"))
        with pytest.raises(InputError, match="output_stride: expected none without a file, got 8"):
            open_trained(str(finished), output_stride=8)

    def test_a_loaded_run_tells_its_classes_and_options(self, finished):
        segmenter = open_trained(str(finished))
        assert segmenter.classes == CLASSES and segmenter.name == finished.name
        assert segmenter.config["data"] == "streets" and not segmenter.model.training


class TestConfig:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_presets_are_sound_and_options_take_their_place(self, preset):
        assert SegmentationConfig.of(preset=preset).data == PRESETS[preset]["data"]
        assert SegmentationConfig.of(preset=preset, epochs=3, width=None).epochs == 3

    def test_only_mirrored_where_left_and_right_are_alike(self):
        flips = {preset: SegmentationConfig.of(preset=preset).flip for preset in PRESETS}
        assert flips == {"quick": False, "camvid": False, "cityscapes": True}

    def test_each_configuration_has_a_directory_of_its_own(self):
        names = {config(seed=seed, power=power).name for seed in (0, 1) for power in (0.9, 1.0)}
        assert len(names) == 4

    def test_the_papers_number_stands_beside_its_network_alone(self):
        assert SegmentationConfig.of(preset="cityscapes").paper["value"] == 74.0
        assert SegmentationConfig.of(preset="cityscapes", backbone="resnet18").paper is None
        assert config().paper is None

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"data": "kitti"}, "data: expected one of streets, camvid, cityscapes, voc"),
            ({"backbone": "vgg"}, "backbone: expected one of resnet18, resnet50, got 'vgg'"),
            ({"output_stride": 4}, "output_stride: expected 8 or 16, got 4"),
            ({"precision": "fp8"}, "precision: expected one of fp32, bf16"),
            ({"epochs": 0}, "epochs: expected at least 1, got 0"),
            ({"batch_size": 1}, "batch_size: expected at least 2, got 1"),
            ({"train_images": 0}, "train_images: expected at least 1, got 0"),
            ({"size": (3,)}, "size: expected 2 values, got 1: 3"),
            ({"crop": (0, 3)}, "crop: expected at least 1, got 0"),
            ({"scales": (2.0, 1.0)}, "scales: expected the smaller one first"),
            ({"weights": "imagenet"}, "width: expected 64 with weights, got 4"),
            ({"learning_rate": 0.0}, "learning_rate: expected above 0, got 0"),
            ({"momentum": float("nan")}, "momentum: expected at least 0, got nan"),
            ({"seed": -1}, "seed: expected at least 0, got -1"),
            ({"device": "tpu"}, "device: expected cpu, cuda or cuda:N, got 'tpu'"),
        ],
    )
    def test_wrong_options_are_refused(self, options, complaint):
        with pytest.raises(InputError, match=complaint):
            config(**options)
        with pytest.raises(InputError, match="preset: expected one of quick, camvid, cityscapes"):
            SegmentationConfig.of(preset="fast")


def test_finished_runs_are_left_alone_unless_forced(finished, monkeypatch):
    monkeypatch.setattr(segmentation, "SegmentationTrial", None)  # nothing is to be built
    before = (finished / RECORD).stat().st_mtime_ns
    _, shown = train(finished.parent, config())
    assert "finished before" in shown and (finished / RECORD).stat().st_mtime_ns == before
