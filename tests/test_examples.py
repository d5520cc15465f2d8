"""The examples run, on fewer epochs, and their networks learn."""

from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ("augshift_pytorch", "augshift_accelerate"))
def test_example_learns(name, capsys):
    if "accelerate" in name:
        pytest.importorskip("accelerate")
    losses, found = import_module(f"examples.{name}").main(epochs=4)
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    # Chance is 10 %.
    assert found.accuracy > 0.6
    assert found.consistency > 0.6
    assert f"consistency {found.consistency:.1%}" in capsys.readouterr().out
