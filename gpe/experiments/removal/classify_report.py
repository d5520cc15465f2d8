"""What classifiers lose without some of their channels: `gpe ablate --task classify`."""

from collections.abc import Sequence

from gpe.experiments.augshift.config import METHODS
from gpe.experiments.removal.classify_trials import Excess, Trial, groups
from gpe.experiments.removal.config import MATCHED, PAPER_CHANNELS, RANDOM
from gpe.experiments.removal.figures import AXES, LARGE, lines, mode_keys
from gpe.experiments.removal.modes import mode_of
from gpe.experiments.removal.trials import band, top
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
from gpe.report.plots import DASHES, BandLine, limits, panel
from gpe.report.runs import Run
from gpe.report.words import count, listing, number, signed
from gpe.statistics import Estimate, difference_of

_RECIPE = ("image_size", "precision", "random_seeds", "seed")
_IN_TURN = ("red", "blue", "orange", "teal", "grey")


def blocks(runs: Sequence[Run]) -> list[Block]:
    """The report of classifiers, those of the same images side by side.

    Raises:
        InputError: a record lacks what a record of this experiment has.
    """
    found: list[Block] = [Heading("What does a classifier lose without these channels?", level=1)]
    sets = groups(runs)
    for trials in sets:
        for place, text in enumerate(_findings(trials)):
            found.append(Finding(text, lead=place < 2))
    found.append(
        Note(
            "The channels are those before the linear layer, ranked by how much position they "
            "hold. The first N of an order are set to zero and all images are classified again; "
            "top-1 is the accuracy in percent. Where the images have no labels that the network "
            "knows, answers kept is the share that the whole network answers alike."
        )
    )
    for trials in sets:
        found += _of_group(trials)
    about = "In percent; below it random channels: mean, lowest and highest draw."
    return [*found, Note(about, where="terminal")]


def _of_group(trials: Sequence[Trial]) -> list[Block]:
    title = f"{trials[0].data}, {count(trials[0].images, 'image')}: {trials[0].measure}"
    names = dict.fromkeys(line for trial in trials for line in trial.lines)
    draws = len(trials[0].draws)
    found: list[Block] = [
        Heading(title),
        Note(f"{recipe(trials, _RECIPE)}."),
        Legend(mode_keys(names, draws)),
    ]
    for kind, heading in (("top", "The first N channels"), ("range", "One range at a time")):
        if plots := _plots(trials, kind):
            found += [Heading(heading, level=3), Plots(plots, "wide")]
    measure = trials[0].measure.capitalize()
    about = f"{measure} in percent. The tick on a bar is the value with all channels."
    if draws:
        about += (
            f" Random: mean of {count(draws, 'draw')}, the lowest and the highest. More than "
            "random: with the 95 % interval over images."
        )
    return [
        *found,
        *_excess(trials),
        Heading("In numbers", level=3),
        _table(title, trials),
        Note(about),
    ]


def _table(title: str, trials: Sequence[Trial]) -> Table:
    """A row for each network and ranking; columns by the paper's share that was removed."""
    shares = sorted({paper for trial in trials for paper in trial.told.values()})
    below = "below it random channels" if any(trial.draws for trial in trials) else ""
    columns = [
        Column("all channels", aside=f"guessing {trials[0].chance:.1f}"),
        *(Column(f"without {100 * paper / PAPER_CHANNELS:.0f} %", aside=below) for paper in shares),
    ]
    rows = []
    for trial in trials:
        for name in trial.rankings or [RANDOM]:
            mode = mode_of(name)
            told = {paper: removed for removed, paper in trial.told.items()}
            cells = [_cell(trial, name, told.get(paper)) for paper in shares]
            rows.append(
                Row(
                    trial.label,
                    [Cell(number(trial.whole)), *cells],
                    colour=mode.colour,
                    notes=(f"{mode.label}, {count(trial.channels, 'channel')}",),
                )
            )
    return Table("Network", columns, [Section(rows)], title=title)


def _cell(trial: Trial, name: str, removed: int | None) -> Cell | None:
    if removed is None:
        return None
    value, below = trial.score(name, top(removed)).mean, []
    aside = [f"{removed} removed, {100 * removed / trial.channels:.0f} %"]
    if trial.draws:
        mean, low, high = trial.score(RANDOM, top(removed))
        below.append(f"{number(mean)} ({number(low)}\u2013{number(high)})")
    if excess := trial.excess.get((name, removed)):
        interval = f"({number(excess.low)} to {number(excess.high)})"
        aside.append(f"{number(excess.points)} more than random {interval}")
    bar = Bar(value, trial.whole)
    return Cell(number(value), lines=tuple(below), aside=tuple(aside), bar=bar)


def _plots(trials: Sequence[Trial], kind: str) -> list[Plot]:
    """A panel for each network, on one scale."""
    drawn = [
        (trial, lines(trial, trial.measure, kind))
        for trial in trials
        if (trial.ranges if kind == "range" else trial.counts[1:])
    ]
    if not drawn:
        return []
    shared = limits(
        [line for _, found in drawn for line in found], *(trial.whole for trial, _ in drawn)
    )
    return [
        Plot(
            panel(found, label=AXES[kind], limits=shared, level=trial.whole, size=LARGE),
            trial.label,
            f"{trial.measure}, %",
        )
        for trial, found in drawn
    ]


def _excess(trials: Sequence[Trial]) -> list[Block]:
    """By how much more than random channels those of the first ranking cost, all networks."""
    drawn: list[BandLine] = []
    keys: list[Key] = []
    for place, trial in enumerate(trials):
        name = next(iter(trial.rankings), None)
        points: dict[float, tuple[float, float, float]] = {
            100 * stop / trial.channels: (excess.points, excess.low, excess.high)
            for (ranking, stop), excess in sorted(trial.excess.items(), key=lambda item: item[0][1])
            if ranking == name
        }
        if points:
            colour = _colour(trial, place)
            before = sum(key.colour == colour for key in keys)
            dashes = DASHES[before % len(DASHES)]
            drawn.append(BandLine({0: (0.0,) * 3} | points, {}, colour, dashes))
            keys.append(Key(trial.label, colour, dashes=dashes))
    if not drawn:
        return []
    shown = limits(drawn, 0.0)
    figure = panel(drawn, label="channels removed, %", limits=shown, level=0.0, size=(5.2, 3))
    text = "that the first channels cost more than as many random ones; band: 95 % over images"
    return [
        Heading("Beyond what random channels cost", level=3),
        Legend(keys),
        Plots([Plot(figure, f"Points of {trials[0].measure}", text)], "wide"),
    ]


def _colour(trial: Trial, place: int) -> str:
    """Of networks of gpe augshift their method's, of others in turn."""
    own = [name for name in METHODS if trial.label.startswith(f"{name}-")]
    return METHODS[max(own, key=len)].colour if own else _IN_TURN[place % len(_IN_TURN)]


def _findings(trials: Sequence[Trial]) -> list[str]:
    found = [sentence for trial in trials for sentence in _of_one(trial)]
    return [*found, *_side_by_side(trials)]


def _of_one(trial: Trial) -> list[str]:
    found = []
    for name in trial.rankings:
        for removed in list(trial.told)[-1:]:
            value = trial.score(name, top(removed)).mean
            text = (
                f"{trial.label}: without its {removed} most {mode_of(name).kind} channels of "
                f"{trial.channels} ({mode_of(name).label}) {trial.measure} goes from "
                f"{trial.whole:.1f} to {value:.1f}"
            )
            if trial.draws:
                random = trial.score(RANDOM, top(removed))
                text += (
                    f"; without {removed} random ones to {random.mean:.1f} "
                    f"({band(random, len(trial.draws))}). {_verdict(trial, name, removed)}"
                )
            else:
                text += ". No random orders were tried, so this says nothing of the ranking."
            found.append(text)
    return [*found, *_beyond_matched(trial)]


def _beyond_matched(trial: Trial) -> list[str]:
    """What position costs beside channels that deviate alike."""
    found = []
    for removed in list(trial.told)[-1:]:
        if removed not in trial.beyond_matched:
            continue
        points, low, high = trial.beyond_matched[removed]
        matched = trial.score(MATCHED, top(removed))
        same = trial.shared.get(removed)
        shared = "" if same is None else f"; {same:.0f} of {removed} the same"
        told = "not told apart from them" if low <= 0 <= high else "told apart from them"
        found.append(
            f"{trial.label}: {removed} random channels that deviate as those of Equation 2 do "
            f"leave {matched.mean:.1f} ({band(matched, len(trial.matched))}{shared}). Position "
            f"costs {signed(points)} points beyond them: {told} (95 % interval over images "
            f"{signed(low)} to {signed(high)})."
        )
    return found


def _verdict(trial: Trial, name: str, number: int) -> str:
    """Beside the draws, and over images: both must tell them apart."""
    value, random = trial.score(name, top(number)).mean, trial.score(RANDOM, top(number))
    points, low, high = trial.excess[name, number]
    interval = f"95 % interval over images {signed(low)} to {signed(high)}"
    if low <= 0 <= high or random.low <= value <= random.high:
        beyond = f"{signed(points)} points beyond random"
        return f"That is not told apart from random ({beyond}, {interval})."
    more = "more" if points > 0 else "less"
    return f"They cost {abs(points):.1f} points {more} than random ones ({interval})."


def _side_by_side(trials: Sequence[Trial]) -> list[str]:
    """Whether one network hangs on these channels more than another."""
    found = []
    for trial in trials:
        last = [(name, n) for name in trial.rankings[:1] for n in list(trial.told)[-1:]]
        found += [(trial, *key) for key in last if key in trial.excess]
    if len(found) < 2 or len({name for _, name, _ in found}) > 1:
        return []
    costs = [(trial.label, trial.excess[name, number]) for trial, name, number in found]
    parts = [
        f"{signed(trial.excess[name, number].points)} in {trial.label} ({number} channels)"
        for trial, name, number in found
    ]
    text = (
        f"Side by side, points that the first channels of {mode_of(found[0][1]).label} cost "
        f"beyond random ones: {listing(parts)}."
    )
    first, *others = costs
    verdicts = " ".join(_apart(first, other) for other in others)
    return [f"{text} {verdicts} One training of each: this is of these networks alone."]


def _apart(one: tuple[str, Excess], other: tuple[str, Excess]) -> str:
    """The interval of a difference of two estimates, as of independent ones."""
    (first, a), (second, b) = one, other
    points = a.points - b.points
    low, high = difference_of(Estimate(*a), Estimate(*b)).ends or (points, points)
    interval = f"{signed(low)} to {signed(high)}"
    if low <= 0 <= high:
        return f"{first} and {second} are not told apart (by {signed(points)} points, {interval})."
    more, less = (first, second) if points > 0 else (second, first)
    return f"{more} loses more without them than {less}, by {abs(points):.1f} points ({interval})."
