"""Trains one small network of each kind, for test_parallel.py: alone, or under torchrun.

``python -m tests.experiments.trainings OUT JOB,JOB [STOP]`` leaves the losses of all steps in
``OUT/losses.json``. With STOP the last of the processes is killed at that step.
"""

import json
import os
import signal
import sys
from pathlib import Path

from gpe.experiments.augshift.run import run as augshift
from gpe.experiments.detection.run import run as detect
from gpe.experiments.location.run import run as location
from gpe.experiments.processes import count, is_first, processes, rank, summed
from gpe.experiments.segmentation.run import run as segment
from gpe.experiments.training import NetworkTrial
from tests.experiments import tiny, tiny_detectors, tiny_segments
from tests.experiments.location import test_run as tiny_location

# The last batches have fewer images than the others, and batches do not halve into equal parts. At
# larger learning rates a weight that is off by 1e-7 makes losses that are off by 1e-2, in one
# process as well.
_AUGSHIFT = {"relative": True, "equal_compute": False, "width": 8, "weight": 0.5}
JOBS = {
    "gapnet": (location, tiny_location.config(batch_size=15, epochs=5, bn_batches=2)),
    "permutenet": (location, tiny_location.config(network="permutenet", batch_size=15, epochs=5)),
    "augshift": (
        augshift,
        tiny.config(**_AUGSHIFT, batch_size=14, epochs=4, learning_rate=1e-4),
    ),
    "detect": (
        detect,
        tiny_detectors.config(
            batch_size=3, train_images=10, epochs=7, learning_rate=1e-4, averaging=0.9
        ),
    ),
    "segment": (segment, tiny_segments.config(batch_size=3, epochs=7, learning_rate=1e-5)),
}


def main(out: Path, names: list[str], stop: int | None) -> None:
    losses: list[float] = []
    descend = NetworkTrial.descend

    def noted(self, loss, of):
        if len(losses) == stop and rank() == count() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        losses.append(float(summed(self.shared.weighted(loss, of).detach() / count())))
        descend(self, loss, of)

    NetworkTrial.descend = noted
    found = {}
    with processes():
        for name in names:
            losses.clear()
            tiny.launch(JOBS[name][0], out, JOBS[name][1])
            found[name] = list(losses)
        if is_first():
            (out / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    directory, jobs, *rest = sys.argv[1:]
    main(Path(directory), jobs.split(","), int(rest[0]) if rest else None)
