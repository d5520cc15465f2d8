"""``pytest benches``: each race that a bench's ``races(device)`` yields is a test.

It fails where a result is wrong, before anything is timed, and where gpe has lost by more than the
noise. pytest-benchmark, where it is installed, gets a row for each contestant, in the race's group:
it compares with runs before, saves and draws. ``--save FOLDER`` also writes what the README quotes
to ``FOLDER/<bench>-<device>.json``.
"""

import json
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benches.harness import OURS, Race, print_race
from gpe.records import atomic, environment

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
SAVED = pytest.StashKey[dict[Path, dict]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benches")
    group.addoption("--device", choices=DEVICES, help="Time on this device alone")
    group.addoption("--save", type=Path, metavar="FOLDER", help="Also write the numbers there")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    about = {device: environment(torch.device(device)) for device in _devices(config)}
    for each in about.values():
        del each["commit"]  # which pytest-benchmark keeps elsewhere; machines are compared
    machine_info["gpe"] = about


def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: Callable[[str], Iterator[partial[Race]]]
) -> list[pytest.Function] | None:
    if name != "races":
        return None
    found = [(device, race) for device in _devices(collector.config) for race in obj(device)]
    return [_test(collector, device, race) for device, race in found]


class Replay:
    """A clock that :meth:`next_round` moves on by times that were measured before."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds: Iterator[float] = iter(())

    def read(self) -> float:
        return self.now

    def next_round(self) -> None:
        self.now += next(self.seconds)


def _test(collector: pytest.Collector, device: str, race: partial[Race]) -> pytest.Function:
    words = [_word(value) for value in race.args]
    words += [f"{option}={_word(value)}" for option, value in race.keywords.items()]
    clock = Replay()
    call = partial(_run, device=device, race=race, clock=clock)
    if not collector.config.pluginmanager.has_plugin("benchmark"):
        call = partial(call, benchmark=None)
    name = f"{race.func.__name__.strip('_')}[{'-'.join(words)}]"
    test = pytest.Function.from_parent(collector, name=name, callobj=call)
    if collector.config.pluginmanager.has_plugin("benchmark"):
        test.add_marker(pytest.mark.benchmark(timer=clock.read))
    return test


def _run(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture,
    benchmark: Any,
    *,
    device: str,
    race: partial[Race],
    clock: Replay,
) -> None:
    result = race()
    with capsys.disabled():
        console = Console()
        console.print()
        print_race(result, console)
    if folder := request.config.getoption("save"):
        _save(result, folder / f"{request.path.stem}-{device}.json", device, request.config)
    if benchmark is not None:
        _hand_over(result, benchmark, clock)
    if lost := result.lost():
        pytest.fail("; ".join(lost), pytrace=False)


def _hand_over(race: Race, benchmark: Any, clock: Replay) -> None:
    """A row of pytest-benchmark for each contestant.

    pytest-benchmark times one contestant after the other, and noise then hits them unlike. So it
    gets a clock that replays the rounds of the race: its public `timer` and `pedantic`, and nothing
    of its inside. A fixture serves once, hence a copy for each contestant but ours.
    """
    others = {name: copy(benchmark) for name in race.milliseconds if name != OURS}
    for row in race.rows():
        name = row["contestant"]
        bench = others.get(name, benchmark)
        bench.group, bench.name, bench.fullname = race.title, name, f"{bench.fullname}::{name}"
        bench.extra_info = row
        times = race.milliseconds[name]
        clock.seconds = iter([milliseconds / 1e3 for milliseconds in times])
        bench.pedantic(clock.next_round, rounds=len(times))


def _save(race: Race, path: Path, device: str, config: pytest.Config) -> None:
    """As soon as it is run: what comes after may be stopped."""
    saved = config.stash.setdefault(SAVED, {})
    record = saved.setdefault(path, environment(torch.device(device)) | {"races": []})
    record["races"].append({"title": race.title, "rounds": race.rounds, "rows": race.rows()})
    with atomic(path) as file:
        file.write_text(json.dumps(record, indent=1) + "\n")


def _devices(config: pytest.Config) -> list[str]:
    chosen = config.getoption("device")
    return [chosen] if chosen else DEVICES


def _word(value: object) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    return "×".join(str(part).removeprefix("torch.") for part in parts)
