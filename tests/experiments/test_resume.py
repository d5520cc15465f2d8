"""A run that is killed again and again ends with the bits of one that is left in peace.

The command is run for real, in processes of its own, and killed at moments that are chosen: a
process stops there, says so, and waits for its end.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest
import torch

from gpe.experiments.runs import CHECKPOINT
from gpe.records import ARRAYS, RECORD, load_arrays

ROOT = Path(__file__).parents[2]
EPOCHS = 4
TINY = [
    *("--width", "4", "--schedule", "one-cycle", "--epochs", str(EPOCHS), "--batch-size", "16"),
    *("--train-images", "60", "--test-images", "40", "--test-batch-size", "16"),
    *("--image-size", "10", "--device", "cpu"),  # on a GPU cuDNN may add up in any order
]


class Case(NamedTuple):
    """A command that runs two configurations, and how it is killed.

    Each kill: during which of the two, at which moment, how, and what the next process says of
    the epoch it goes on from.
    """

    words: list[str]
    option: str  # that tells the two apart
    trial: str
    kills: list[tuple[str, str, signal.Signals, int | None]]


CASES = {
    "location": Case(
        ["location", "--network", "permutenet,gapnet", "--grid", "2"],
        "network",
        "gpe.experiments.location.run.LocationTrial",
        [
            ("permutenet", "epoch 1", signal.SIGKILL, None),
            ("permutenet", "epoch 3", signal.SIGKILL, 2),
            ("gapnet", "epoch 3", signal.SIGINT, 2),
            ("gapnet", "checkpoint 4", signal.SIGKILL, 3),
        ],
    ),
    "augshift": Case(
        [
            *("augshift", "--method", "blurpool,augshift", "--stem", "cifar"),
            *("--epoch-images", "48", "--shifts", "1,2"),
        ],
        "method",
        "gpe.experiments.augshift.run.AugShiftTrial",
        [
            ("blurpool", "epoch 3", signal.SIGINT, 2),
            ("augshift", "measure", signal.SIGKILL, EPOCHS),
        ],
    ),
}

# Runs the command line, but stops for good at a moment of one configuration's training.
STOP_AT = dedent("""
    import signal, sys, time
    from pkgutil import resolve_name
    import torch
    from gpe import cli

    # A shell has what it starts in the background ignore it, and that is handed on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Trial, option, value, moment = resolve_name(sys.argv.pop(1)), *(sys.argv.pop(1) for _ in "123")

    def stop():
        print("stopped", flush=True)
        time.sleep(600)

    def train_epoch(self, epoch, real=Trial.train_epoch):
        for step, tally in enumerate(real(self, epoch)):
            if (getattr(self.config, option), moment, step) == (value, f"epoch {epoch}", 2):
                stop()
            yield tally

    def measure(self, real=Trial.measure):
        if (getattr(self.config, option), moment) == (value, "measure"):
            stop()
        return real(self)

    def save(state, path, real=torch.save):
        real(state, path)
        epoch = len(state["history"]["epochs"])
        if (state["config"][option], moment) == (value, f"checkpoint {epoch}"):
            path.write_bytes(path.read_bytes()[:1000])
            stop()

    Trial.train_epoch, Trial.measure, torch.save = train_epoch, measure, save
    cli.main()
""")


@pytest.fixture(scope="module")
def environment():
    # Two threads only wait for each other on layers as small as these.
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def whole(case, environment, tmp_path_factory):
    """The directory of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    gpe(case, environment, out)
    return out


@pytest.fixture(scope="module")
def parts(case, environment, tmp_path_factory):
    """The directory of a run killed at all of its kills, and what each of its processes said."""
    out = tmp_path_factory.mktemp("parts")
    said = []
    for value, moment, how, _ in case.kills:
        command = [sys.executable, "-c", STOP_AT, case.trial, case.option, value, moment]
        process = subprocess.Popen(
            [*command, *case.words, *TINY, "--out", str(out)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stopped = process.stdout.readline()
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        assert stopped == "stopped\n", errors
        said.append((process.returncode, errors))
    last = gpe(case, environment, out, "--resume")
    return out, [*said, (last.returncode, last.stderr)]


def gpe(case, environment, out, *options):
    command = [sys.executable, "-m", "gpe.cli", *case.words, *TINY, "--json", "--out", str(out)]
    return subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=True
    )


def test_each_process_goes_on_from_the_last_epoch_that_was_whole(case, parts):
    """At most one epoch is lost, whatever the moment; a finished network is left alone."""
    _, said = parts
    first, *_, second = (value for value, *_ in case.kills)
    for (value, moment, _, done), (_, errors) in zip(case.kills, said[1:], strict=True):
        going_on = [line for line in errors.splitlines() if "continues after" in line]
        if done is None:
            assert going_on == []
            assert f"  epoch 1/{EPOCHS}" in errors
        else:
            assert len(going_on) == 1, (value, moment, errors)
            assert f"{value}-" in going_on[0]
            assert going_on[0].endswith(f"continues after epoch {done}")
            assert f"  epoch {done}/{EPOCHS}" not in after(errors, going_on[0])
        if value == second:
            (finished,) = [line for line in errors.splitlines() if "finished before" in line]
            assert "[1/2]" in finished and f"{first}-" in finished


def after(text, line):
    """What follows ``line`` in ``text``, up to the next run."""
    return text.split(line)[1].split("[2/2]")[0]


def test_an_interrupt_says_how_to_go_on_in_one_line(case, parts):
    _, said = parts
    for (_, _, how, _), (code, errors) in zip(case.kills, said, strict=False):
        if how == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 130
            *_, line = errors.splitlines()
            assert line == "gpe: interrupted; the same command continues where it stopped"
            assert errors.count("gpe:") == 1 and "Traceback" not in errors


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(case, whole, parts):
    """Weights, optimizer, schedule, permutations to come, pictures, and the record."""
    names = sorted(run.name for run in whole.iterdir())  # those of the configurations
    assert names == sorted(run.name for run in parts[0].iterdir())
    assert len(names) == 2
    for name in names:
        assert_same_run(parts[0] / name, whole / name)


def assert_same_run(ours, theirs):
    mine, other = (torch.load(run / CHECKPOINT, weights_only=True) for run in (ours, theirs))
    assert mine["trial"].keys() >= {"model", "optimizer", "scheduler"}
    generator = mine["trial"]["model"].get("_extra_state")
    assert (generator is not None) == (mine["config"]["network"] == "permutenet")
    for name in ("config", "trial"):
        assert_same(mine[name], other[name])
    assert mine["history"]["epochs"] == other["history"]["epochs"]

    assert_same(load_arrays(ours), load_arrays(theirs))
    mine, other = (json.loads((run / RECORD).read_text()) for run in (ours, theirs))
    assert len(mine["epochs"]) == EPOCHS
    assert mine.pop("run").keys() == other.pop("run").keys()
    assert mine == other


def assert_same(a, b):
    """Equal in all parts, tensors in dtype and every bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_of_a_write_that_was_killed_half_a_file_lies_beside_the_whole_ones(case, parts):
    """A kill during a checkpoint is one: its half is there, and nobody read it."""
    whole_files = {CHECKPOINT, ARRAYS, RECORD}
    halves = [file for file in parts[0].glob("*/*") if file.name not in whole_files]
    assert len(halves) == sum(moment.startswith("checkpoint") for _, moment, *_ in case.kills)
    for half in halves:
        assert half.name.startswith(f".{CHECKPOINT}.") and half.stat().st_size == 1000
