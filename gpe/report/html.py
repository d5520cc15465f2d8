"""Blocks as one HTML page that loads nothing from anywhere and needs no scripts."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from gpe.report.blocks import Block, Column, Heading, RawHtml

_HERE = Path(__file__).parent
STYLE = _HERE / "style.css"  # of every page


def page(parts: Sequence[Sequence[Block]], *, title: str, footer: str) -> str:
    """A page with a section for each of ``parts``, and a table of contents of their headings."""
    headings = [block for part in parts for block in part if isinstance(block, Heading)]
    raw = [block for part in parts for block in part if isinstance(block, RawHtml)]
    style = STYLE.read_text()
    return template(_HERE / "page.html").render(
        parts=parts,
        title=title,
        footer=footer,
        style="\n".join([style, *dict.fromkeys(block.css for block in raw if block.css)]),
        contents=_contents(headings),
        anchors=_anchors(headings),
        id=id,
        column_groups=_column_groups,
        zip=zip,
    )


def _anchors(headings: Sequence[Heading]) -> dict[int, str]:
    """Where each is, by its ``id()``: its words, and a number where others have the same."""
    names, taken = {}, Counter[str]()
    for heading in headings:
        name = re.sub(r"\W+", "-", heading.text.lower()).strip("-") or "part"
        taken[name] += 1
        names[id(heading)] = f"{name}-{taken[name]}" if taken[name] > 1 else name
    return names


def _contents(headings: Sequence[Heading]) -> list[tuple[Heading, list[Heading]]]:
    """Headings of level 1, each with those of level 2 below it."""
    found: list[tuple[Heading, list[Heading]]] = []
    for heading in headings:
        if heading.level == 1 or (heading.level == 2 and not found):
            found.append((heading, []))
        elif heading.level == 2:
            found[-1][1].append(heading)
    return found


def _column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Headings above several columns, and over how many each goes."""
    shown = [column for column in columns if not column.roomy]
    return [(name, len(list(same))) for name, same in groupby(shown, lambda each: each.group)]


@cache
def template(path: Path) -> Template:
    """Of a page or a part of one."""
    templates = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(path.name)
