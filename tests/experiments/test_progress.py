"""Progress: plain lines where they are read later, a bar where a person looks on."""

import io
import re

import pytest
from rich.console import Console

from gpe.experiments import progress
from gpe.experiments.progress import Progress
from gpe.experiments.training import Tally

NAME = "location-permutenet-fixed-3x3-replicate-a-folder-of-images-paper-0123abcd"


def show(monkeypatch, *, terminal, done=0, epochs=3):
    """The text of one run of ``epochs`` epochs, each of 100 images in 10 s and 4 steps."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    shown = Progress(console)
    shown.expect(2)
    shown.skip("[b]first[/b]", "finished before")
    with shown.run(NAME, epochs, 100, done) as bar:
        for epoch in range(done + 1, epochs + 1):
            tally = Tally()
            for _ in range(4):
                now[0] += 2.5
                tally.count += 25
                bar.step(epoch, tally)
                bar.bar.refresh()  # rather than wait for the thread that does so
            metrics = {"epoch": epoch, "train_loss": 0.25, "train_accuracy": 50.0}
            bar.epoch(metrics | {"test_accuracy": 75.0}, 10.0)
    return console.file.getvalue()


def test_plain_lines_without_a_terminal(monkeypatch):
    """One line an epoch, however long: nothing is wrapped, coloured or overwritten."""
    epoch = "loss 0.250  train 50.0 %  test 75.0 %  10 images/s"
    assert show(monkeypatch, terminal=False).splitlines() == [
        "[1/2] [b]first[/b]: finished before",
        f"[2/2] {NAME}",
        f"  epoch 1/3  {epoch}  0:00:20 left",
        f"  epoch 2/3  {epoch}  0:00:10 left",
        f"  epoch 3/3  {epoch}  0:00:00 left",
    ]


def test_a_resumed_run_says_where_it_goes_on(monkeypatch):
    """What was done before counts neither for the speed nor for the time left."""
    lines = show(monkeypatch, terminal=False, done=2, epochs=4).splitlines()
    assert lines[1] == f"[2/2] {NAME}: continues after epoch 2"
    assert [line.split("images/s")[1] for line in lines[2:]] == ["  0:00:10 left", "  0:00:00 left"]


@pytest.mark.parametrize("done", [0, 2])
def test_a_bar_on_a_terminal(done, monkeypatch):
    """With epoch, loss, accuracy, speed and time left, in 80 columns."""
    text = show(monkeypatch, terminal=True, done=done, epochs=4)
    frames = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))
    bars = [frame for frame in frames if "━" in frame]
    assert bars and max(map(len, bars)) <= 80
    assert f"epoch {done + 1}/4" in bars[0]
    assert re.search(r"epoch 4/4 ━+ +loss 0\.000  0\.0 % 10 images/s [-\d:]+$", bars[-1])
