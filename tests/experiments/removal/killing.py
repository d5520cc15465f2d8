"""Runs Figure 4 and kills it again and again, for test_kills.py.

``python -m tests.experiments.removal.killing OUT NETWORK KILLS SEED`` leaves a run that nothing
killed in ``OUT/whole``, and in ``OUT/0``, ``OUT/1``, … those that ended in spite of the kills. It
prints the names of the files that each kill left.
"""

import json
import random
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import torch

from gpe.ablation import sweep
from gpe.experiments.removal.config import RemovalConfig
from gpe.experiments.removal.run import run
from gpe.experiments.runs import Partial
from tests.experiments.tiny import launch


def figure4(out: Path, network: str) -> None:
    (config,) = RemovalConfig.several(
        job="figure4", checkpoint=[network], random_seeds=1, device="cpu"
    )
    launch(run, out, config)


def survives(out: Path, network: str, seconds: float | None = None) -> bool:
    """Whether a process ended before it was killed, after so many seconds."""
    process = get_context("fork").Process(target=figure4, args=(out, network))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return False
    if process.exitcode:
        raise SystemExit(f"ended with {process.exitcode}")
    return True


def main(out: Path, network: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)  # or a process that is forked might wait for threads for ever
    Partial.SECONDS = sweep.SECONDS = 0.0
    start = time.monotonic()
    survives(out / "whole", network)
    length, moments = time.monotonic() - start, random.Random(seed)
    left, ended = [], 0
    while len(left) < kills:
        below = out / str(ended)
        if survives(below, network, moments.uniform(0, length)):
            ended += 1
        else:
            left.append(sorted(file.name for file in below.glob("*/*")))
    survives(out / str(ended), network)
    print(json.dumps(left))


if __name__ == "__main__":
    directory, trained, times, drawn = sys.argv[1:]
    main(Path(directory), trained, int(times), int(drawn))
