"""What AugShift runs show: findings, Table 2 beside the paper's, Figure S2, a film, curves."""

from collections.abc import Sequence

from gpe.experiments.augshift.film import film
from gpe.experiments.augshift.findings import findings
from gpe.experiments.augshift.sweep import is_sweep, sweeps
from gpe.experiments.augshift.trials import ROW, Trial, by, method_of, tables
from gpe.experiments.shift_scores import SCORE_NOTES, cells, columns_of, points, shift_figure
from gpe.report.blocks import (
    Block,
    Finding,
    Heading,
    Key,
    Legend,
    Note,
    Plot,
    Plots,
    Row,
    Section,
    Table,
)
from gpe.report.grouping import recipe
from gpe.report.plots import DASHES, BandLine, Line, curves
from gpe.report.runs import Run
from gpe.report.words import count

_RECIPE = (
    *("width", "epochs", "train_images", "test_images", "epoch_images", "batch_size"),
    *("learning_rate", "schedule", "protocol", "passes"),
)
_SHOWN = 2  # shifts in a page's table


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of AugShift runs.

    Raises:
        InputError: a record lacks what an AugShift record has.
    """
    groups = tables(runs)
    several = len(groups) > 1
    found: list[Block] = [Heading("Does the answer stay when the image moves?", level=1)]
    for group in groups:
        title = _title(group) if several or group[0].split != "test" else ""
        for place, text in enumerate(findings(group)):
            found.append(Finding(text, title if place == 0 else "", lead=place < 2))
    found.append(
        Note(
            "AugShift shows the network two crops of each image and adds to its loss λ times the "
            "squared difference of their pooled features (Equation 1). Wide crops alone are the "
            "same crops without that loss: the control for what the loss itself does."
        )
    )
    tests = [group for group in groups if not is_sweep(group)]
    films = {_title(group): film(group) for group in tests}
    if any(films.values()):
        found.append(Heading("One image, moved step by step"))
        for title, shown in films.items():
            found += [Heading(title, level=3), *shown] if several and shown else shown
    if tests:
        found.append(Heading("Table 2, measured here and in the paper"))
        for group in tests:
            found += _table(group)
        found += [*SCORE_NOTES, Note(_ABOUT_ROWS), Note(_ON_A_TERMINAL, where="terminal")]
        found.append(Heading("Figure S2: consistency by shift"))
        for group in tests:
            found += [Heading(_title(group), level=3)] if several else []
            found += shift_figure(_lines(group))
        found.append(Note("Bands are 95 % intervals, as ± in the table."))
    if len(tests) < len(groups):
        found.append(Heading("How crops and λ were chosen"))
        for group in (group for group in groups if is_sweep(group)):
            found += [
                Heading(_title(group), level=3),
                Note(_title(group), where="terminal"),
                Note(f"{recipe(group, _RECIPE)}."),
                *sweeps(group),
            ]
    return found + _curves(groups, several)


_ABOUT_ROWS = (
    "All numbers are of the last epoch. Crops ±n: training crops lie at most n pixels off the "
    "centre in each axis. Compute ×1: as many crops go through the network in an epoch as in rows "
    "with one crop an image; ×2: twice as many. The paper does not state its protocol."
)
_ON_A_TERMINAL = "All of the last epoch; paper: Table 2."


def _title(group: Sequence[Trial]) -> str:
    first = group[0]
    name = f"{first.data}, {first.network}, {first.preset} preset"
    return name if first.split == "test" else f"{name}, {first.split} images"


def _table(group: Sequence[Trial]) -> list[Block]:
    """Rows of method and setting; columns of accuracy and of consistency."""
    columns = columns_of([trial.scores for trial in group], group[0].chance, _SHOWN)
    rows = []
    for seeds in (seeds for same in _rows(group) for seeds in same):
        method = method_of(seeds[0])
        notes = [*_choice(seeds[0]), _compute(seeds), *filter(None, [method.remark])]
        shown = cells([trial.scores for trial in seeds], columns, group[0].chance)
        rows.append(Row(method.label, shown, colour=method.colour, notes=tuple(notes)))
    table = Table("Method", columns, [Section(rows)], title=_title(group))
    return [Heading(_title(group), level=3), *map(Note, _remarks(group)), table]


def _remarks(group: Sequence[Trial]) -> list[str]:
    first, found = group[0], [f"{recipe(group, _RECIPE)}."]
    if first.split != "test":
        return [
            *found,
            f"Measured on the {first.split} split, a part of the training images that is there for "
            "choosing options. The paper's numbers are of test images and do not stand beside "
            "them.",
        ]
    if first.preset != "paper":
        found.append(
            f"These {first.preset} runs are not the paper's training, of which it states neither λ "
            "nor the crops. Its numbers stand beside them for orientation."
        )
    else:
        found.append("The paper states neither λ nor the crops: these are ours.")
    if any(trial.config.get("relative") for trial in group if trial.weight):
        found.append("The loss is relative to the variance of the latents; the paper's is not.")
    if any(trial.equal_compute for trial in group if method_of(trial).crops == 2):
        found.append(
            "Rows with two crops an image see half as many images, so that all rows cost the same; "
            "the paper's do not."
        )
    return found


def _rows(group: Sequence[Trial]) -> list[list[list[Trial]]]:
    """By method, the seeds of each setting."""
    return [list(by(same, *ROW).values()) for same in by(group, "method").values()]


def _choice(trial: Trial) -> list[str]:
    return [trial.setting, *filter(None, [trial.variant])]


def _compute(seeds: Sequence[Trial]) -> str:
    twice = method_of(seeds[0]).crops == 2 and not seeds[0].equal_compute
    return f"compute ×{2 if twice else 1}, {count(len(seeds), 'seed')}"


def _lines(group: Sequence[Trial]) -> dict[str, BandLine]:
    found = {}
    for several in _rows(group):
        for place, seeds in enumerate(several):
            method = method_of(seeds[0])
            alone = len(several) == 1
            name = method.label if alone else ", ".join((method.label, *_choice(seeds[0])))
            scores = [trial.scores for trial in seeds]
            found[name] = BandLine(
                points=points(scores),
                paper={float(s): value for s, value in scores[0].paper_by_shift.items()},
                colour=method.colour,
                dashes=DASHES[place % len(DASHES)],
            )
    return found


def _curves(groups: Sequence[Sequence[Trial]], several: bool) -> list[Block]:
    methods = by([trial for group in groups for trial in group], "method").values()
    known = [method_of(same[0]) for same in methods]
    keys = [
        *(Key(method.label, method.colour, "dot") for method in known),
        Key("guessing", "muted", dashes="1 3"),
        Key("a dot is the last epoch, which counts", shape="none"),
    ]
    found: list[Block] = [Heading("Epoch by epoch"), Legend(keys)]
    for group in groups:
        if several:
            found.append(Heading(_title(group), level=3))
        chance, split = group[0].chance, group[0].split
        accuracy = curves([_line(t, t.accuracy) for t in group], percent=True, chance=chance)
        plots = [Plot(accuracy, text=f"{split} accuracy")]
        if all(trial.loss for trial in group):
            loss = curves([_line(t, t.loss) for t in group], percent=False)
            plots.append(Plot(loss, text=f"{split} loss"))
        found.append(Plots(plots))
    return found


def _line(trial: Trial, points: dict[int, float]) -> Line:
    colour = method_of(trial).colour
    return Line(points=points, marked=trial.last, colour=colour, width=1.4, dashes="")
