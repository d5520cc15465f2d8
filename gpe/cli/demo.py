"""``gpe demo``."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.markup import escape

from gpe.cli.options import choose_device, option


def command(
    out: Annotated[Path, option("Directory of the runs and of the report.")] = Path("runs/demo"),
    force: Annotated[bool, option("Run it again although it was finished.", "--force")] = False,
) -> None:
    """Show in a few minutes that global pooling keeps where things are."""
    from gpe.experiments.location import LocationConfig, run
    from gpe.experiments.progress import Progress
    from gpe.report import write_report
    from gpe.report.terminal import print_findings

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        "A handwritten digit lies in one of nine cells of a black canvas. A network looks at the\n"
        "canvas, averages each of its channels over all places, and has to say from these\n"
        "averages alone where the digit was. Three networks are trained:\n"
    )
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
    progress = Progress(Console(stderr=True), runs=len(configs))
    directories = run(configs, out, progress=progress, resume=True, force=force)
    page = out / "report.html"
    write_report(directories, page)
    console.print("\n[bold]What was shown[/bold]")
    print_findings(directories, console)
    console.print(
        "\nThe paper's explanation: the averages keep the place in the order of the channels.\n"
        "Shuffling them anew each time takes the order away; a shuffle that stays the same does\n"
        "not, since the last layer learns it.\n"
        f"\nPictures, tables and curves: [bold]{escape(str(page))}[/bold]"
    )
