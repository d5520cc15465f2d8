"""What was read from frozen networks, on a terminal."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from gpe.report.decode import READOUTS, Share, Trial, kinds, table, tables
from gpe.report.runs import Run


def decode_tables(runs: Sequence[Run]) -> Iterator[str | Table]:
    """Each network's last layer by grid and readout, and all its layers by depth."""
    for trial in tables(runs):
        yield f"{trial.name}, {trial.last}"
        yield _last_table(trial)
        if len(trial.layers) > 1:
            yield "by depth, without intervals"
            yield _depth_table(trial)
    yield (
        "Right answers in percent about images that the readouts never saw; in parentheses the "
        "95 % interval."
    )


def _last_table(trial: Trial) -> Table:
    content, shown = table([trial]), Table()
    shown.add_column("readout")
    for grid, _ in content["columns"]:
        shown.add_column(f"{grid}×{grid}", justify="right", no_wrap=True)
    for row in content["rows"]:
        shown.add_row(escape(row["label"]), *map(_cell, row["cells"]))
    shown.add_section()
    shown.add_row("guessing", *(f"{chance:.1f}" for _, chance in content["columns"]))
    return shown


def _depth_table(trial: Trial) -> Table:
    shown = Table()
    shown.add_column("layer")
    columns = [(kind, grid) for kind in kinds([trial]) for grid in trial.shares[kind]]
    for kind, grid in columns:
        label = READOUTS.get(kind, (kind,))[0]
        shown.add_column(f"{escape(label)}\n{grid}×{grid}", justify="right")
    for layer in trial.layers:
        shares = [trial.shares[kind][grid].get(layer) for kind, grid in columns]
        texts = [f"{share.accuracy:.1f}" if share else "" for share in shares]
        shown.add_row(escape(layer), *texts)
    return shown


def _cell(share: Share | None) -> str:
    return f"{share.accuracy:.1f} ({share.low:.1f}\u2013{share.high:.1f})" if share else ""
