"""Killed at any moments, Figure 4 ends with the record of a run that was left in peace."""

import json
import subprocess
import sys

import torch

from gpe.records import load_arrays
from tests.experiments.tiny import outside_run
from tests.experiments.tiny_segments import config, train

KILLS, SEED = 4, 0


def finished(out):
    """The record and arrays of the one run below a directory."""
    (directory,) = out.iterdir()
    record = outside_run(directory)
    assert record["result"].pop("measured") < 1e-5, "of the first image that it saw"
    assert not list(directory.glob("partial*"))
    return record, load_arrays(directory)


def test_killed_at_random_moments_it_ends_with_the_same_record(tmp_path):
    ((network,), _) = train(tmp_path / "network", config(test_images=64))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.experiments.removal.killing", out, network, KILLS, SEED]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert len(left) == KILLS and any("partial" in "".join(names) for names in left)
    whole, arrays = finished(out / "whole")
    others = [each for each in out.iterdir() if each.name != "whole"]
    assert others
    for each in others:
        record, found = finished(each)
        assert record == whole and found.keys() == arrays.keys()
        assert all(torch.equal(found[name], arrays[name]) for name in arrays)
