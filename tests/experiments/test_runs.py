"""One policy for runs: finished ones are kept, interrupted ones continued, stale ones run again."""

import io
import json
import os
import sys

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from gpe.errors import InputError
from gpe.experiments.consistency import run as consistency
from gpe.experiments.consistency.config import ConsistencyConfig
from gpe.experiments.location.run import LocationTrial
from gpe.experiments.options import Places
from gpe.experiments.progress import Progress
from gpe.experiments.runs import CHECKPOINT, Partial, record, run_all
from gpe.experiments.segmentation import run as segmentation
from gpe.experiments.segmentation.config import EvaluationConfig
from gpe.metrics import RegionIoU, ShiftConsistency
from gpe.records import RECORD, Record
from tests.experiments import tiny_segments
from tests.experiments.location.test_run import config as location_config
from tests.experiments.location.test_run import train as train_location
from tests.experiments.test_options import PaperConfig
from tests.experiments.tiny import launch, outside_run

FINISHED = "finished before; --force runs it again"


@pytest.fixture
def papers(tmp_path):
    """A function that runs configurations below ``out``: (directories, text shown, those run)."""

    def of(*configs, failing=None, **places):
        done = []

        def run(config, directory):
            done.append(config)
            partial = Partial(directory)
            count = (partial.load() or (0, {}))[0]
            partial.SECONDS = 0.0
            partial.save(count + 1, {})
            if config == failing:
                raise KeyboardInterrupt
            return record("paper", config, {"parts": count + 1}, chance=0.0)

        console = Console(file=io.StringIO())
        with pytest.raises(KeyboardInterrupt) if failing else open(os.devnull):
            run_all(configs, Places(out=tmp_path / "out", **places), Progress(console), run)
        return console.file.getvalue(), done

    return of


def stored(tmp_path, config):
    return Record.load(tmp_path / "out" / config.name)


def test_a_finished_run_is_said_and_skipped_unless_forced(papers, tmp_path):
    one, other = PaperConfig.of(), PaperConfig.of(side=3)
    assert papers(one)[1] == [one]
    shown, done = papers(one, other)
    assert shown == f"[1/2] {one.name}: {FINISHED}\n" and done == [other]
    assert papers(one, resume=False)[1] == [], "what is finished is not interrupted"
    assert papers(one, force=True)[1] == [one]
    assert stored(tmp_path, one).result == {"parts": 1}


def test_each_list_of_runs_is_counted_from_one(papers, tmp_path):
    """As in the demo, which trains three lists of networks one after the other."""
    pair = [PaperConfig.of(), PaperConfig.of(side=3)]
    papers(*pair)
    console = Console(file=io.StringIO())
    progress = Progress(console)
    for _ in range(2):
        run_all(pair, Places(out=tmp_path / "out"), progress, lambda *_: None)
    assert [line[:5] for line in console.file.getvalue().splitlines()] == ["[1/2]", "[2/2]"] * 2


def test_an_interrupted_run_continues_unless_told_not_to(papers, tmp_path):
    one = PaperConfig.of()
    papers(one, failing=one)
    papers(one)
    assert stored(tmp_path, one).result == {"parts": 2}
    assert [file.name for file in (tmp_path / "out" / one.name).iterdir()] == [RECORD]
    other = PaperConfig.of(side=3)
    papers(other, failing=other)
    papers(other, resume=False)
    assert stored(tmp_path, other).result == {"parts": 1}


def test_a_forced_run_that_is_interrupted_is_not_finished(papers, tmp_path):
    one = PaperConfig.of()
    papers(one)
    papers(one, failing=one, force=True)
    assert not (tmp_path / "out" / one.name / RECORD).exists()
    papers(one)
    assert stored(tmp_path, one).result == {"parts": 2}


@pytest.mark.parametrize("finished", [True, False])
def test_a_forced_run_that_is_refused_loses_nothing(finished, papers, tmp_path):
    """As for a path to images that is wrong; what an interrupted forced run left stays away."""
    one = PaperConfig.of()
    directory = tmp_path / "out" / one.name

    def kept():
        return {file.name: file.read_bytes() for file in directory.iterdir()}

    def refuse(config, directory):
        raise InputError("data: there is none")

    papers(one)
    papers(one, failing=one, force=True)
    if finished:
        papers(one)
        (directory / CHECKPOINT).write_text("of a training")
    before = {name: text for name, text in kept().items() if not name.startswith(".before-")}
    for _ in range(2):
        with pytest.raises(InputError, match="data"):
            run_all(
                [one],
                Places(out=tmp_path / "out", force=True),
                Progress(Console(quiet=True)),
                refuse,
            )
        assert kept() == before
    assert (RECORD in before) == finished
    papers(one, force=True)
    assert [file.name for file in directory.iterdir()] == [RECORD]


def test_a_record_of_other_options_is_stale(papers, tmp_path):
    """As where a directory was copied by hand."""
    one = PaperConfig.of()
    papers(one)
    found = stored(tmp_path, one)
    found.config["side"], found.config["shape"] = 99, "flat"
    found.save(tmp_path / "out" / one.name)
    shown, done = papers(one)
    assert done == [one] and shown == f"{one.name}: is of another shape, side; runs again\n"
    assert stored(tmp_path, one).config["side"] == 32


def test_fields_that_have_come_since_do_not_make_a_record_stale(papers, tmp_path):
    one = PaperConfig.of()
    papers(one)
    found = stored(tmp_path, one)
    del found.config["digest"]
    found.save(tmp_path / "out" / one.name)
    assert papers(one)[1] == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiment": "paper"}', "\udcff"])
def test_a_record_that_cannot_be_read_is_made_again(content, papers, tmp_path):
    one = PaperConfig.of()
    papers(one)
    file = tmp_path / "out" / one.name / RECORD
    file.write_text(content, errors="surrogateescape")
    shown, done = papers(one)
    assert done == [one] and "its record cannot be read and is made again" in shown
    assert stored(tmp_path, one).result == {"parts": 1}


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(papers, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=r"out: cannot write to .*: (Not a directory|File exists)"):
        papers(PaperConfig.of())


def test_a_second_command_in_the_directory_of_a_run_says_so_and_ends(papers, tmp_path):
    """While the first is at work; what a killed one leaves keeps nobody out."""
    one = PaperConfig.of()
    directory = tmp_path / "out" / one.name
    directory.mkdir(parents=True)
    (directory / CHECKPOINT).touch()
    for places in ({}, {"force": True}):
        busy = pytest.raises(InputError, match=f"out: another command is at work in {directory}")
        with FileLock(directory / ".lock"), busy:
            papers(one, **places)
    assert (directory / CHECKPOINT).exists(), "it is the other's"
    (directory / CHECKPOINT).unlink()
    (directory / ".lock").touch()
    assert papers(one)[1] == [one]
    assert [file.name for file in directory.iterdir()] == [RECORD]


def test_what_is_refused_leaves_no_directory(tmp_path):
    def refuse(config, directory):
        raise InputError("data: there is none")

    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "new" / "deep", tmp_path / "mine"):
        with pytest.raises(InputError, match="data"):
            run_all([PaperConfig.of()], Places(out=out), Progress(Console(quiet=True)), refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_half_a_partial_file_is_no_file(tmp_path):
    partial = Partial(tmp_path)
    partial.SECONDS = 0.0
    partial.save(3, {"sums": torch.arange(4)})
    done, tensors = partial.load()
    assert done == 3 and torch.equal(tensors["sums"], torch.arange(4))
    for content in (partial.path.read_bytes()[:100], b"", json.dumps({"done": 1}).encode()):
        partial.path.write_bytes(content)
        assert partial.load() is None


# What is counted before an interruption is not counted again


class Interrupted(Exception):
    pass


def interrupted_at(monkeypatch, metric, number):
    """``metric.update`` fails at its ``number``-th call."""
    calls, real = [], metric.update

    def update(self, *arguments, **options):
        calls.append(len(calls))
        if len(calls) == number:
            raise Interrupted
        return real(self, *arguments, **options)

    monkeypatch.setattr(metric, "update", update)
    return calls


def compare(run, config, tmp_path, monkeypatch, metric, number):
    """Interrupted at a call and continued, the record is that of one that was left in peace."""
    monkeypatch.setattr(Partial, "SECONDS", 0.0)
    ((whole,), _) = launch(run, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        interrupted_at(patch, metric, number)
        with pytest.raises(Interrupted):
            launch(run, tmp_path / "parts", config)
    (left,) = (tmp_path / "parts").iterdir()
    assert [file.name for file in left.iterdir()] == ["partial"]
    with monkeypatch.context() as patch:
        calls = interrupted_at(patch, metric, 10**9)
        ((parts,), _) = launch(run, tmp_path / "parts", config)
    assert outside_run(parts) == outside_run(whole)
    assert not list(parts.glob("partial*"))
    return len(calls)


def test_consistency_continues_with_the_same_bits(tmp_path, monkeypatch):
    options = {"model": "squeezenet1_1", "weights": "random", "data": "digits", "device": "cpu"}
    options |= {"images": 12, "image_size": 32, "resize_size": 32, "batch_size": 4, "shifts": (2,)}
    chosen = ConsistencyConfig(**options)
    # Three batches, each counted without a shift and with one; the second batch fails.
    calls = compare(consistency.run, chosen, tmp_path, monkeypatch, ShiftConsistency, 4)
    assert calls == 4, "two batches, the first is not read again"


def test_an_evaluation_continues_with_the_same_bits(tmp_path, monkeypatch):
    ((network,), _) = tiny_segments.train(tmp_path / "runs", tiny_segments.config(epochs=1))
    chosen = EvaluationConfig.of(checkpoint=str(network), batch_size=1, images=4, device="cpu")
    assert compare(segmentation.evaluate, chosen, tmp_path, monkeypatch, RegionIoU, 3) == 2


def test_a_network_that_was_trained_again_is_scored_again(tmp_path):
    """The name of the score holds the content of the weights, not their path alone."""
    ((network,), _) = tiny_segments.train(tmp_path / "runs", tiny_segments.config(epochs=1))
    options = {"batch_size": 2, "images": 2, "device": "cpu"}
    chosen = EvaluationConfig.of(checkpoint=str(network), **options)
    ((first,), _) = launch(segmentation.evaluate, tmp_path / "out", chosen)
    _, shown = launch(segmentation.evaluate, tmp_path / "out", chosen)
    assert FINISHED in shown
    state = torch.load(network / CHECKPOINT, weights_only=True)
    state["trial"]["model"]["classifier.4.bias"] += 1
    torch.save(state, network / CHECKPOINT)
    ((second,), shown) = launch(segmentation.evaluate, tmp_path / "out", chosen)
    assert second != first and FINISHED not in shown


def test_no_resume_trains_from_the_first_epoch_again(tmp_path, monkeypatch):
    real = LocationTrial.train_epoch

    def stopping(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        yield from real(self, epoch)

    for resume, said in ((True, "continues after epoch 1"), (False, "epoch 1/2")):
        with monkeypatch.context() as patch:
            patch.setattr(LocationTrial, "train_epoch", stopping)
            with pytest.raises(KeyboardInterrupt):
                train_location(tmp_path / str(resume), location_config())
        _, shown = train_location(tmp_path / str(resume), location_config(), resume=resume)
        assert said in shown
        assert ("epoch 1/2" in shown) == (not resume)
