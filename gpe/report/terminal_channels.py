"""What channels hold and what goes without them, on a terminal: ranking, ablation, Figure 5."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from gpe.report import ablation, figure5, rank
from gpe.report.given_networks import each
from gpe.report.rankings import ranking_of
from gpe.report.runs import Run


def ablation_tables(runs: Sequence[Run]) -> Iterator[str | Table]:
    """Each network's mIoU by region, without nothing and without the first channels."""
    for title, content in ablation.tables(runs):
        yield title
        yield _ablation_table(content)
    yield "mIoU in percent, the paper's in parentheses. Random: mean, lowest and highest draw."


def figure5_tables(runs: Sequence[Run]) -> Iterator[str | Table]:
    """Each network's accuracy on the images of Figure 5; the report has the pictures."""
    for title, trial in each(runs, figure5.read):
        yield title
        shown = Table()
        for heading in ("removed", *(ranking_of(name).kind for name in trial.accuracy)):
            shown.add_column(escape(heading), justify="right", no_wrap=True)
        for number, values in figure5.table(trial):
            shown.add_row(str(number), *(f"{value:.1f}" for value in values))
        yield shown
    yield "Labelled pixels that are right, in percent, over the images of the report's Figure 5."


def rank_tables(runs: Sequence[Run]) -> Iterator[str | Table]:
    """Each network's first channels by each mode, and how far the modes agree."""
    for title, trial in each(runs, rank.read):
        yield title
        yield _top_table(rank.table(trial))
        content = rank.agreement(trial)
        if content:
            yield _agreement_table(content)
    yield "Channel and score; the report has the intervals."


def _ablation_table(content: dict[str, Any]) -> Table:
    shown = Table()
    shown.add_column("ranking")
    for region in content["regions"]:
        shown.add_column(escape(region), justify="right", no_wrap=True)
    for block in content["blocks"]:
        if block["title"]:
            shown.add_row(f"[dim]{escape(block['title'])}[/]")
        for row in block["rows"]:
            shown.add_row(escape(row["label"]), *map(_ablation_cell, row["cells"]))
        shown.add_section()
    return shown


def _ablation_cell(cell: dict[str, Any]) -> str:
    paper = f" ({cell['paper']:.1f})" if cell["paper"] is not None else ""
    band = "\n{:.1f}\u2013{:.1f}".format(*cell["band"]) if cell["band"] else ""
    return f"{cell['mean']:.1f}{paper}{band}"


def _top_table(content: dict[str, Any]) -> Table:
    shown = Table()
    shown.add_column("rank", justify="right")
    for label, *_ in content["heads"]:
        shown.add_column(escape(label), justify="right")
    for number, cells in enumerate(content["rows"], 1):
        texts = [f"{cell['channel']}  {cell['score']}" if cell else "" for cell in cells]
        shown.add_row(str(number), *texts)
    return shown


def _agreement_table(content: dict[str, Any]) -> Table:
    shown = Table(
        caption=f"Spearman correlation of scores; shared of the first {content['head']} "
        f"({content['chance']:.1f} by chance)"
    )
    shown.add_column("")
    for label in content["columns"]:
        shown.add_column(escape(label), justify="right")
    for label, cells in content["rows"]:
        texts = [f"{cell['rho']:.2f}  {cell['shared']}" if cell else "" for cell in cells]
        shown.add_row(escape(label), *texts)
    return shown
