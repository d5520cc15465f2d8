"""What location networks answered: canvases with both cells marked, and maps of all answers."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gpe.experiments.location.config import COLOURS, NETWORKS
from gpe.experiments.location.trials import Trial, by
from gpe.records import load_arrays
from gpe.report.blocks import Block, Heading, Key, Legend, Note, Picture, Pictures
from gpe.report.plots import drawing, png

_CANVASES = 9
_NEEDED = {"canvases", "locations", "targets", "predictions", "confusion"}
# Shares of the answers in percent, and how opaque their colour is: the square root keeps one
# answer in fifty visible.
_SCALE = {1: 0.1, 10: 0.32, 25: 0.5, 50: 0.71, 100: 1}
_TINT = 224, 112, 0

Arrays = dict[str, Tensor]


def answers(trials: Sequence[Trial]) -> list[Block]:
    """One run of each network for each grid size, all of one task and padding.

    That is the location task and padding zeros where such runs have arrays, otherwise the next in
    the order of the table; empty where no run has arrays.
    """
    for (task, padding), members in by(trials, "task", "padding").items():
        grids: dict[int, list[tuple[Trial, Arrays]]] = {}
        for (grid, _), same in by(members, "grid", "network").items():
            for trial in same:
                arrays = load_arrays(trial.directory)
                if arrays.keys() >= _NEEDED:
                    grids.setdefault(grid, []).append((trial, arrays))
                    break
        if grids:
            return [*_explained(task, padding), *_of_grids(grids)]
    return []


def _explained(task: str, padding: str) -> list[Block]:
    keys = [Key("where the patch is", shape="truth")]
    if task == "location":
        keys.append(Key("where the network says it is", shape="answer"))
    about = (
        "Pictures are of one run of each network and grid size after its last epoch: task "
        f"{task}, padding {padding}."
    )
    return [Note(about), Legend(keys)]


def _of_grids(grids: dict[int, list[tuple[Trial, Arrays]]]) -> list[Block]:
    found: list[Block] = []
    for number, (grid, shown) in enumerate(grids.items()):
        rows = []
        for trial, arrays in shown:
            canvases = _canvases(trial, arrays)
            hits = sum(picture.bold == "✓" for picture in canvases)
            label = NETWORKS.get(trial.network, trial.network)
            rows.append((f"{label}: {hits} of these {len(canvases)} correct", canvases))
        found += [Heading(f"{grid}×{grid} grid", level=3), Pictures(rows, size="small")]
        if number == 0:
            found += _scale(shown[0][0].task)
        found.append(Pictures([("", [_map(trial, arrays) for trial, arrays in shown])], "large"))
    return found


def _scale(task: str) -> list[Block]:
    text = (
        "All test images. Each small map is about one true cell, outlined in blue: the stronger "
        "the colour of a cell, the more often the network named it."
        if task == "location"
        else "All test images: a row for each true class, a column for each class that the network "
        "named. Correct answers are on the diagonal."
    )
    colour = "rgb({} {} {} / {})"
    keys = [
        Key(f"{share} %", colour.format(*_TINT, opacity), "square")
        for share, opacity in _SCALE.items()
    ]
    return [Note(text), Legend(keys)]


def _canvases(trial: Trial, arrays: Arrays) -> list[Picture]:
    numbers = zip(
        *(arrays[name].tolist() for name in ("locations", "targets", "predictions")), strict=True
    )
    found = []
    for canvas, (location, target, answer) in zip(
        arrays["canvases"][:_CANVASES], numbers, strict=False
    ):
        row, column = divmod(location, trial.grid)
        marks = _cell("truth", row, column)
        if trial.task == "location":
            its_row, its_column = divmod(answer, trial.grid)
            marks += _cell("answer", its_row, its_column, inset=0.14)
        side = trial.grid
        lines = "".join(f"M{i} 0V{side}M0 {i}H{side}" for i in range(1, side))
        image = png(canvas.permute(1, 2, 0).contiguous().numpy())
        alt = f"true cell: row {row + 1}, column {column + 1}; " + (
            "correct" if answer == target else "wrong"
        )
        content = (
            f'<image href="{image}" width="{side}" height="{side}"/>'
            f'<path class="lines" d="{lines}"/>{marks}'
        )
        svg = drawing(content, box=f"0 0 {side} {side}", alt=alt, style="canvas")
        said = "" if trial.task == "location" else f"class {target}, answer {answer}"
        found.append(Picture(svg, alt, bold="✓" if answer == target else "✗", text=said))
    return found


def _map(trial: Trial, arrays: Arrays) -> Picture:
    """Where the answers for each true cell went; of objects, which answers each class got."""
    confusion = arrays["confusion"].double()
    # Rows are the truth: shares that sum to one.
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    at_cells = trial.task == "location"
    maps = shares.view(-1, trial.grid, trial.grid) if at_cells else shares[None]
    cells, side = maps.shape[-1], trial.grid if at_cells else 1
    drawn = []
    for number, one in enumerate(maps):
        row, column = divmod(number, trial.grid)
        drawn.append(
            f'<g transform="translate({column} {row}) scale({0.9 / cells})">'
            f'<rect class="frame" width="{cells}" height="{cells}"/>'
            f'<image href="{_tinted(one)}" width="{cells}" height="{cells}"/>'
            f"{_cell('truth', row, column) if at_cells else ''}</g>"
        )
    label = NETWORKS.get(trial.network, trial.network)
    alt = f"where the answers of {label} went"
    box = f"0 0 {side - 0.1} {side - 0.1}"
    svg = drawing("".join(drawn), box=box, alt=alt, style="maps")
    accuracy = 100 * (confusion.trace() / confusion.sum().clamp(min=1)).item()
    text = f"{accuracy:.1f} % of all test images correct"
    return Picture(svg, alt, bold=label, text=text, colour=COLOURS.get(trial.network, "ink"))


def _cell(kind: str, row: int, column: int, inset: float = 0.0) -> str:
    side = 1 - 2 * inset
    place = f'x="{column + inset:g}" y="{row + inset:g}" width="{side:g}" height="{side:g}"'
    return f'<rect class="{kind}" {place}/>'


def _tinted(shares: Tensor) -> str:
    """Shares ``[rows,columns]`` as the opacity of one colour, a pixel each."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _TINT
    pixels[..., 3] = (255 * shares.sqrt()).round().byte().numpy()
    return png(pixels)
