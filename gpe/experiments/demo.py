"""``gpe demo``: what pooled features know of position, in five minutes on two CPU cores."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gpe.experiments.augshift.config import AugShiftConfig
from gpe.experiments.augshift.run import run as train_augshift
from gpe.experiments.location.config import LocationConfig
from gpe.experiments.location.run import run as train_location
from gpe.experiments.options import Places
from gpe.experiments.processes import expect_one_process
from gpe.experiments.progress import Progress
from gpe.experiments.removal.config import RemovalConfig
from gpe.experiments.removal.run import run as remove
from gpe.experiments.reports import print_findings, write_report
from gpe.experiments.segmentation.config import SegmentationConfig
from gpe.experiments.segmentation.run import run as train_segmenter

EPOCHS = 2  # of each network that says where the digit is
STREETS = {"train_images": 1500, "test_images": 100}  # fewer than quick has

_WHERE = """\
[bold]1. Global pooling keeps where things are[/bold]
A handwritten digit lies in one of nine cells of a black canvas. A network looks at the canvas and
averages each of its channels over all places. From these averages alone it has to say in which cell
the digit was. Three networks are trained:
"""
_WHY = """
The averages keep the place in the order of the channels. PermuteNet shuffles them anew each time,
and its linear layer can no longer read the place. A shuffle that stays the same does no harm: the
linear layer learns it.

[bold]2. It can be trained away[/bold]
A network that classifies the digit should not care where the digit is. One is trained as usual, one
with AugShift: its loss asks two crops of an image to have the same averages. Then each test image
is moved twice by at most 8 pixels. How often is the answer the same?
"""
_RELY = """
[bold]3. Do networks rely on it?[/bold]
A network learns to say what each pixel of a street shows. Channels whose average changes most when
the street is mirrored hold position. The first N of them are removed, and for comparison N random
ones. The paper's network, forty times as large, loses 9.3 points of mIoU without 500 such channels
of 2,048, and 3.5 without 500 random ones:
"""


def run(out: Path, *, force: bool = False) -> None:
    """Trains six small networks, says what they show, and writes a report.

    Args:
        out: directory of the runs and the report.
        force: run again what is finished.
    """
    expect_one_process("gpe demo")
    console = Console(highlight=False, soft_wrap=True)
    places = Places(out=out, force=force)
    with Progress(Console(stderr=True)) as progress:
        console.print(_WHERE)
        networks = [("gapnet", None), ("permutenet", "random"), ("permutenet", "fixed")]
        located = train_location(
            [
                LocationConfig.of(network=name, permutation=order, epochs=EPOCHS)
                for name, order in networks
            ],
            places,
            progress,
        )
        console.print("\nWhat was found:")
        print_findings(located, console)

        console.print(_WHY)
        methods = ("baseline", "augshift")
        moved = train_augshift(
            [AugShiftConfig.of(method=method, epochs=4) for method in methods], places, progress
        )
        console.print("\nWhat was found:")
        print_findings(moved, console)

        console.print(_RELY)
        (trained,) = train_segmenter([SegmentationConfig.of(**STREETS)], places, progress)
        jobs = ("figure4", "figure5")
        figures = remove(
            [RemovalConfig.of(job=job, checkpoint=str(trained)) for job in jobs], places, progress
        )
    console.print("\nWhat was found:")
    print_findings([trained, figures[0]], console)
    page = out / "report.html"
    write_report([*located, *moved, trained, *figures], page)
    console.print(f"\nPictures, tables and curves: [bold]{escape(str(page))}[/bold]")
