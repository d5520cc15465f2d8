"""What location runs show: findings, Table 1 beside the paper's, pictures, curves."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from gpe.experiments.location.config import COLOURS, CONTROLS, DASHES, NETWORKS, TASKS
from gpe.experiments.location.pictures import answers
from gpe.experiments.location.trials import Trial, by, read
from gpe.report.blocks import (
    Bar,
    Block,
    Cell,
    Column,
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
from gpe.report.plots import BandLine, Line, curves, limits, panel
from gpe.report.runs import Run
from gpe.report.words import listing

_RECIPE = ("width", "epochs", "train_images", "test_images", "batch_size", "learning_rate")
_SIZES = ("blue", "red", "orange", "teal", "purple")
_SUBJECTS = {
    "gapnet": "GAPNet",
    "permutenet": "PermuteNet, which shuffles its channels before it decides,",
    "fixed": "PermuteNet with the same shuffle every time (a control)",
    "sorted": "PermuteNet with its channels sorted by value (a control)",
    "mean": "PermuteNet with the mean of its channels alone (a control)",
}


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of location runs.

    Raises:
        InputError: a record lacks what a location record has.
    """
    trials = read(runs)
    groups = by(trials, "preset", "data")
    several = len(groups) > 1
    asks_where = any(trial.task == "location" for trial in trials)
    found: list[Block] = [
        Heading("Where is the patch?" if asks_where else "What is on the patch?", level=1)
    ]
    for group in groups.values():
        title = _title(group) if several else ""
        found += [Finding(text, title) for text in findings(group)]
    found.append(
        Note(
            "A network sees one image patch in one cell of an empty grid. It averages each channel "
            "over all places; what is left is one number for each channel. GAPNet reads these in "
            "their order, PermuteNet after shuffling them."
        )
    )
    found.append(Heading("Table 1, measured here and in the paper"))
    for group in groups.values():
        found += [Heading(_title(group), level=3), *_notes(group), *_tables(group)]
    found += [
        Note(
            "Test accuracy in percent. Large: the best epoch, which is what the paper reports; the "
            "tick on the bar is guessing. Small: the last epoch. Where a cell has several seeds, "
            "both are means, and ± is the standard deviation of the best."
        ),
        Note(
            "Best test accuracy in percent, as the paper reports it; in parentheses the paper's, "
            "on all of CIFAR-10.",
            where="terminal",
        ),
    ]
    pictures = {_title(group): answers(group) for group in groups.values()}
    if any(pictures.values()):
        found.append(Heading("What the networks answered"))
        for title, shown in pictures.items():
            found += [Heading(title, level=3), *shown] if several and shown else shown
    return found + _curves(groups, several) + _by_size(trials)


def findings(trials: Sequence[Trial]) -> list[str]:
    """A paragraph for each task, about the first padding and variant of it alone."""
    found = []
    for (task,), members in by(trials, "task").items():
        choices = by(members, "padding", "variant")
        (padding, variant), chosen = next(iter(choices.items()))
        grids = [grid for (grid,) in by(chosen, "grid")]
        where = f"On {listing([f'{grid}×{grid}' for grid in grids])} grids"
        if len(choices) > 1:
            where += f" with padding {padding}" + (f" and {variant}" if variant else "")
        right = f"names the right {'cell' if task == 'location' else 'object'} for"
        sentences: list[str] = []
        for (network,), same in by(chosen, "network").items():
            subject = _SUBJECTS.get(network, network)
            shares = _percents([_mean(same, grid) for grid in grids])
            if not sentences:
                sentences.append(f"{where} {subject} {right} {shares} of the test images.")
            else:
                sentences.append(f"{subject} does so for {shares}.")
        sentences += _without_order(chosen, grids)
        guesses = _percents([same[0].chance for same in by(chosen, "grid").values()])
        found.append(" ".join([*sentences, f"Guessing would do so for {guesses}."]))
    return found


def _without_order(trials: Sequence[Trial], grids: Sequence[int]) -> list[str]:
    """What the shuffle takes away: numbers, or what a linear layer can read of them."""
    found = []
    for grid in grids:
        shares = {
            network: _mean([t for t in trials if t.network == network], grid)
            for network in ("sorted", "permutenet", "mean")
        }
        (of_set, shuffled, one) = shares.values()
        if of_set is None or shuffled is None:
            continue
        alone = "" if one is None else f", and one number {one:.1f}"
        found.append(
            f"On {grid}×{grid} cells the set of numbers without any order tells "
            f"{of_set:.1f}\u00a0%, of which a linear layer reads {shuffled:.1f} when they are "
            f"shuffled{alone}."
        )
    return found


def _mean(trials: Sequence[Trial], grid: int) -> float | None:
    shares = [trial.accuracy[trial.best] for trial in trials if trial.grid == grid]
    return fmean(shares) if shares else None


def _percents(shares: Sequence[float | None]) -> str:
    texts = ["-" if share is None else f"{share:.1f}" for share in shares]
    return listing(texts if len(set(texts)) > 1 else texts[:1]) + "\u00a0%"


def _title(group: Sequence[Trial]) -> str:
    return f"{group[0].data}, {group[0].preset} preset"


def _notes(group: Sequence[Trial]) -> list[Block]:
    first, found = group[0], []
    if options := recipe(group, _RECIPE):
        found.append(f"{options}.")
    if first.preset != "paper":
        found.append(
            f"These {first.preset} runs are not the paper's recipe, which trains a wider network "
            "on more images for longer. The paper's numbers stand beside them for orientation."
        )
    if first.data != "cifar10":
        found.append(f"The paper's images are those of CIFAR-10; here they are from {first.data}.")
    return [Note(text) for text in found]


def _tables(group: Sequence[Trial]) -> list[Block]:
    """One for a page, with both tasks; on a terminal one for each task."""
    tasks = by(group, "task")
    titles = {task: f"{TASKS.get(task, task)} {_title(group)}" for (task,) in tasks}
    found: list[Block] = [_table(group, titles=False)]
    for (task,), members in tasks.items():
        found.append(_table(members, titles=True, title=titles[task]))
    return found


def _table(trials: Sequence[Trial], *, titles: bool, title: str = "") -> Table:
    """Rows of padding, network and variant; columns of task and grid size."""
    columns = by(trials, "task", "grid")
    sections = [
        Section(
            [_row(same, list(columns)) for same in by(members, "variant", "network").values()],
            f"padding {padding}",
        )
        for (padding,), members in by(trials, "padding").items()
    ]
    shown = [
        Column(
            f"{grid}×{grid}",
            aside=f"guessing {members[0].chance:.1f}",
            group="" if titles else TASKS.get(task, task),
        )
        for (task, grid), members in columns.items()
    ]
    where = "terminal" if titles else "page"
    return Table("Network", shown, sections, title=title, where=where)  # type: ignore[arg-type]


def _row(trials: Sequence[Trial], columns: Sequence[tuple[Any, ...]]) -> Row:
    first, cells = trials[0], by(trials, "task", "grid")
    control = ("control, not in the paper",) if first.network in CONTROLS else ()
    return Row(
        NETWORKS.get(first.network, first.network),
        [_cell(cells[column]) if column in cells else None for column in columns],
        colour=COLOURS.get(first.network, "ink"),
        notes=(first.variant,) if first.variant else (),
        aside=control,
    )


def _cell(seeds: Sequence[Trial]) -> Cell:
    best = [trial.accuracy[trial.best] for trial in seeds]
    last = fmean(trial.accuracy[trial.last] for trial in seeds)
    number = f" · {len(seeds)} seeds" if len(seeds) > 1 else ""
    return Cell(
        f"{fmean(best):.1f}",
        spread=f"± {stdev(best):.1f}" if len(seeds) > 1 else "",
        paper="" if seeds[0].paper is None else f"{seeds[0].paper:.1f}",
        aside=(f"last {last:.1f}{number}",),
        bar=Bar(fmean(best), seeds[0].chance),
    )


def _curves(groups: dict[tuple[Any, ...], list[Trial]], several: bool) -> list[Block]:
    trials = [trial for group in groups.values() for trial in group]
    keys = [
        Key(NETWORKS.get(network, network), COLOURS.get(network, "ink"), "dot")
        for (network,) in by(trials, "network")
    ]
    paddings = [padding for (padding,) in by(trials, "padding")]
    if len(paddings) > 1:
        keys += [Key(f"padding {each}", dashes=DASHES.get(each, "")) for each in paddings]
    keys += [Key("guessing", "muted", dashes="1 3"), Key("a dot is the best epoch", shape="none")]
    found: list[Block] = [Heading("Epoch by epoch"), Legend(keys)]
    for group in groups.values():
        if several:
            found.append(Heading(_title(group), level=3))
        columns = by(group, "task", "grid")
        for metric in ("accuracy", "loss"):
            plots = [
                Plot(_curve(members, metric), f"{task}, {grid}×{grid}", f"test {metric}")
                for (task, grid), members in columns.items()
            ]
            found.append(Plots(plots))
    return found


def _by_size(trials: Sequence[Trial]) -> list[Block]:
    """What PermuteNet reads by its width and its training images, where several were tried."""
    asked = [t for t in trials if t.network == "permutenet" and t.task == "location"]
    sizes = defaultdict(list)
    for trial in asked:
        images = trial.config.get("train_images")
        sizes[trial.grid, images or "all", trial.config.get("width", 0)].append(trial)
    grids = {grid for grid, *_ in sizes if len([s for s in sizes if s[0] == grid]) > 2}
    plots, keys = [], {}
    for grid in sorted(grids):
        lines = []
        for place, count in enumerate(sorted({n for g, n, _ in sizes if g == grid}, key=str)):
            points = {}
            for width in sorted(w for g, n, w in sizes if (g, n) == (grid, count)):
                best = [t.accuracy[t.best] for t in sizes[grid, count, width]]
                points[float(width)] = (fmean(best), min(best), max(best))
            colour = _SIZES[place % len(_SIZES)]
            lines.append(BandLine(points, {}, colour, ""))
            keys[f"{count} training images"] = Key(f"{count} training images", colour)
        chance = next(t.chance for t in asked if t.grid == grid)
        shown = limits(lines, chance)
        drawn = panel(lines, label="width", limits=shown, level=chance, size=(4.6, 2.9))
        plots.append(Plot(drawn, f"PermuteNet, {grid}×{grid}", "test accuracy, %"))
    heading = Heading("How much PermuteNet reads, by its size")
    return [heading, Legend([*keys.values()]), Plots(plots, "wide")] if plots else []


def _curve(trials: Sequence[Trial], metric: str) -> str:
    lines = [
        Line(
            points=getattr(trial, metric),
            marked=trial.best,
            colour=COLOURS.get(trial.network, "ink"),
            # Wider than the rest, to be seen under a control that reaches the same.
            width=3 if trial.network == "gapnet" else 1.4,
            dashes=DASHES.get(trial.padding, ""),
        )
        for trial in trials
    ]
    if metric == "loss":
        return curves(lines, percent=False)
    return curves(lines, percent=True, chance=trials[0].chance)
