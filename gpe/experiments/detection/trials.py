"""Records of ``gpe detect`` and ``gpe table-s1`` as the report reads them, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from gpe.experiments.detection.config import LABELS, SETTINGS, TARGETED
from gpe.experiments.removal.config import MODES, RANDOM
from gpe.experiments.removal.modes import band_of
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
        targeted_less_matched: likewise, from random orders that deviate as the targeted one does;
            empty without them.
        shared: by count, how many channels these share with the targeted one, on average.
        controls: by any other ranking what is missed, with its interval, ``count`` removed.
    """

    channels: int
    count: int
    rates: dict[tuple[str, int], dict[str, float]]
    targeted: dict[str, Estimate]
    targeted_less_whole: dict[str, Estimate]
    random_less_whole: dict[str, Estimate]
    targeted_less_random: dict[str, Estimate]
    targeted_less_matched: dict[str, Estimate]
    shared: dict[int, float]
    controls: dict[str, dict[str, Estimate]]

    @property
    def draws(self) -> list[str]:
        """Names of the random orders."""
        return self._orders(RANDOM)

    @property
    def lines(self) -> list[str]:
        """What is drawn and told of as one, random ones first and the targeted one last."""
        found = {band_of(name) or name for name, _ in self.rates} - {RANDOM, TARGETED}
        return [RANDOM, *(mode for mode in MODES if mode in found), TARGETED]

    def _orders(self, line: str) -> list[str]:
        """Those of a line: one, or random or matched ones."""
        names = dict.fromkeys(name for name, _ in self.rates)
        return [name for name in names if (band_of(name) or name) == line]

    @property
    def counts(self) -> list[int]:
        return sorted({count for _, count in self.rates})

    def band(self, line: str, count: int, setting: str) -> tuple[float, float, float]:
        """Mean, lowest and highest of random or matched orders, or three times the one value."""
        names = self._orders(line if count else "")
        values = [self.rates[name, count][setting] for name in names]
        return fmean(values), min(values), max(values)


@dataclass(frozen=True)
class Trial:
    """One detector, or one file of detections, on one set.

    Attributes:
        title: what it is and on what.
        label: of the detector, as Table S1 has it; the file's name of a file.
        where: the layer, or the level of the latent, that channels were removed from; empty where
            it is the whole latent.
        detector: its name; empty of a file.
        rates: miss rates by setting with intervals over images, nothing removed.
        pedestrians: how many count in each setting.
        removed: None where nothing was.
    """

    title: str
    label: str
    where: str
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
    names = [
        f"{', '.join(filter(None, (trial.label, trial.where)))} on {trial.config['data']}"
        for trial in trials
    ]
    titles = told_apart(names, configs, _FIRST)
    return [replace(trial, title=title) for trial, title in zip(trials, titles, strict=True)]


def _read(run: Run) -> Trial:
    record, config, result = run.record, run.record.config, run.record.result
    detector, level = str(config.get("detector") or ""), config.get("level")
    level_name = "" if level is None else f"level {level}"
    return Trial(
        title="",
        label=LABELS[detector] if detector else str(config["network"]),
        where=str(config.get("layer") or level_name),
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
    # Records of before have no controls.
    differences["targeted_less_matched"] = _estimates(result.get("targeted_less_matched", {}))
    controls = {str(name): _estimates(one) for name, one in result.get("controls", {}).items()}
    shared = {int(count): float(same) for count, same in result.get("shared", {}).items()}
    rates = {
        (str(row["order"]), int(row["count"])): {
            name: float(row[name]) for name in SETTINGS if name in row
        }
        for row in result["rows"]
    }
    channels, count = int(result["channels"]), int(result["count"])
    return Removed(channels, count, rates, shared=shared, controls=controls, **differences)


def _estimates(found: dict[str, Sequence[float]]) -> dict[str, Estimate]:
    return {str(name): Estimate(*map(float, values)) for name, values in found.items()}
