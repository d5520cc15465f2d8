"""How benches measure: contestants take turns in one run, so that noise hits all alike."""

import ctypes
import json
import random
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

OURS = "gpe"
LOST = 0.9  # of our time: who takes less in three quarters of the rounds has won beyond the noise


@dataclass(frozen=True)
class Race:
    """What some contestants took for the same work.

    Attributes:
        title: what the work was.
        bytes_moved: what has to be read and written at least.
        milliseconds: of each contestant, one number a round.
        bandwidth: measured, of copying on this device, in bytes a second.
        peak_memory: that each contestant's step took at most, in bytes; empty if not measured.
    """

    title: str
    bytes_moved: int
    milliseconds: dict[str, list[float]]
    bandwidth: float
    peak_memory: dict[str, int]

    @property
    def rounds(self) -> int:
        return len(self.milliseconds[OURS])

    def rows(self) -> list[dict]:
        """Medians, quartiles, and those over the rounds of the ratio to ours."""
        return [
            {
                "contestant": name,
                "milliseconds": statistics.median(times),
                "quartiles": statistics.quantiles(times)[::2],
                "times_ours": statistics.median(self._ratios(name, OURS)),
                "times_ours_quartiles": statistics.quantiles(self._ratios(name, OURS))[::2],
                "of_copy_bandwidth": self.bytes_moved
                / (statistics.median(times) / 1e3)
                / self.bandwidth,
            }
            | ({"peak_megabytes": self.peak_memory[name] / 1e6} if self.peak_memory else {})
            for name, times in self.milliseconds.items()
        ]

    def lost(self) -> list[str]:
        """A line for each rival that has beaten ours by more than the noise.

        What is "alone" is a bound and what begins with "gpe" a form of ours: neither is a rival.
        One that is compiled is held against ours inside a compiled function, where that runs too.
        """
        lines = []
        for name in self.milliseconds:
            if name.startswith(OURS) or name.endswith("alone"):
                continue
            compiled = f"{OURS} compiled"
            ours = compiled if "compiled" in name and compiled in self.milliseconds else OURS
            ratios = self._ratios(name, ours)
            if (most := statistics.quantiles(ratios)[2]) < LOST:
                lines.append(
                    f"{self.title}: {name} took {statistics.median(ratios):.2f} of the time of "
                    f"{ours}, in three quarters of {self.rounds} rounds at most {most:.2f}"
                )
        return lines

    def _ratios(self, name: str, ours: str) -> list[float]:
        """Of the two times of each round, which had the same noise."""
        return [
            a / b for a, b in zip(self.milliseconds[name], self.milliseconds[ours], strict=True)
        ]


def race(
    title: str,
    contestants: dict[str, Callable[[], object]],
    *,
    device: str,
    calls: int,
    bytes_moved: int,
    rounds: int = 30,
    training: bool = False,
) -> Race:
    """Times ``contestants`` in turn, ``rounds`` times, after three rounds to warm up.

    A step makes ``calls`` calls, each of which has to move ``bytes_moved``. On a GPU it is captured
    as a CUDA graph where that is possible, so that kernels are timed and not Python. A step of
    ``training`` finds the memory of the step before, as in a loop, and its peak is measured too.
    """
    _take_memory(fresh=not training)
    peaks = {n: peak_memory(step, device) for n, step in contestants.items()} if training else {}
    clock = _gpu_clock if device == "cuda" else _cpu_clock
    timers = {name: clock(step) for name, step in contestants.items()}
    times = {name: [] for name in contestants}
    turns, order = list(timers), random.Random(0)
    for number in range(3 + rounds):
        order.shuffle(turns)  # or one would always find in the cache what the same other left
        for name in turns:
            milliseconds = timers[name]() / calls
            if number >= 3:
                times[name].append(milliseconds)
    return Race(title, bytes_moved, times, copy_bandwidth(device), peaks)


def milliseconds(step: Callable[[], object], device: str) -> float:
    """What one call of a step takes that is too long to be repeated much."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


@cache
def copy_bandwidth(device: str) -> float:
    """Bytes a second, read and written, of copying 512 MB: the median of 20."""
    source = torch.ones(128 * 2**20, device=device)
    target = torch.empty_like(source)
    clock = (_gpu_clock if device == "cuda" else _cpu_clock)(lambda: target.copy_(source))
    clock()
    return 2 * source.nbytes / (statistics.median(clock() for _ in range(20)) / 1e3)


def peak_memory(step: Callable[[], object], device: str) -> int:
    """Bytes of tensors that a step takes at most, beyond what there was before it."""
    step()  # what is made once, as by a compiler, does not count
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    events = sorted((e for e in events if e["name"] == "[memory]"), key=lambda event: event["ts"])
    return max(accumulate((event["args"]["Bytes"] for event in events), initial=0))


def print_race(race: Race, console: Console) -> None:
    """Prints one table."""
    table = Table(title=race.title, title_justify="left")
    headings = ("", "ms", "quartiles", f"time / {OURS}'s", "of copy bandwidth")
    if race.peak_memory:
        headings += ("peak MB",)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for row in race.rows():
        low, high = row["quartiles"]
        table.add_row(
            row["contestant"],
            f"{row['milliseconds']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['times_ours']:.2f}",
            f"{row['of_copy_bandwidth']:.0%}",
            *([f"{row['peak_megabytes']:.1f}"] if race.peak_memory else []),
        )
    console.print(table)


def _take_memory(fresh: bool) -> None:
    """Large tensors come from the system and go back to it, or else none ever goes back.

    By default the C library keeps some, and it is chance which contestant gets them and is spared
    its page faults.
    """
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # glibc's malloc.h
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**20 if fresh else -1)
        mallopt(mmap_threshold, 2**20)
        mallopt(mmap_max, 2**16 if fresh else 0)


def _cpu_clock(step: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        step()
        return (time.perf_counter() - start) * 1e3

    return run


def _gpu_clock(step: Callable[[], object], repeats: int = 10) -> Callable[[], float]:
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    replay, start, stop = _captured(step), *(torch.cuda.Event(enable_timing=True) for _ in "ab")

    def run() -> float:
        start.record()
        for _ in range(repeats):
            replay()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / repeats

    return run


def _captured(step: Callable[[], object]) -> Callable[[], object]:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError:  # it waits for the GPU, as a loop over locations does
        torch.cuda.synchronize()
        return step
    return graph.replay
