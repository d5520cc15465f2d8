"""The command line: parses arguments, calls what does the work, prints what came out."""

import os
import sys
from pathlib import Path
from typing import Annotated

import gpe
from gpe.errors import InputError, needs

try:
    with needs("the command gpe"):
        import typer
except InputError as error:
    print(f"gpe: {error}", file=sys.stderr)
    sys.exit(2)

from gpe.cli import (
    ablate,
    atlas,
    augshift,
    consistency,
    decode,
    demo,
    figures,
    location,
    rank,
    segment,
)
from gpe.cli.options import option

app = typer.Typer(no_args_is_help=True, add_completion=False, help=gpe.__doc__)
UsageError = typer.BadParameter.__base__  # of the Click inside Typer, wherever it lives

for module in (location, augshift, consistency, decode, atlas, rank, ablate):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(segment.app, name="segment")
for figure in (figures.figure4, figures.figure5, figures.figure6):
    app.command(figure.__name__)(figure)


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


app.command("demo")(demo.command)


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
        with needs("this command"):
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
        _fail("interrupted; the same command goes on (with --resume, where it has one)", 130)


def _fail(message: str, code: int) -> None:
    if message:  # without any, Typer has printed the help instead
        typer.echo(f"gpe: {message}", err=True)
    sys.exit(code)
