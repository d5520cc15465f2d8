"""Two processes train what one trains, and continue what the other number began."""

import json
import subprocess
import sys
import time

import pytest
import torch

from gpe.errors import InputError
from gpe.experiments.processes import expect_enough, expect_one_process
from gpe.records import Record, load_arrays
from tests.experiments.tiny import runs, weights
from tests.experiments.trainings import JOBS

ALONE = [sys.executable, "-m"]
PAIR = [*ALONE, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
NAMES = ("test_accuracy", "test_loss", "train_loss", "train_accuracy")


def trained(how, out, names, *stop):
    command = [*how, "tests.experiments.trainings", str(out), ",".join(names), *map(str, stop)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    done = trained(ALONE, out, JOBS)
    assert done.returncode == 0, done.stderr
    return out


def expect_same(one, two, name, losses=True):
    """Losses, test results and weights of one job below two directories, to 1e-4."""
    if losses:
        steps = [json.loads((out / "losses.json").read_text())[name] for out in (one, two)]
        assert len(steps[0]) == len(steps[1]) >= 20
        torch.testing.assert_close(*map(torch.tensor, steps), rtol=0, atol=1e-4)
    places = [out / JOBS[name][1].name for out in (one, two)]
    epochs = [Record.load(place).epochs for place in places]
    for before, after in zip(*epochs, strict=True):
        assert [after[each] for each in NAMES] == pytest.approx(
            [before[each] for each in NAMES], abs=0.02 if name == "segment" else 1e-4
        )
    kept, found = map(weights, places)
    assert kept.keys() == found.keys(), "no name of a module that only several processes have"
    for each, value in kept.items():
        torch.testing.assert_close(found[each], value, rtol=1e-3, atol=1e-4)


def test_two_processes_train_the_network_that_one_trains(alone, tmp_path):
    """The losses of all steps, the tests and the weights, of each kind of training."""
    done = trained(PAIR, tmp_path, JOBS)
    assert done.returncode == 0, done.stderr
    for name in JOBS:
        expect_same(alone, tmp_path, name)
    for name in ("gapnet", "permutenet"):
        place = JOBS[name][1].name
        one, two = (load_arrays(out / place) for out in (alone, tmp_path))
        assert torch.equal(one["confusion"], two["confusion"]), "of the whole test set, in order"
        assert torch.equal(one["predictions"], two["predictions"])
    records = [Record.load(run) for run in runs(tmp_path)]
    assert [record.run["processes"] for record in records] == [2] * len(JOBS)
    assert all(record.run["sync_batch_norm"] for record in records)


def test_a_killed_process_ends_the_other_and_one_alone_continues(alone, tmp_path):
    start = time.monotonic()
    killed = trained(PAIR, tmp_path, ["gapnet"], 6)
    assert killed.returncode != 0 and time.monotonic() - start < 120
    assert "SIGKILL" in killed.stderr and not runs(tmp_path)
    assert trained(ALONE, tmp_path, ["gapnet"]).returncode == 0
    expect_same(alone, tmp_path, "gapnet", losses=False)


def test_two_processes_continue_what_one_began(alone, tmp_path):
    assert trained(ALONE, tmp_path, ["gapnet"], 6).returncode != 0
    done = trained(PAIR, tmp_path, ["gapnet"])
    assert done.returncode == 0, done.stderr
    expect_same(alone, tmp_path, "gapnet", losses=False)
    losses = json.loads((tmp_path / "losses.json").read_text())["gapnet"]
    assert len(losses) == 16, "the first of five epochs of four steps was not done again"


def test_an_image_of_each_batch_for_each_process(monkeypatch):
    monkeypatch.setattr("gpe.experiments.processes.count", lambda: 4)
    expect_enough(20, 8)
    with pytest.raises(InputError, match="got 3 in the last batch of 19 images"):
        expect_enough(19, 8)


def test_what_several_processes_would_repeat_is_refused(monkeypatch):
    expect_one_process("gpe atlas")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="gpe atlas runs in one process, not in 2"):
        expect_one_process("gpe atlas")
