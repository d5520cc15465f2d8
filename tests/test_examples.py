"""The examples run, on fewer epochs, and their networks learn; the notebooks run as they are."""

from importlib import import_module
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ("augshift_pytorch", "augshift_accelerate", "augshift_lightning"))
def test_example_learns(name, capsys):
    if name != "augshift_pytorch":
        pytest.importorskip(name.partition("_")[2])
    losses, found = import_module(f"examples.{name}").main(epochs=4)
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    # Chance is 10 %.
    assert found.accuracy > 0.6
    assert found.consistency > 0.6
    assert f"consistency {found.consistency:.1%}" in capsys.readouterr().out


# What the text says was found, in the values of these names when all has run.
FOUND = {
    "where_is_the_patch": "scores['GAPNet'] > 0.95 and scores['one permutation'] > 0.95 "
    "and 1 / 9 - 0.05 < scores['PermuteNet'] < 0.5",
    "channels_of_a_network": "right_answers.float().mean() > 0.6 "
    "and torch.corrcoef(torch.stack([left, other]))[0, 1] < 0",
}


@pytest.mark.parametrize("name", FOUND)
def test_notebook_runs_and_finds_what_it_says(name):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), "commit no outputs"
    notebook.cells.append(nbformat.v4.new_code_cell(f"assert {FOUND[name]}"))
    resources = {"metadata": {"path": EXAMPLES.parent}}  # where gpe is
    client.NotebookClient(notebook, timeout=300, resources=resources).execute()
