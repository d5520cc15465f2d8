"""Records of ``gpe detect`` and ``gpe table-s1`` as the report reads them, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from gpe.experiments.detection.config import LABELS, RANDOM, SETTINGS, TARGETED
from gpe.records import load_arrays
from gpe.report.grouping import told_apart
from gpe.report.runs import Run
from gpe.statistics import Estimate

_FIRST = ("preset", "seed", "size", "split", "checkpoint")  # tell apart before other options


@dataclass(frozen=True)
class Removed:
    """What a detector loses without channels of its latent; all by setting, in percent or points.

    Attributes:
        channels: of the latent.
        count: how many the table removes.
        rates: by order, random ones included, and count; of nothing removed at ``("", 0)``.
        targeted: with its interval, ``count`` removed.
        random_less_whole, targeted_less_random: differences over the same images.
    """

    channels: int
    count: int
    rates: dict[tuple[str, int], dict[str, float]]
    targeted: dict[str, Estimate]
    targeted_less_whole: dict[str, Estimate]
    random_less_whole: dict[str, Estimate]
    targeted_less_random: dict[str, Estimate]

    @property
    def draws(self) -> list[str]:
        """Names of the random orders."""
        return list(dict.fromkeys(name for name, _ in self.rates if name not in ("", TARGETED)))

    @property
    def counts(self) -> list[int]:
        return sorted({count for _, count in self.rates})

    def band(self, line: str, count: int, setting: str) -> tuple[float, float, float]:
        """Mean, lowest and highest of the random orders, or three times the one value."""
        if count == 0:
            values = [self.rates["", 0][setting]]
        else:
            names = self.draws if line == RANDOM else [line]
            values = [self.rates[name, count][setting] for name in names]
        return fmean(values), min(values), max(values)


@dataclass(frozen=True)
class Trial:
    """One detector, or one file of detections, on one set.

    Attributes:
        title: what it is and on what.
        label: of the detector, as Table S1 has it; the file's name of a file.
        detector: its name; empty of a file.
        rates: miss rates by setting with intervals over images, nothing removed.
        pedestrians: how many count in each setting.
        removed: None where nothing was.
    """

    title: str
    label: str
    detector: str
    config: dict[str, Any]
    directory: Path
    images: int
    rates: dict[str, Estimate]
    pedestrians: dict[str, int]
    paper: bool
    removed: Removed | None

    @property
    def settings(self) -> list[str]:
        """Those with pedestrians."""
        return [name for name in SETTINGS if name in self.rates]

    def arrays(self) -> dict[str, np.ndarray]:
        """Curves and pictures; what is missing is left out."""
        return {name: array.numpy() for name, array in load_arrays(self.directory).items()}


def read_all(runs: Sequence[Run]) -> list[Trial]:
    """The trials, each with a title that tells it from the others.

    Raises:
        InputError: a record lacks what such a record has.
    """
    trials = [run.read(_read) for run in runs]
    configs = [run.record.config for run in runs]
    names = [f"{trial.label} on {trial.config['data']}" for trial in trials]
    titles = told_apart(names, configs, _FIRST)
    return [
        Trial(**vars(trial) | {"title": title}) for trial, title in zip(trials, titles, strict=True)
    ]


def _read(run: Run) -> Trial:
    record, config, result = run.record, run.record.config, run.record.result
    detector = str(config.get("detector") or "")
    return Trial(
        title="",
        label=LABELS[detector] if detector else str(config["network"]),
        detector=detector,
        config=config,
        directory=run.directory,
        images=int(result["images"]),
        rates=_estimates(result["miss_rates"]),
        pedestrians={str(name): int(count) for name, count in result["pedestrians"].items()},
        paper=record.paper is not None,
        removed=_removed(result) if "rows" in result else None,
    )


def _removed(result: dict[str, Any]) -> Removed:
    differences = {
        name: _estimates(result[name])
        for name in ("targeted", "targeted_less_whole", "random_less_whole", "targeted_less_random")
    }
    rates = {
        (str(row["order"]), int(row["count"])): {
            name: float(row[name]) for name in SETTINGS if name in row
        }
        for row in result["rows"]
    }
    return Removed(int(result["channels"]), int(result["count"]), rates, **differences)


def _estimates(found: dict[str, Sequence[float]]) -> dict[str, Estimate]:
    return {str(name): Estimate(*map(float, values)) for name, values in found.items()}
