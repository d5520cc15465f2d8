"""pytest benches, with toy contestants and times that are given: who has lost, and what is kept."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benches import harness
from benches.harness import Race, race

BENCHES = Path(harness.__file__).parent
EVEN = [2.0, 40.0, 2.0, 2.0]  # one round met with noise
TOYS = """
from functools import partial
from benches.harness import Race


def races(device):
    yield partial(toy, "won", [4.0, 80.0, 4.0, 4.0])
    yield partial(toy, "lost", [1.0, 20.0, 1.0, 1.0])
    yield partial(toy, "wrong", [])


def toy(title, milliseconds):
    assert title != "wrong", "eager: a wrong result"
    times = {"gpe": [2.0, 40.0, 2.0, 2.0], "eager": milliseconds}
    return Race(title, 1, times, 1.0, {})
"""


def lost(**milliseconds):
    times = {name.replace("_", " "): each for name, each in milliseconds.items()}
    return Race("toy", 1, {"gpe": EVEN, **times}, 1.0, {}).lost()


def test_lost_to_a_rival_that_is_faster_in_three_quarters_of_the_rounds():
    (line,) = lost(eager=[1.0, 20.0, 1.0, 1.0], slow=[4.0, 80.0, 4.0, 4.0])
    assert line == (
        "toy: eager took 0.50 of the time of gpe, in three quarters of 4 rounds at most 0.50"
    )


@pytest.mark.parametrize(
    "milliseconds", [[1.85, 37.0, 1.85, 1.85], [1.0, 20.0, 3.0, 3.0], [1.0, 60.0, 1.0, 3.0]]
)
def test_not_lost_within_the_noise(milliseconds):
    assert lost(eager=milliseconds) == []


def test_bounds_and_forms_of_ours_are_no_rivals():
    fast = [1.0, 20.0, 1.0, 1.0]
    assert lost(gpe_stacked=fast, reading_alone=fast) == []
    assert lost(gpe_compiled=fast, compiled=fast) == []
    assert len(lost(compiled=fast)) == 1


def test_contestants_take_turns_in_shuffled_order(monkeypatch):
    monkeypatch.setattr(harness, "copy_bandwidth", lambda device: 1.0)
    taken = []
    steps = {name: lambda name=name: taken.append(name) for name in ("gpe", "eager", "other")}
    found = race("toy", steps, device="cpu", calls=1, bytes_moved=1, rounds=20)
    turns = [taken[at : at + 3] for at in range(0, len(taken), 3)]
    assert len(turns) == 3 + 20 and all(sorted(turn) == sorted(steps) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 3
    assert {name: len(times) for name, times in found.milliseconds.items()} == dict.fromkeys(
        steps, 20
    )


@pytest.fixture
def pytest_benches(tmp_path):
    """A function that runs the toys as `pytest benches` does; its output and what it saved."""
    for name in ("conftest.py", "pytest.ini"):
        shutil.copy(BENCHES / name, tmp_path)
    (tmp_path / "bench_toy.py").write_text(TOYS)

    # A worker of the tests would pass it on, and pytest-benchmark leaves workers alone.
    variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}

    def run(*options):
        command = [sys.executable, "-m", "pytest", ".", "--device", "cpu", "--save", "saved"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            env={**variables, "PYTHONPATH": str(BENCHES.parent)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        saved = json.loads((tmp_path / "saved/bench_toy-cpu.json").read_text())
        return done.stdout, saved

    return run


def test_a_wrong_result_and_a_lost_race_fail(pytest_benches):
    output, saved = pytest_benches("-p", "no:benchmark")
    assert "2 failed, 1 passed" in output
    assert "eager: a wrong result" in output
    assert "lost: eager took 0.50 of the time of gpe" in output
    assert [each["title"] for each in saved["races"]] == ["won", "lost"]
    assert {"hardware", "versions", "commit"} < set(saved)


def test_pytest_benchmark_gets_the_rounds_of_the_race(pytest_benches, tmp_path):
    pytest.importorskip("pytest_benchmark")
    output, saved = pytest_benches("--benchmark-json", "benchmark.json")
    assert "benchmark 'won': 2 tests" in output
    kept = json.loads((tmp_path / "benchmark.json").read_text())
    assert kept["machine_info"]["gpe"]["cpu"]["hardware"] == saved["hardware"]
    row = kept["benchmarks"][1]
    assert (row["group"], row["name"]) == ("won", "eager")
    assert row["stats"]["data"] == pytest.approx([0.004, 0.08, 0.004, 0.004])
    assert row["extra_info"] == saved["races"][0]["rows"][1]
    assert row["extra_info"]["times_ours"] == 2 and row["stats"]["rounds"] == 4
