"""Runs on a terminal: the report's tables and findings, without its pictures."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpe.report import (
    ablation,
    atlas,
    augshift,
    augshift_findings,
    augshift_sweep,
    augshift_trials,
    classify,
    consistency,
    decode,
    figure5,
    location,
    rank,
    segment,
)
from gpe.report.location_trials import TASKS, by, read
from gpe.report.runs import Run
from gpe.report.terminal_atlas import atlas_tables
from gpe.report.terminal_channels import (
    ablation_tables,
    classify_tables,
    figure5_tables,
    rank_tables,
)
from gpe.report.terminal_decode import decode_tables

_SCORES = (
    "In percent. Cons.m: the same answer under two random shifts of up to m pixels; right: on "
    "these shifted images. ±: half of the 95 % interval, over seeds, of one seed over images."
)


def print_table(directories: Sequence[Path], console: Console) -> None:
    """Prints what each experiment measured, the paper's values beside it."""
    runs = _by_experiment(directories)
    for experiment, show in _TABLES.items():
        if experiment in runs:
            show(runs[experiment], console)


def print_findings(directories: Sequence[Path], console: Console) -> None:
    """Prints what the runs show, in plain words."""
    runs = _by_experiment(directories)
    for experiment, find in _FINDINGS.items():
        for sentence in find(runs[experiment]) if experiment in runs else ():
            _print_line(f"  {sentence}", console)


def _by_experiment(directories: Sequence[Path]) -> dict[str, list[Run]]:
    by_experiment = defaultdict(list)
    for run in map(Run.load, directories):
        by_experiment[run.record.experiment].append(run)
    return by_experiment


def _location_tables(runs: Sequence[Run], console: Console) -> None:
    for (preset, data, task), trials in by(read(runs), "preset", "data", "task").items():
        _print_line(f"{TASKS.get(task, task)} {data}, {preset} preset", console)
        console.print(_location_table(location.table(trials)))
    _print_line(
        "Best test accuracy in percent, as the paper reports it; in parentheses the paper's, "
        "on all of CIFAR-10.",
        console,
    )


def _location_findings(runs: Sequence[Run]) -> list[str]:
    return [
        sentence
        for members in by(read(runs), "preset", "data").values()
        for sentences in location.findings(members).values()
        for sentence in sentences
    ]


def _augshift_tables(runs: Sequence[Run], console: Console) -> None:
    for trials in augshift_trials.tables(runs):
        _print_line(augshift.title(trials), console)
        if augshift_sweep.is_sweep(trials):
            for content in augshift_sweep.sweeps(trials):
                console.print(_sweep_table(content))
        else:
            console.print(_score_table(augshift.table(trials, _room(console)), "method"))
    _print_line(f"{_SCORES} All of the last epoch; paper: Table 2.", console)


def _augshift_findings(runs: Sequence[Run]) -> list[str]:
    tables = augshift_trials.tables(runs)
    found = []
    for trials in tables:
        if len(tables) > 1 or trials[0].split != "test":
            found.append(f"{augshift.title(trials)}:")
        found += augshift_findings.findings(trials)
    return found


def _consistency_tables(runs: Sequence[Run], console: Console) -> None:
    for trials in consistency.tables(runs):
        _print_line(consistency.title(trials), console)
        console.print(_score_table(consistency.table(trials, _room(console)), "network"))
    _print_line(_SCORES, console)


def _consistency_findings(runs: Sequence[Run]) -> list[str]:
    return [
        sentence for trials in consistency.tables(runs) for sentence in consistency.findings(trials)
    ]


def _segment_tables(runs: Sequence[Run], console: Console) -> None:
    for trials in segment.tables(runs):
        for trial in trials:
            heading = ", ".join((segment.title([trial]), trial.label, *segment.notes(trial)))
            _print_line(heading, console)
            console.print(_iou_table(trial))
    _print_line("Intersection over union in percent; mIoU: its mean over the classes.", console)


def _segment_findings(runs: Sequence[Run]) -> list[str]:
    return [sentence for trials in segment.tables(runs) for sentence in segment.findings(trials)]


def _printed(
    tables: Callable[[Sequence[Run]], Iterable[str | Table]], runs: Sequence[Run], console: Console
) -> None:
    for shown in tables(runs):
        if isinstance(shown, str):
            _print_line(shown, console)
        else:
            console.print(shown)


_TABLES = {
    "location": _location_tables,
    "augshift": _augshift_tables,
    "consistency": _consistency_tables,
    "segment": _segment_tables,
    "rank": partial(_printed, rank_tables),
    "ablate": partial(_printed, ablation_tables),
    "ablate-classify": partial(_printed, classify_tables),
    "figure4": partial(_printed, ablation_tables),
    "figure5": partial(_printed, figure5_tables),
    "figure6": partial(_printed, ablation_tables),
    "decode": partial(_printed, decode_tables),
    "atlas": partial(_printed, atlas_tables),
}
_FINDINGS = {
    "location": _location_findings,
    "augshift": _augshift_findings,
    "consistency": _consistency_findings,
    "segment": _segment_findings,
    "rank": rank.findings,
    "ablate": ablation.findings,
    "ablate-classify": classify.findings,
    "figure4": ablation.findings,
    "figure5": figure5.findings,
    "figure6": ablation.findings,
    "decode": decode.findings,
    "atlas": atlas.findings,
}


def _print_line(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _location_table(content: dict[str, Any]) -> Table:
    shown = Table()
    shown.add_column("padding")
    shown.add_column("network")
    for grid, _ in content["columns"]:
        shown.add_column(f"{grid}×{grid}", justify="right", no_wrap=True)
    for padding, rows in content["paddings"].items():
        for row in rows:
            label = " ".join(filter(None, (row["label"], row["variant"])))
            shown.add_row(padding, escape(label), *map(_location_cell, row["cells"]))
        shown.add_section()
    return shown


def _location_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {cell['spread']:.1f}" if cell["spread"] is not None else ""
    paper = f" ({cell['paper']:.1f})" if cell["paper"] is not None else ""
    return f"{cell['best']:.1f}{spread}{paper}"


def _room(console: Console) -> int:
    """How many shifts a table has room for, beside names and accuracy."""
    return max(1, (console.width - 23) // 13 - 1)


def _score_table(content: dict[str, Any], heading: str) -> Table:
    shown = Table(show_lines=True)
    shown.add_column(heading)
    for name in ("accuracy", *(f"Cons.{shift}" for shift in content["shifts"])):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in content["rows"]:
        label = "\n".join((row["label"], *row["notes"]))
        shown.add_row(escape(label), *map(_score_cell, row["cells"]))
    return shown


def _score_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    half = f" ± {cell['half']:.1f}" if cell["half"] is not None else ""
    lines = [f"{cell['mean']:.1f}{half}"]
    if cell["shifted"] is not None:
        lines.append(f"right {cell['shifted']:.1f}")
    if cell["paper"] is not None:
        lines.append(f"paper {cell['paper']:.1f}")
    return "\n".join(lines)


def _iou_table(trial: segment.Trial) -> Table:
    shown = Table()
    shown.add_column("class")
    for region in trial.miou:
        shown.add_column(escape(region), justify="right", no_wrap=True)
    means = [f"{value:.1f}" for value in trial.miou.values()]
    if trial.paper is not None:
        means[0] += f" ({trial.paper:.1f})"
    shown.add_row("mIoU", *means)
    shown.add_section()
    for place, name in enumerate(trial.classes):
        values = [by_class[place] for by_class in trial.iou.values()]
        shown.add_row(escape(name), *("" if v is None else f"{v:.1f}" for v in values))
    return shown


def _sweep_table(content: dict[str, Any]) -> Table:
    caption = f"Cons.{content['shift']} and accuracy. {content['variant']}"
    shown = Table(caption=escape(caption))
    shown.add_column("crops")
    for weight in content["weights"]:
        shown.add_column(f"λ {weight:g}", justify="right", no_wrap=True)
    for name, kind in content["kinds"].items():
        for crop_shift, cells in kind["rows"].items():
            texts = [f"{c['consistency']:.1f}  {c['accuracy']:.1f}" if c else "" for c in cells]
            shown.add_row(escape(f"{name} ±{crop_shift}"), *texts)
        shown.add_section()
    return shown
