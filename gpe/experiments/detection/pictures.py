"""What the report of detectors draws: curves, what is lost by N, and boxes in images."""

from collections.abc import Sequence

import numpy as np

from gpe.experiments.detection.config import TARGETED
from gpe.experiments.detection.trials import Removed, Trial
from gpe.experiments.removal.config import MATCHED, RANDOM
from gpe.experiments.removal.modes import mode_of
from gpe.report.blocks import Block, Heading, Key, Legend, Note, Picture, Pictures, Plot, Plots
from gpe.report.plots import DASHES, BandLine, drawing, limits, miss_curves, panel, png

COLOURS = {"": "ink", RANDOM: "grey", TARGETED: "blue"}
_NAMES = {"": "nothing removed", RANDOM: "random channels", TARGETED: "channels by position"}
_BOXES = (("found", "teal", ""), ("missed", "red", "4 2"), ("false", "orange", ""))


def losses(trial: Trial, removed: Removed) -> list[Block]:
    """Miss rate by how many channels are removed, a panel for each setting."""
    drawn = {
        setting: [
            BandLine(
                {float(n): removed.band(line, n, setting) for n in removed.counts},
                {},
                mode_of(line).colour,
                mode_of(line).dashes,
            )
            for line in removed.lines
        ]
        for setting in trial.settings
    }
    shared = limits([line for lines in drawn.values() for line in lines])
    plots = [
        Plot(
            panel(
                lines,
                label="N, channels removed",
                limits=shared,
                level=trial.rates[setting].value,
            ),
            setting,
            "miss rate, %",
        )
        for setting, lines in drawn.items()
    ]
    styles = {line: mode_of(line) for line in reversed(removed.lines)}
    keys = [
        Key(_NAMES.get(line, style.label), style.colour, dashes=style.dashes)
        for line, style in styles.items()
    ]
    bands = "random" if MATCHED not in styles else "random or matched"
    about = (
        f"Band: lowest and highest of {len(removed.draws)} {bands} orders. Dotted: all channels."
    )
    return [Legend(keys), Plots(plots, "small"), Note(about)]


def curves(trials: Sequence[Trial]) -> list[Block]:
    """Miss rate against false boxes per image: of one trial each removal, of several each."""
    lines: dict[str, list[tuple[np.ndarray, str, str]]] = {}
    keys = []
    for place, trial in enumerate(trials):
        arrays = trial.arrays()
        names = [name for name in COLOURS if any(a.startswith(f"curve.{name}.") for a in arrays)]
        dashes = DASHES[place % len(DASHES)]
        for name in names:
            keys.append(Key(_NAMES[name] if len(trials) == 1 else trial.title, COLOURS[name],
                            dashes=dashes))  # fmt: skip
            for setting in trial.settings:
                curve = arrays.get(f"curve.{name}.{setting}")
                if curve is not None and curve.shape[1] > 1:
                    lines.setdefault(setting, []).append((curve, COLOURS[name], dashes))
    if not lines:
        return []
    plots = [Plot(miss_curves(drawn), setting, "miss rate") for setting, drawn in lines.items()]
    heading = Heading("Miss rate against false positives per image", level=3)
    return [heading, Legend(keys), Plots(plots, "small")]


def pictures(trial: Trial) -> list[Block]:
    """A few images with the boxes found, missed and false, before and after; none without."""
    arrays = trial.arrays()
    rows: list[tuple[str, list[Picture | None]]] = []
    while f"image{len(rows)}" in arrays:
        place = len(rows)
        image = arrays[f"image{place}"]
        shown: list[Picture | None] = [
            _picture(image, arrays[f"boxes{place}.{name}"], f"image {place}, {_NAMES[name]}", text)
            for name, text in _NAMES.items()
            if f"boxes{place}.{name}" in arrays
        ]
        rows.append(("", shown))
    if not rows:
        return []
    keys = [Key(name, colour, dashes=dashes) for name, colour, dashes in _BOXES]
    about = (
        "Boxes above the score at which the whole detector has one false box in ten images. "
        "Reasonable pedestrians have to be found; boxes of other people are not drawn."
    )
    return [Heading("Boxes", level=3), Legend(keys), Pictures(rows, size="large"), Note(about)]


def _picture(image: np.ndarray, boxes: np.ndarray, alt: str, text: str) -> Picture:
    height, width = image.shape[1:]
    source = png(np.ascontiguousarray(image.transpose(1, 2, 0)))
    parts = [f'<image href="{source}" width="{width}" height="{height}"/>']
    for x1, y1, x2, y2, kind, *_ in boxes.tolist():
        _, colour, dashes = _BOXES[int(kind)]
        parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" '
            f'fill="none" stroke="var(--{colour})" stroke-width="1.5" stroke-dasharray="{dashes}"/>'
        )
    counts = [int((boxes[:, 4] == kind).sum()) for kind in range(len(_BOXES))]
    said = ", ".join(f"{n} {name}" for n, (name, *_) in zip(counts, _BOXES, strict=True))
    svg = drawing("".join(parts), box=f"0 0 {width} {height}", alt=f"{alt}: {said}")
    return Picture(svg, alt, bold=said, text=text)
