"""What a report consists of. An experiment makes a list of these; two renderers draw any of them.

:mod:`gpe.report.html` draws a page, :mod:`gpe.report.terminal` what a terminal can show: tables,
their headings and the notes that explain them. Colours are names in ``style.css``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Where = Literal["page", "terminal", "both"]


@dataclass(frozen=True)
class Heading:
    """A heading; those of levels 1 and 2 are in the page's table of contents."""

    text: str
    level: Literal[1, 2, 3, 4] = 2


@dataclass(frozen=True)
class Finding:
    """A paragraph that says what was found.

    Attributes:
        text: the result first, then how sure it is.
        title: what it is about, where there are several.
        lead: whether it is set large.
    """

    text: str
    title: str = ""
    lead: bool = True


@dataclass(frozen=True)
class Note:
    """A paragraph that explains what is above or below it."""

    text: str
    where: Where = "page"
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """A share in percent as a bar, with a tick at ``mark``."""

    share: float
    mark: float | None = None


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: its main value.
        spread: set beside it, as ``"± 1.2"`` or an interval.
        paper: the paper's value for it.
        lines: below it, small.
        aside: likewise, on a page alone.
        bar: below the value, on a page.
        tint: 0 to 1, how strongly it is coloured in a table of style ``"map"``.
        top: whether the value, and whether the first of ``lines``, is the highest of its kind.
    """

    text: str
    spread: str = ""
    paper: str = ""
    lines: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    bar: Bar | None = None
    tint: float | None = None
    top: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Row:
    """Cells behind a label; None is a cell without a number."""

    label: str
    cells: Sequence[Cell | None]
    colour: str = ""
    notes: tuple[str, ...] = ()  # below the label, small
    aside: tuple[str, ...] = ()  # likewise, on a page alone


@dataclass(frozen=True)
class Section:
    """Rows under a title of their own, which may be empty."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        text: its heading.
        aside: below the heading, small, on a page alone.
        group: heading above several columns.
        roomy: whether only a terminal with room for it shows it.
    """

    text: str
    aside: str = ""
    group: str = ""
    roomy: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: heading of the labels.
        columns: of each cell of a row.
        sections: of rows.
        style: ``"score"`` for large numbers with bars, ``"plain"``, or ``"map"`` for tinted cells.
        title: above it, on a terminal, where headings do not say it.
        where: what shows it.
    """

    head: str
    columns: Sequence[Column]
    sections: Sequence[Section]
    style: Literal["score", "plain", "map"] = "score"
    title: str = ""
    where: Where = "both"

    def __post_init__(self) -> None:
        for section in self.sections:
            for row in section.rows:
                if len(row.cells) != len(self.columns):
                    raise ValueError(f"{row.label}: {len(row.cells)} cells, not as columns")


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a line, a dot, a diamond or a square of a colour.

    Attributes:
        colour: a name in ``style.css``, or ``rgb(…)``.
        dashes: of a line, lengths of stroke and gap as in SVG; empty is a solid one.
    """

    text: str
    colour: str = "ink"
    shape: Literal["line", "dot", "diamond", "square", "truth", "answer", "none"] = "line"
    dashes: str = ""


@dataclass(frozen=True)
class Legend:
    keys: Sequence[Key]


@dataclass(frozen=True)
class Plot:
    """A drawing (:mod:`gpe.report.plots`) with its title and what its axis shows."""

    svg: str
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Plots:
    """Plots beside one another."""

    plots: Sequence[Plot]
    size: Literal["small", "medium", "wide"] = "medium"


@dataclass(frozen=True)
class Picture:
    """A picture: the address of an image (:func:`gpe.report.plots.png`) or inline SVG.

    Attributes:
        alt: what it shows, for those who do not see it.
        bold, text: below it.
    """

    source: str
    alt: str
    bold: str = ""
    text: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures, each row under a title that may be empty; None leaves a place empty."""

    rows: Sequence[tuple[str, Sequence[Picture | None]]]
    size: Literal["small", "medium", "large"] = "medium"


@dataclass(frozen=True)
class Facts:
    """Names and values, as a list of many."""

    facts: Sequence[tuple[str, str]]
    where: Where = "page"


@dataclass(frozen=True)
class RawHtml:
    """What no other block can draw: HTML with its own style, made by an experiment's template."""

    html: str
    css: str = field(default="", repr=False)


Block = Heading | Finding | Note | Table | Legend | Plot | Plots | Pictures | Facts | RawHtml
