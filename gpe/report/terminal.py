"""Blocks on a terminal: tables, what they are about, and the notes that explain them."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from gpe.report.blocks import Block, Cell, Facts, Finding, Note, Row, Table


def print_tables(blocks: Iterable[Block], console: Console) -> None:
    """Prints the tables among ``blocks`` and the notes that are for a terminal too."""
    for block in blocks:
        if isinstance(block, Table) and block.where != "page":
            if block.title:
                print_line(block.title, console)
            console.print(_table(block, console.width))
        elif isinstance(block, Note) and block.where != "page":
            print_line(f"{block.title}: {block.text}" if block.title else block.text, console)
        elif isinstance(block, Facts) and block.where != "page":
            for name, value in block.facts:
                print_line(f"{name}: {value}", console)


def print_findings(blocks: Iterable[Block], console: Console) -> None:
    """Prints what was found, in plain words."""
    for block in blocks:
        if isinstance(block, Finding):
            title = f"{block.title}: " if block.title else ""
            print_line(f"  {title}{block.text}", console)


def print_line(text: str, console: Console) -> None:
    """As it is, whatever is in it and however long it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(block: Table, width: int) -> RichTable:
    shown = _with_room(block, width)
    lines = any("\n" in text for row in _rows(block, shown) for text in row)
    table = RichTable(show_lines=lines and block.style == "score" and len(block.sections) == 1)
    table.add_column(escape(block.head))
    for place in shown:
        column = block.columns[place]
        heading = f"{column.group}\n{column.text}" if column.group else column.text
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for section in block.sections:
        if section.title:
            table.add_row(f"[dim]{escape(section.title)}[/]")
        for row in section.rows:
            table.add_row(*map(escape, _texts(row, shown, block.style)))
        table.add_section()
    return table


def _with_room(block: Table, width: int) -> list[int]:
    """Places of the columns to show: of the roomy ones as many as there is room for."""
    shown = [place for place, column in enumerate(block.columns) if not column.roomy]
    for place, column in enumerate(block.columns):
        if column.roomy and _width(block, sorted([*shown, place])) <= width:
            shown = sorted([*shown, place])
    return shown


def _width(block: Table, shown: Sequence[int]) -> int:
    headings = [block.head, *(block.columns[place].text for place in shown)]
    columns = zip(headings, *_rows(block, shown), strict=True)
    longest = [max(len(line) for text in texts for line in text.split("\n")) for texts in columns]
    return sum(longest) + 3 * len(longest) + 1


def _rows(block: Table, shown: Sequence[int]) -> list[list[str]]:
    return [_texts(row, shown, block.style) for section in block.sections for row in section.rows]


def _texts(row: Row, shown: Sequence[int], style: str) -> list[str]:
    between = " " if style == "map" else "\n"
    label = between.join((row.label, *row.notes))
    return [label, *(_text(row.cells[place], between) for place in shown)]


def _text(cell: Cell | None, between: str) -> str:
    if cell is None:
        return ""
    paper = f"({cell.paper})" if cell.paper else ""
    first = " ".join(filter(None, (cell.text, cell.spread, paper)))
    return between.join((first, *cell.lines))
