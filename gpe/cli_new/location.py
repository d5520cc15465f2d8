"""The command line: parses arguments, calls what does the work, prints what came out."""

# torch takes seconds to import, so that what needs it is imported where it is used.
import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import gpe
from gpe.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=gpe.__doc__)
UsageError = typer.BadParameter.__base__  # of the Click inside Typer, wherever it lives


def option(help: str, *names: str, **settings: Any):
    return typer.Option(*names, help=help, **settings)


def preset_option(help: str, *names: str):
    return option(help, *names, show_default="preset's", rich_help_panel="Hyperparameters")


@app.command()
def location(
    network: Annotated[str, option("gapnet or permutenet.")] = "gapnet",
    task: Annotated[str, option("location (where is it?) or object (what is it?).")] = "location",
    grid: Annotated[str, option("Cells along each side of the canvas.")] = "3",
    padding: Annotated[str, option("zeros, reflect, replicate or circular.")] = "zeros",
    permutation: Annotated[str, option("PermuteNet's: random, or fixed as a control.")] = "random",
    data: Annotated[str, option("digits, cifar10, cifar100, or a folder of images.")] = "digits",
    preset: Annotated[str, option("quick, or paper: the authors' recipe.")] = "quick",
    seed: Annotated[str, option("Of weights, batches and cells.")] = "0",
    width: Annotated[int | None, preset_option("Channels of the first stage.")] = None,
    epochs: Annotated[int | None, preset_option("Passes over the training images.")] = None,
    train_images: Annotated[
        int | None, preset_option("Images an epoch; a smaller set is gone through repeatedly.")
    ] = None,
    test_images: Annotated[int | None, preset_option("Images of a test.")] = None,
    batch_size: Annotated[int | None, preset_option("Training images a step.")] = None,
    test_batch_size: Annotated[int | None, preset_option("Test images a batch.")] = None,
    learning_rate: Annotated[float | None, preset_option("Of Adam.")] = None,
    betas: Annotated[str | None, preset_option("Of Adam, two numbers.")] = None,
    weight_decay: Annotated[float | None, preset_option("Of Adam.")] = None,
    schedule: Annotated[str | None, preset_option("constant or one-cycle.")] = None,
    flip: Annotated[bool | None, preset_option("Mirror half of the training images.")] = None,
    bn_batches: Annotated[
        int | None, preset_option("Batches to estimate batch norm's averages from; 0: running.")
    ] = None,
    image_size: Annotated[int, option("Height and width of a cell in pixels.")] = 32,
    device: Annotated[str, option("auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, option("fp32 or bf16.")] = "fp32",
    compile: Annotated[bool, option("Compile the network.", "--compile")] = False,
    root: Annotated[Path, option("Directory of CIFAR's files.")] = Path("data"),
    download: Annotated[bool, option("Fetch CIFAR into --root.", "--download")] = False,
    out: Annotated[Path, option("Directory of the runs.")] = Path("runs"),
    resume: Annotated[bool, option("Go on where it was interrupted.", "--resume")] = False,
    force: Annotated[bool, option("Run finished ones again.", "--force")] = False,
    as_json: Annotated[
        bool, option("Print the record alone; a list of several.", "--json")
    ] = False,
) -> None:
    """Train and test networks that tell where an image patch lies (Table 1).

    --network, --task, --grid, --padding, --permutation and --seed take several values,
    separated by commas: every combination is run.
    """
    from gpe.experiments.location import LocationConfig, run
    from gpe.experiments.progress import Progress
    from gpe.report.terminal import print_table

    options = {
        "data": data,
        "image_size": image_size,
        "width": width,
        "epochs": epochs,
        "train_images": train_images,
        "test_images": test_images,
        "batch_size": batch_size,
        "test_batch_size": test_batch_size,
        "learning_rate": learning_rate,
        "betas": betas and _values("betas", betas, float),
        "weight_decay": weight_decay,
        "schedule": schedule,
        "flip": flip,
        "bn_batches": bn_batches,
        "device": _device(device),
        "precision": precision,
        "compile": compile,
    }
    # Seeds change slowest: each may draw its own images, which are loaded once that way.
    several = {
        "seed": _values("seed", seed, int),
        "task": _values("task", task),
        "padding_mode": _values("padding", padding),
        "network": _values("network", network),
        "permutation": _values("permutation", permutation),
        "grid_size": _values("grid", grid, int),
    }
    combinations = (
        dict(zip(several, values, strict=True)) for values in product(*several.values())
    )
    configs = [LocationConfig.of_preset(preset, **options, **each) for each in combinations]
    configs = list(dict.fromkeys(configs))  # GAPNet has no permutation to vary

    progress = Progress(Console(stderr=True), runs=len(configs))
    directories = run(
        configs,
        out,
        progress=progress,
        resume=resume,
        force=force,
        root=root,
        download=download,
    )
    if as_json:
        _print_records(directories)
    else:
        # In a file a table may be wide; rich would squeeze it into 80 columns.
        print_table(directories, Console(width=None if sys.stdout.isatty() else 200))
        typer.echo(f"Records in {out}; `gpe report {out}` draws them.")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Directories with runs, at any depth.")],
    out: Annotated[Path, option("HTML file to write.")] = Path("report.html"),
) -> None:
    """Draw any number of runs as one HTML page that needs nothing else."""
    from gpe.records import find
    from gpe.report import write_report

    directories = find(runs)
    write_report(directories, out)
    typer.echo(f"{out}: {len(directories)} runs")


@app.command()
def demo(
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
            device=_device("auto"),
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


@app.command()
def info() -> None:
    """Say which kernels serve which device, and why."""
    typer.echo(gpe.doctor())


def main() -> None:
    """Runs the command line; wrong input gets one line and exit code 2."""
    # OpenMP's threads wait for each other by spinning; long spins cost much where other processes
    # want the cores. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        code = app(standalone_mode=False)
        if code == 130:  # so Typer says that it was interrupted; older ones raise Abort
            raise KeyboardInterrupt
        sys.exit(code)
    except InputError as error:
        _fail(str(error), 2)
    except UsageError as error:
        _fail(error.format_message(), 2)
    except OSError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command goes on (gpe location: with --resume)", 130)


def _fail(message: str, code: int) -> None:
    if message:  # without any, Typer has printed the help instead
        typer.echo(f"gpe: {message}", err=True)
    sys.exit(code)


def _values(name: str, text: str, kind: Callable = str) -> tuple:
    """``"3,5"`` as ``(3, 5)``."""
    try:
        return tuple(kind(word.strip()) for word in text.split(","))
    except ValueError:
        noun = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{name}: expected {noun} separated by commas, got {text!r}") from None


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _print_records(directories: Sequence[Path]) -> None:
    from gpe.records import RECORD

    records = [json.loads((directory / RECORD).read_text()) for directory in directories]
    typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=2))


if __name__ == "__main__":
    main()
