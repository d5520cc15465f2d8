"""What a report says of the pages of ``gpe explore``."""

from collections.abc import Sequence

from gpe.experiments.explore.page import PAGE
from gpe.report.blocks import Block, Finding, Heading, Note
from gpe.report.runs import Run


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Where each page lies.

    Raises:
        InputError: a record lacks what such a record has.
    """
    found: list[Block] = [Heading("Pages to play with", level=1)]
    for run in runs:
        text = run.read(_sentence)
        found += [Finding(text, lead=False), Note(text, where="terminal")]
    return found


def _sentence(run: Run) -> str:
    result = run.record.result
    return (
        f"{result['network']}, {result['channels']} channels of {result['layer']}: open "
        f"{run.directory / PAGE} in a browser."
    )
