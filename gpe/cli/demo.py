"""``gpe demo``."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.markup import escape

from gpe.cli import common
from gpe.cli.options import choose_device, option

STREETS = {"train_images": 1500, "test_images": 100}  # fewer than quick has


def command(
    out: Annotated[Path, option("Directory of the runs and of the report.")] = Path("runs/demo"),
    force: common.Force = False,
) -> None:
    """Show in minutes that pooling keeps where things are, train it away, and take it away."""
    from gpe.experiments.progress import Progress
    from gpe.report import write_report
    from gpe.report.terminal import print_findings

    console = Console(highlight=False, soft_wrap=True)
    options = {"resume": True, "force": force}
    console.print(
        "[bold]1. Global pooling keeps where things are[/bold]\n"
        "A handwritten digit lies in one of nine cells of a black canvas. A network looks at the\n"
        "canvas, averages each of its channels over all places, and has to say from these\n"
        "averages alone where the digit was. Three networks are trained:\n"
    )
    located = _locate(out, progress=Progress(Console(stderr=True), runs=3), **options)
    console.print("\nWhat was shown:")
    print_findings(located, console)
    console.print(
        "\nThe paper's explanation: the averages keep the place in the order of the channels.\n"
        "Shuffling them anew each time takes the order away; a shuffle that stays the same does\n"
        "not, since the last layer learns it.\n"
        "\n[bold]2. It can be trained away[/bold]\n"
        "A network that names the digit should not care where the digit is. One is trained as\n"
        "usual; one with AugShift, whose loss asks two crops of an image to pool to the same\n"
        "averages. Then each test image is moved twice by up to 8 pixels: how often is the answer\n"
        "the same?\n"
    )
    moved = _shift(out, progress=Progress(Console(stderr=True), runs=2), **options)
    console.print("\nWhat was shown:")
    print_findings(moved, console)
    console.print(
        "\n[bold]3. Do networks rely on it?[/bold]\n"
        "A network learns to name what each pixel of a street shows. Channels whose average\n"
        "changes most when the street is mirrored hold position. The first N of them are removed,\n"
        "and, to compare, N that are drawn at random. The paper's network, forty times as large,\n"
        "loses 9.3 points of mIoU without 500 such channels of 2,048, 3.5 without random ones:\n"
    )
    trained, figure4, figure5 = _remove(out, console, **options)
    console.print("\nWhat was shown:")
    print_findings([trained, figure4], console)
    page = out / "report.html"
    write_report([*located, *moved, trained, figure4, figure5], page)
    console.print(f"\nPictures, tables and curves: [bold]{escape(str(page))}[/bold]")


def _locate(out: Path, **options) -> list[Path]:
    from gpe.experiments.location import LocationConfig, run

    networks = [("gapnet", None), ("permutenet", "random"), ("permutenet", "fixed")]
    configs = [
        LocationConfig.of_preset(
            "quick",
            "location",
            network=network,
            permutation=permutation,
            grid_size=3,
            padding_mode="zeros",
            data="digits",
            image_size=32,
            device=choose_device("auto"),
            precision="fp32",
            compile=False,
            seed=0,
        )
        for network, permutation in networks
    ]
    return run(configs, out, **options)


def _shift(out: Path, **options) -> list[Path]:
    from gpe.experiments.augshift import run
    from gpe.experiments.augshift_config import AugShiftConfig

    device = choose_device("auto")
    configs = [
        AugShiftConfig.of_preset("quick", method, data="digits", epochs=4, device=device)
        for method in ("baseline", "augshift")
    ]
    return run(configs, out, **options)


def _remove(out: Path, console: Console, *, resume: bool, force: bool) -> list[Path]:
    from gpe.experiments import segmentation, targeting
    from gpe.experiments.progress import Progress
    from gpe.experiments.segmentation_config import SegmentationConfig

    device = choose_device("auto")
    config = SegmentationConfig.of_preset("quick", **STREETS, device=device)
    progress = Progress(Console(stderr=True))
    trained = segmentation.run([config], out, progress=progress, resume=resume, force=force)
    with console.status("removing channels"):
        figures = [
            targeting.run(job, str(trained[0]), out, device=device, force=force)
            for job in ("figure4", "figure5")
        ]
    return [*trained, *figures]
