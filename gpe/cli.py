"""The command line, made of the configurations of the experiments; and four commands of its own.

A command's options are the fields of its configuration (:mod:`gpe.experiments.options`), of
``Places``, and ``--json``. Torch takes seconds to import: only the functions that run something do.
"""

import codecs
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from inspect import Parameter, Signature
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from gpe.errors import InputError, needs
from gpe.experiments import EXPERIMENTS
from gpe.experiments.options import Command, Config, Option, Places, hints_of, option_of, plain_type

try:
    with needs("the command gpe"):
        import typer
        from rich.console import Console
except InputError as missing:
    print(f"gpe: {missing}", file=sys.stderr)
    sys.exit(2)

import gpe

app = typer.Typer(no_args_is_help=True, help=gpe.__doc__, pretty_exceptions_enable=False)
# Of the Click inside Typer, wherever it lives.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_NUMBERS = {int: "whole numbers", float: "numbers"}
_NAMES = {int: "int", float: "float"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What a terminal without UTF-8, or none, cannot show, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


_PLAINLY = "gpe.plainly"
_PLAIN = {"\u00a0": " ", "±": "+-", "×": "x", "−": "-", "\u2013": "-", "…": "...", "λ": "lambda"}
codecs.register_error(_PLAINLY, _plainly)


def main() -> None:
    """Runs the command line; wrong input gets one line and exit code 2."""
    warnings.showwarning = _warn
    # OpenMP's threads wait for each other by spinning; long spins cost much where other processes
    # want the cores. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_PLAINLY)
    try:
        with needs("this command"):
            code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        if code == 130:  # so Typer says that it was interrupted; older ones raise Abort
            raise KeyboardInterrupt
        sys.exit(code)
    except InputError as error:
        _fail(str(error), 2)
    except UsageError as error:
        _fail(getattr(error, "format_message", error.__str__)(), 2)
    except OSError as error:
        if isinstance(sys.stdout, TextIOWrapper):  # what is left in it cannot be written either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail("" if isinstance(error, BrokenPipeError) else str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command continues where it stopped", 130)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version")] = False):
    if version:
        typer.echo(f"gpe {gpe.__version__}")
        raise typer.Exit


def _add_experiments() -> None:
    groups: dict[str, typer.Typer] = {}
    for folder in EXPERIMENTS:
        config = import_module(f"gpe.experiments.{folder}.config")
        for command in config.COMMANDS:
            group, _, name = command.name.rpartition(" ")
            if group and group not in groups:
                about = import_module(f"gpe.experiments.{folder}").__doc__
                groups[group] = typer.Typer(no_args_is_help=True, help=about)
                app.add_typer(groups[group], name=group)
            parent = groups[group] if group else app
            parent.command(name, help=command.help)(_function(folder, command))


def _function(folder: str, command: Command) -> Callable[..., None]:
    """What Typer reads a command from: a function with a parameter for each option."""

    def call(**given: Any) -> None:
        as_json, extra, places = given.pop("as_json"), {}, {}
        for one in fields(command.extra) if command.extra else ():
            extra[one.name] = given.pop(one.name)
        for name in command.places:
            places[name] = given.pop(name)
        _run(folder, command, _parsed(command.config, given), places, extra, as_json)

    parameters = [*_parameters(command), _parameter("as_json", bool, _AS_JSON, False)]
    parameters.sort(key=lambda parameter: parameter.default is not Parameter.empty)
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _run(
    folder: str,
    command: Command,
    given: dict[str, Any],
    places: dict[str, Any],
    extra: dict[str, Any],
    as_json: bool,
) -> None:
    from gpe.experiments.processes import is_first, processes
    from gpe.experiments.progress import Progress
    from gpe.experiments.runs import writable

    with processes():
        run = getattr(import_module(f"gpe.experiments.{folder}.run"), command.run)
        configs = command.config.several(**given, **extra, **command.fixed)
        found = Places(**places)
        with writable(found.out), Progress(Console(stderr=True)) as progress:
            directories = run(configs, found, progress)
        if is_first():
            _print_runs(directories, found.out, as_json)


_AS_JSON = Option("Print the record alone, or a list of several", flag="--json")


def _parameters(command: Command) -> Iterator[Parameter]:
    config = command.config
    for one in fields(config):
        if option_of(one).hidden or (command.only and one.name not in command.only):
            continue
        hint = plain_type(hints_of(config)[one.name])
        many = one.name in config.SWEPT or get_origin(hint) is tuple
        kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
        metavar = f"<{_NAMES.get(kind, 'str')},...>" if many and not option_of(one).argument else ""
        said, default = option_of(one), _default(config, one)
        if many and said.argument:
            hint, default = list[str], MISSING if one.default is MISSING else None
        elif many or hint not in (int, float, bool, Path):
            hint = str
        decided = config.preset_values(command.fixed) if command.fixed else {}
        shown = _preset_defaults(config, one.name) if said.preset else ""
        if decided.get(one.name) is not None:
            shown = _text(decided[one.name])
        default = None if shown else default
        yield _parameter(one.name, hint, said, default, metavar=metavar, shown=shown)
    if command.extra is not None:
        for one in fields(command.extra):
            hint = plain_type(hints_of(command.extra)[one.name])
            hint = hint if hint in (int, float, bool) else str
            yield _parameter(one.name, hint, option_of(one), one.default)
    for name in command.places:
        one = Places.__dataclass_fields__[name]
        yield _parameter(name, plain_type(hints_of(Places)[name]), option_of(one), one.default)


def _parameter(
    name: str,
    kind: Any,
    said: Option,
    default: Any,
    *,
    metavar: str = "",
    shown: str = "",
) -> Parameter:
    flag = said.flag or f"--{name.replace('_', '-')}"
    shown = shown or said.unset
    # Brackets are rich's markup unless they are escaped.
    help = f"{said.help} \\[default: {shown}]" if shown else said.help
    settings: dict[str, Any] = {"help": help, "show_default": not shown}
    if metavar:
        settings["metavar"] = metavar
    if said.group:
        settings["rich_help_panel"] = said.group
    if said.argument:
        about = typer.Argument(**settings)
    elif kind is bool and default is False:
        about = typer.Option(flag, **settings | {"show_default": False})
    elif kind is bool:
        about = typer.Option(f"{flag}/--no-{flag.removeprefix('--')}", **settings)
    else:
        about = typer.Option(flag, **settings)
    hint: Any = Annotated[kind if default is not None else kind | None, about]  # type: ignore[valid-type]
    default = Parameter.empty if default is MISSING else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _default(config: type[Config], one: Field) -> Any:
    """As the command line has it: text where several values may come."""
    if option_of(one).several:
        return option_of(one).several
    if one.default is MISSING and one.name == "preset":
        return next(iter(config.PRESETS))
    return _text(one.default) or None if isinstance(one.default, tuple) else one.default


def _preset_defaults(config: type[Config], name: str) -> str:
    """``"quick 8, paper 64"``; one value where all presets agree.

    Where one has several, ``"quick: resnet18 (csp), hrnet (others); paper: vgg"``.
    """
    unset = option_of(config.__dataclass_fields__[name]).unset or "all"
    given = {preset: values[name] for preset, values in config.PRESETS.items()}
    by_preset = {preset: _preset_text(value, unset) for preset, value in given.items()}
    if len(set(by_preset.values())) == 1:
        return next(iter(by_preset.values()))
    if any(isinstance(value, dict) for value in given.values()):
        return "; ".join(f"{preset}: {value}" for preset, value in by_preset.items())
    return ", ".join(f"{preset} {value}" for preset, value in by_preset.items())


def _preset_text(value: Any, unset: str) -> str:
    """One value, or one by what it depends on: ``"resnet18 (csp), hrnet (others)"``."""
    if not isinstance(value, dict):
        return unset if value is None else _text(value) or "none"
    cases: dict[str, list[str]] = {}
    for case, each in value.items():
        cases.setdefault(_preset_text(each, unset), []).append(case)
    if len(cases) == 1:
        return next(iter(cases))
    others_last = sorted(cases.items(), key=lambda each: len(each[1]))
    return ", ".join(
        f"{text} ({'others' if len(some) > 1 else some[0]})" for text, some in others_last
    )


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parsed(config: type[Config], given: dict[str, Any]) -> dict[str, Any]:
    """Text that stands for several values, as these."""
    for one in fields(config):
        value, hint = given.get(one.name), plain_type(hints_of(config)[one.name])
        if isinstance(value, str) and get_origin(hint) is tuple:
            given[one.name] = _values(one, value, get_args(hint)[0])
        elif isinstance(value, str) and one.name in config.SWEPT:
            given[one.name] = _values(one, value, hint)
        elif value is not None and one.name in config.SWEPT and not isinstance(value, list):
            given[one.name] = [value]
    return given


def _values(one: Field, text: str, kind: Any) -> tuple:
    """``"3,5"`` as ``(3, 5)``."""
    name = option_of(one).flag.removeprefix("--") or one.name
    try:
        make = kind if kind in _NUMBERS else str
        return tuple(make(word.strip()) for word in text.split(","))
    except ValueError:
        noun = _NUMBERS[kind]
        raise InputError(f"{name}: expected {noun} separated by commas, got {text!r}") from None


def _print_runs(directories: Sequence[Path], out: Path, as_json: bool) -> None:
    """The records as they are, or as tables."""
    from gpe.experiments.reports import print_tables
    from gpe.records import RECORD

    if as_json:
        records = [json.loads((directory / RECORD).read_text()) for directory in directories]
        typer.echo(json.dumps(records if len(records) > 1 else records[0], indent=2))
        return
    # In a file a table may be wide; rich would squeeze it into 80 columns.
    print_tables(directories, Console(width=None if sys.stdout.isatty() else 200))
    typer.echo(f"Records in {out}; `gpe report {out}` draws them.")


_add_experiments()


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Directories with runs, at any depth")],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
) -> None:
    """Draw any number of runs as one HTML page that needs nothing else.

    JSON files that hold several records, as in the repository's results/, are drawn too.
    """
    from gpe.experiments.processes import expect_one_process
    from gpe.experiments.reports import write_report
    from gpe.report.words import count

    expect_one_process("gpe report")
    number = write_report(runs, out, lambda note: typer.echo(f"gpe: {note}", err=True))
    typer.echo(f"{out}: {count(number, 'run')}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the runs and the report")] = Path(
        "runs/demo"
    ),
    force: Annotated[bool, typer.Option("--force", help="Run again what is finished")] = False,
) -> None:
    """Show in five minutes what pooled features know of position, and write a report."""
    from gpe.experiments.demo import run

    run(out, force=force)


@app.command()
def info() -> None:
    """Say which kernels serve which device, and why."""
    typer.echo(gpe.doctor())


def _fail(message: str, code: int) -> None:
    if message:  # without any, Typer has printed the help instead
        typer.echo(f"gpe: {message}", err=True)
    sys.exit(code)


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning for the user as one plain line; others say where in the code they are from."""
    if issubclass(category, UserWarning):
        typer.echo(f"gpe: {' '.join(str(message).split())}", err=True)
    else:
        _show(message, category, *_, **__)


_show = warnings.showwarning


if __name__ == "__main__":
    main()
