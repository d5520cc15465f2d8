"""What AugShift runs show, in plain sentences: each row of Table 2 against its rival."""

from collections.abc import Sequence
from statistics import fmean

from gpe.experiments.augshift.sweep import is_sweep, sweep_findings
from gpe.experiments.augshift.trials import ROW, Trial, by, method_of
from gpe.experiments.shift_scores import consistency_of
from gpe.report.words import compared, percent, random_shifts
from gpe.statistics import mean_of

# (method, rival) and how the paragraph about them begins.
_PAIRS = {
    ("augshift", "baseline"): "",
    ("augshift", "wide-crops"): "What the loss adds: ",
    ("blurpool", "baseline"): "",
    ("blurpool-augshift", "blurpool"): "What AugShift adds to BlurPool: ",
}
_CAUTION = (
    "One seed says nothing about how far seeds lie apart: a difference from one seed each may be "
    "chance."
)


def findings(trials: Sequence[Trial]) -> list[str]:
    """Paragraphs about the runs of one table; differences are between runs of the same seed."""
    if is_sweep(trials):
        return sweep_findings(trials)
    rows = list(by(trials, *ROW).values())
    paragraphs: list[str] = []
    seeds: list[int] = []
    for (method, rival), start in _PAIRS.items():
        for row in (row for row in rows if row[0].method == method):
            for other in (row for row in rows if row[0].method == rival):
                pairs = _pairs(row, other)
                if pairs:
                    names = (
                        _name(row[0], trials, "setting", "variant"),
                        _name(other[0], trials, "setting"),  # of the same variant
                    )
                    # The first says what is measured, the others that it is the same.
                    paragraphs.append(start + _comparison(pairs, *names, again=bool(seeds)))
                    seeds.append(len(pairs))
    if 1 in seeds:
        paragraphs.append(_CAUTION)
    return paragraphs or [
        _description(row, _name(row[0], trials, "setting", "variant")) for row in rows
    ]


def _pairs(row: Sequence[Trial], other: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """Runs of the same seed that differ in what their methods differ in, and in no more."""
    free = {"method", "weight"}
    if method_of(row[0]).crops != method_of(other[0]).crops:
        free.add("crop_shift")

    def rest(trial: Trial) -> str:
        return str(sorted((k, str(v)) for k, v in trial.config.items() if k not in free))

    rivals = {rest(trial): trial for trial in other}
    return [(trial, rivals[rest(trial)]) for trial in row if rest(trial) in rivals]


def _name(trial: Trial, trials: Sequence[Trial], *attributes: str) -> str:
    """Of its row, with those of ``attributes`` that tell it apart from others of its method."""
    name = method_of(trial).in_a_sentence
    same = [other for other in trials if other.method == trial.method]
    several = [getattr(trial, one) for one in attributes if len(by(same, one)) > 1]
    return f"{name} ({', '.join(filter(None, several))})" if several else name


def _comparison(pairs: Sequence[tuple[Trial, Trial]], name: str, rival: str, *, again: bool) -> str:
    shift = pairs[0][0].scores.headline
    moved = f"shifts of at most {shift} px" if again else random_shifts(shift)
    steady = [[trial.scores.by_shift[shift].consistency for trial in pair] for pair in pairs]
    right = [[trial.accuracy[trial.last] for trial in pair] for pair in pairs]
    return (
        f"{name} gives the same answer under {moved} for "
        f"{_against(steady, rival, ' of the images')}. "
        f"Its accuracy without a shift is {_against(right, rival)}."
    )


def _against(values: Sequence[Sequence[float]], rival: str, noun: str = "") -> str:
    own, other = (percent(fmean(column)) for column in zip(*values, strict=True))
    difference = mean_of([mine - theirs for mine, theirs in values])
    return f"{own}{noun}, {rival} {other}: {compared(difference, len(values))}"


def _description(row: Sequence[Trial], name: str) -> str:
    scores = [trial.scores for trial in row]
    shift = scores[0].headline
    steady = percent(consistency_of(scores, shift).value)
    right = percent(fmean(trial.accuracy[trial.last] for trial in row))
    return (
        f"{name[0].upper()}{name[1:]}: the same answer under {random_shifts(shift)} for {steady} "
        f"of the images, accuracy without a shift {right}."
    )
