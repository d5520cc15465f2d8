"""How far a training has come: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gpe.experiments.processes import count, is_first

if TYPE_CHECKING:
    from gpe.experiments.training import Tally

REFRESH_SECONDS = 0.25


class Progress:
    """Shows runs one after the other on ``console``; in several processes the first one's alone."""

    def __init__(self, console: Console):
        self.console = console
        self.expect(1)
        self._status = console.status("")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._status.stop()

    def expect(self, runs: int) -> None:
        """So many runs come next; they are counted from one."""
        self.runs, self._started = runs, 0

    def tell(self, text: str) -> None:
        """What is being done: in one line on a terminal, in a line each in a file."""
        if not is_first():
            return
        if self.console.is_terminal:
            self._status.update(escape(text))
            self._status.start()
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._status.stop()
        if is_first():
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def skip(self, name: str, why: str) -> None:
        """Instead of a run."""
        self._head(name, f": {why}")

    @contextmanager
    def run(self, name: str, epochs: int, images: int, done: int) -> Iterator["RunProgress"]:
        """Shows one run of ``epochs`` epochs of ``images`` images, ``done`` of them before."""
        self._head(name, f": continues after epoch {done}" if done else "")
        columns = (
            TextColumn("  epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[accuracy]}"),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
        )
        with Bar(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as bar:
            yield RunProgress(bar, self.note, epochs, images, done)

    def _head(self, name: str, remark: str) -> None:
        self._started += 1
        number = f"[{self._started}/{self.runs}] " if self.runs > 1 else ""
        self.note(f"{number}{name}{remark}")


class RunProgress:
    """One run on the screen."""

    def __init__(
        self, bar: Bar, print_line: Callable[[str], None], epochs: int, images: int, done: int
    ):
        self.bar, self.print_line = bar, print_line
        self.epochs, self.images = epochs, images
        self.start, self.refreshed = time.perf_counter(), 0.0
        self.first = done * images
        fields: dict[str, Any] = {"loss": 0.0, "accuracy": "", "speed": 0.0}
        fields |= {"epoch": done + 1, "epochs": epochs}
        self.task = bar.add_task("", total=epochs * images, completed=self.first, **fields)

    def step(self, epoch: int, tally: "Tally") -> None:
        """After a training step. Reads the tally, and so waits for a GPU, a few times a second."""
        now = time.perf_counter()
        if self.bar.disable or now - self.refreshed < REFRESH_SECONDS:
            return
        self.refreshed = now
        completed = (epoch - 1) * self.images + tally.count * count()
        self.bar.update(
            self.task,
            completed=completed,
            epoch=epoch,
            loss=tally.loss,  # of this process
            accuracy=_percent(tally.accuracy),
            speed=(completed - self.first) / (now - self.start),
        )

    def epoch(self, metrics: dict[str, float], speed: float) -> None:
        """After an epoch and its test."""
        done = int(metrics["epoch"])
        elapsed = time.perf_counter() - self.start
        left = elapsed / (done - self.first / self.images) * (self.epochs - done)
        self.print_line(
            f"  epoch {done}/{self.epochs}  loss {metrics['train_loss']:.3f}"
            f"  train {_percent(metrics['train_accuracy'])}"
            f"  test {_percent(metrics['test_accuracy'])}"
            f"  {speed:,.0f} images/s  {timedelta(seconds=round(left))} left",
        )


def _percent(accuracy: float) -> str:
    """A dash where there is none, as of boxes."""
    return "-" if isnan(accuracy) else f"{accuracy:.1f} %"
