"""One trained network, wherever it comes from: what is known of it, and what is refused."""

import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.location.run import build
from gpe.experiments.runs import CHECKPOINT
from gpe.experiments.trained import open_trained
from gpe.models import GAPNet, deeplabv3, resnet18
from gpe.models.pretrained import open_model
from tests.experiments import tiny, tiny_segments
from tests.experiments.location.test_run import config as location_config
from tests.experiments.location.test_run import train as train_location


@pytest.fixture(scope="module")
def located(tmp_path_factory):
    ((directory,), _) = train_location(tmp_path_factory.mktemp("located"), location_config())
    return directory


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    tensors = [name for name in a if isinstance(a[name], torch.Tensor)]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in tensors)


def test_a_location_run_is_opened_with_its_weights_or_with_none(located):
    frozen, control = (open_trained(str(located), weights) for weights in ("pretrained", "random"))
    state = torch.load(located / CHECKPOINT, weights_only=True)["trial"]["model"]
    assert isinstance(frozen.model, GAPNet) and not frozen.model.training
    assert all(torch.equal(frozen.model.state_dict()[name], state[name]) for name in state)
    untrained = build(location_config(), 4)
    assert same(control.model, untrained)
    assert not same(control.model, open_trained(str(located), "random", seed=1).model)


def test_runs_of_augshift_and_segment_are_opened_too(tmp_path):
    (classifier,), _ = tiny.train(tmp_path, tiny.config(epochs=1))
    (segmenter,), _ = tiny_segments.train(tmp_path, tiny_segments.config(epochs=1))
    for directory, task in ((classifier, "classification"), (segmenter, "segmentation")):
        frozen = open_trained(str(directory))
        assert (frozen.task, frozen.inside) == (task, "backbone")
        state = torch.load(directory / CHECKPOINT, weights_only=True)["trial"]["model"]
        weights = frozen.model.state_dict()
        assert all(torch.equal(weights[name], state[name]) for name in state)
        control = open_trained(str(directory), "random")
        assert not same(control.model, frozen.model) and not control.model.training
        assert (control.mean, control.std) == (frozen.mean, frozen.std)


def test_files_of_location_and_segmentation_networks_are_told_apart(tmp_path):
    net = GAPNet(resnet18(width=4), 9)
    weights = net.backbone.state_dict() | net.classifier.state_dict(prefix="pre_classifier.")
    torch.save({"net": weights, "acc": 99.0, "epoch": 3}, tmp_path / "gapnet.pth")
    frozen = open_trained(str(tmp_path / "gapnet.pth"))
    assert frozen.task == "location" and isinstance(frozen.model, GAPNet)
    torch.save(deeplabv3("resnet18", 3, width=4).state_dict(), tmp_path / "deeplab.pth")
    assert open_trained(str(tmp_path / "deeplab.pth")).task == "segmentation"


def test_a_library_s_network_wants_its_own_mean_and_std():
    frozen, opened = open_trained("resnet18", "random"), open_model("resnet18", weights="random")
    assert (frozen.mean, frozen.std, frozen.name) == (opened.mean, opened.std, opened.name)
    assert same(frozen.model, open_trained("resnet18", "random").model)
    assert not same(frozen.model, open_trained("resnet18", "random", seed=1).model)


def test_the_digest_is_of_the_weights_and_of_no_name(located, tmp_path):
    """Copied and called otherwise it is the same network; with other weights another."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / CHECKPOINT).write_bytes((located / CHECKPOINT).read_bytes())
    first, copy = open_trained(str(located)), open_trained(str(tmp_path / "copy"))
    assert (first.digest, first.name, copy.name) == (copy.digest, located.name, "copy")
    assert open_trained(str(located), "random").digest != first.digest


def test_a_checkpoint_that_does_not_name_its_experiment_is_known_by_its_options(tmp_path):
    """As all of before."""
    (classifier,), _ = tiny.train(tmp_path, tiny.config(epochs=1))
    state = torch.load(classifier / CHECKPOINT, weights_only=True)
    before = open_trained(str(classifier))
    del state["experiment"]
    torch.save(state, classifier / CHECKPOINT)
    after = open_trained(str(classifier))
    assert (after.task, after.digest) == (before.task, before.digest)


def test_sizes_are_the_network_s_unless_they_are_given():
    assert open_trained("resnet18", "random").sizes == (224, 256)
    assert open_trained("resnet18", "random", image_size=260).sizes == (260, 260)
    assert open_trained("resnet18", "random", image_size=32, resize_size=40).sizes == (32, 40)


# Refusals


def test_a_network_without_sizes_says_so_where_some_are_needed(located):
    with pytest.raises(InputError, match=r"image_size: expected one with location-gapnet-.*tells"):
        open_trained(str(located)).sizes  # noqa: B018


def test_a_network_for_another_task_is_refused(located):
    with pytest.raises(InputError, match=r"model: expected a network for segmentation, got .*loc"):
        open_trained(str(located), tasks=["segmentation"])


@pytest.mark.parametrize("weights", ["random", "other.pth"])
def test_a_file_has_its_own_weights(tmp_path, weights):
    (tmp_path / "net.pth").write_bytes(b"")
    with pytest.raises(InputError, match="weights: expected pretrained"):
        open_trained(str(tmp_path / "net.pth"), weights)


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(InputError, match=r"model: there is no .*checkpoint\.pt"):
        open_trained(str(tmp_path))
    (tmp_path / "net.pth").write_bytes(b"no network")
    with pytest.raises(InputError, match="to hold a location or segmentation network, got neither"):
        open_trained(str(tmp_path / "net.pth"))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_run_that_does_not_say_what_it_was_trained_on_is_told(weights, tmp_path):
    state = {"config": vars(tiny.config()), "trial": {"model": {}}}
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"model: expected .*: KeyError: 'images'"):
        open_trained(str(tmp_path), weights)
