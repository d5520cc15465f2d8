"""What the tests of the command line share."""

import sys
from pathlib import Path

import pytest
import torch

from gpe import cli
from gpe.records import RECORD


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """What ``main`` sets for its process is undone; two threads gain nothing on tiny layers."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A function from arguments to (exit code, stdout, stderr), run in an empty directory.

    An exception that is not turned into an exit code fails the test.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def gpe(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return gpe


def runs():
    return [file.parent for file in Path("runs").rglob(RECORD)]
