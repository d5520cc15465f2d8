"""Any list of blocks as a page."""

import pytest

from gpe.report import html
from gpe.report.blocks import (
    Bar,
    Cell,
    Column,
    Facts,
    Finding,
    Heading,
    Key,
    Legend,
    Note,
    Picture,
    Pictures,
    Plot,
    Plots,
    RawHtml,
    Row,
    Section,
    Table,
)
from gpe.report.plots import drawing
from tests.reporting import Page

EVIL = '<script>alert(1)</script>"><img src=x>'


def page(*blocks):
    return html.page([blocks], title="runs", footer="the end")


def table(text="1.0", **options):
    columns = [Column(text, aside=text, group=text), Column("wide", roomy=True)]
    cell = Cell(text, spread=text, paper=text, lines=(text,), aside=(text,), bar=Bar(50.0, 10.0))
    rows = [Row(text, [cell, None], notes=(text,), aside=(text,))]
    return Table(text, columns, [Section(rows, title=text)], title=text, **options)


def test_headings_are_in_the_contents_and_lead_to_themselves():
    text = page(Heading("One run", 1), Heading("Part"), Heading("Part"), Heading("Small", 3))
    shown = Page(text)
    links = [has["href"][1:] for tag, has in shown.tags if tag == "a"]
    assert links == ["one-run", "part", "part-2"]
    assert [has["id"] for tag, has in shown.tags if "id" in has and tag[0] == "h"] == links


@pytest.mark.parametrize("style", ["score", "plain", "map"])
def test_a_table_has_every_part_of_a_cell_but_what_only_a_wide_terminal_shows(style):
    (rows,) = Page(page(table("a", style=style))).tables
    assert rows == [["a", "a"], ["a a"], ["a"], ["a a a", "a a paper a a a"]]


def test_a_cell_without_a_number_is_a_dash():
    (rows,) = Page(page(Table("x", [Column("y")], [Section([Row("a", [None])])]))).tables
    assert rows == [["x", "y"], ["a", "-"]]


def test_what_is_for_a_terminal_is_not_on_the_page():
    text = page(table("secret", where="terminal"), Note("secret", "terminal"))
    assert "secret" not in text


def test_text_of_every_block_is_escaped():
    text = page(
        Heading(EVIL, 1),
        Finding(EVIL, EVIL),
        Note(EVIL, title=EVIL),
        table(EVIL),
        Legend([Key(EVIL), Key(EVIL, shape="dot")]),
        Plots([Plot("<svg></svg>", EVIL, EVIL)]),
        Pictures([(EVIL, [Picture("data:image/png;base64,", EVIL, EVIL, EVIL), None])]),
        Pictures([("", [Picture(drawing("", box="0 0 1 1", alt=EVIL), EVIL)])]),
        Facts([(EVIL, EVIL)]),
    )
    assert "<script" not in text and "<img src=x" not in text


def test_raw_html_brings_its_style_once():
    raw = RawHtml("<b>raw</b>", ".raw { color: red }")
    text = page(raw, raw)
    assert text.count("<b>raw</b>") == 2 and text.count(".raw { color: red }") == 1


def test_a_row_with_other_cells_than_columns_is_a_mistake():
    with pytest.raises(ValueError, match="a: 2 cells, not as columns"):
        Table("x", [Column("y")], [Section([Row("a", [None, None])])])
