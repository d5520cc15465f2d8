"""The table of runs that every experiment gets, and records that lack something."""

import pytest

from gpe.errors import InputError
from gpe.records import Record
from gpe.report.blocks import Facts, Table
from gpe.report.runs import Run, runs_blocks


def run(directory, *, result=None, **config):
    Record("paper", config, [], result or {}, 0.0, None, {"seconds": 1234.5}).save(directory)
    return Run.load(directory)


def test_what_all_share_is_said_once_and_what_differs_in_a_row_each(tmp_path):
    blocks = runs_blocks(
        [run(tmp_path / "a", width=8, seed=0), run(tmp_path / "b", width=8, seed=1)]
    )
    (facts,) = (block for block in blocks if isinstance(block, Facts))
    assert dict(facts.facts) == {"width": "8"}
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert [column.text for column in table.columns] == ["seed", "seconds"]
    rows = [(row.label, [cell.text for cell in row.cells]) for row in table.sections[0].rows]
    assert rows == [("a", ["0", "1,234"]), ("b", ["1", "1,234"])]


def test_options_that_only_some_have_are_a_dash_elsewhere(tmp_path):
    blocks = runs_blocks([run(tmp_path / "a", width=8), run(tmp_path / "b")])
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert [row.cells[0].text for row in table.sections[0].rows] == ["8", "-"]


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), IndexError("x")])
def test_whatever_a_reader_misses_names_the_record(error, tmp_path):
    def reader(run):
        raise error

    with pytest.raises(InputError, match=r"a/record\.json is not a paper record: \w+Error\('x'\)"):
        run(tmp_path / "a").read(reader)
