"""Interrupted anywhere, the same command goes on, and its record is the uninterrupted one."""

import pytest
import torch

from gpe.ablation import sweep
from gpe.experiments.removal import classify
from gpe.experiments.removal import run as removal
from gpe.experiments.removal.config import ClassificationConfig, RemovalConfig
from gpe.records import load_arrays
from tests.experiments.tiny import config as classifier_config
from tests.experiments.tiny import launch, outside_run
from tests.experiments.tiny import train as train_classifier
from tests.experiments.tiny_segments import config, train

PARTS = 2  # that 64 images are ranked in
BATCHES = 32


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    ((directory,), _) = train(tmp_path_factory.mktemp("segments"), config(test_images=64))
    return str(directory)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    ((directory,), _) = train_classifier(tmp_path_factory.mktemp("runs"), classifier_config())
    return str(directory)


@pytest.fixture
def interrupt(monkeypatch):
    """A function that replaces another one: it counts its calls and ends one with Ctrl-C."""

    def at(module, name, call=None):
        real, calls = getattr(module, name), []

        def counted(*arguments, **options):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

        def undo():
            monkeypatch.setattr(module, name, real)
            return len(calls)

        return undo

    return at


def figure(job, network, out, **places):
    options = {"counts": (0, 4)} if job == "figure5" else {"random_seeds": 1}
    (chosen,) = RemovalConfig.several(job=job, checkpoint=[network], **options)
    ((directory,), _) = launch(removal.run, out, chosen, **places)
    return directory


def expect_same(one, other):
    records = [outside_run(each) for each in (one, other)]
    for record in records:  # of the first image that either saw
        assert record["result"].pop("measured", 0) < 1e-5
    assert records[0] == records[1]
    a, b = load_arrays(one), load_arrays(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert sorted(file.name for file in one.iterdir()) == sorted(f.name for f in other.iterdir())


@pytest.fixture(scope="module")
def whole(network, tmp_path_factory):
    """The directory of a job that nothing interrupted."""
    out, made = tmp_path_factory.mktemp("whole"), {}

    def of(job):
        made[job] = made.get(job) or figure(job, network, out)
        return made[job]

    return of


@pytest.mark.parametrize("job", ["rank", "figure4", "figure5", "figure6"])
def test_while_it_ranks(job, network, whole, tmp_path, interrupt):
    undo = interrupt(removal, "rank_channels", call=PARTS)
    with pytest.raises(KeyboardInterrupt):
        figure(job, network, tmp_path)
    assert undo() == PARTS
    undo = interrupt(removal, "rank_channels")
    directory = figure(job, network, tmp_path)
    assert undo() == 1  # the first part is kept
    expect_same(directory, whole(job))


def test_while_it_removes(network, whole, tmp_path, interrupt, monkeypatch):
    """Where nothing is ranked again, and the first batches are not run again."""
    monkeypatch.setattr(sweep, "SECONDS", 0.0)
    done = 24  # batches
    undo = interrupt(sweep, "_unpacked", call=done + 1)
    with pytest.raises(KeyboardInterrupt):
        figure("figure4", network, tmp_path)
    undo()
    ranked, removed = interrupt(removal, "rank_channels"), interrupt(sweep, "_confusion")
    directory = figure("figure4", network, tmp_path)
    resumed = removed()
    assert ranked() == 0
    expect_same(directory, whole("figure4"))

    removed = interrupt(sweep, "_confusion")
    figure("figure4", network, tmp_path, force=True)
    assert resumed * BATCHES == removed() * (BATCHES - done)


def test_it_starts_again_where_that_is_asked_for(network, whole, tmp_path, interrupt):
    undo = interrupt(removal, "rank_channels", call=PARTS)
    with pytest.raises(KeyboardInterrupt):
        figure("rank", network, tmp_path)
    undo()
    undo = interrupt(removal, "rank_channels")
    directory = figure("rank", network, tmp_path, resume=False)
    assert undo() == PARTS
    expect_same(directory, whole("rank"))


def test_half_a_file_of_a_part_is_made_again(network, whole, tmp_path, interrupt):
    undo = interrupt(removal, "rank_channels", call=PARTS)
    with pytest.raises(KeyboardInterrupt):
        figure("rank", network, tmp_path)
    undo()
    (part,) = tmp_path.glob("*/partial-ranking-0")
    part.write_bytes(part.read_bytes()[:100])
    undo = interrupt(removal, "rank_channels")
    directory = figure("rank", network, tmp_path)
    assert undo() == PARTS
    expect_same(directory, whole("rank"))


@pytest.mark.parametrize("stop", ["rank_channels", "classifier_sweep"])
def test_of_a_classifier(stop, classifier, tmp_path, interrupt):
    """Of 50 images in two parts; the latents of finished ones are kept as well."""
    options = {"images": 50, "batch_size": 16, "random_seeds": 1, "device": "cpu"}
    chosen = ClassificationConfig(model=classifier, data="digits", **options)
    ((expected,), _) = launch(classify.run, tmp_path / "whole", chosen)
    undo = interrupt(classify, stop, call=PARTS if stop == "rank_channels" else 1)
    with pytest.raises(KeyboardInterrupt):
        launch(classify.run, tmp_path / "cut", chosen)
    undo()
    undo = interrupt(classify, "rank_channels")
    ((directory,), _) = launch(classify.run, tmp_path / "cut", chosen)
    assert undo() == (1 if stop == "rank_channels" else 0)
    expect_same(directory, expected)
