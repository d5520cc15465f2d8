"""Rankings as experiments take them from files, and leave them in records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gpe.ranking import ChannelRanking

SHOWN = 20  # channels of a ranking that a record names


def read_rankings(files: Sequence[str]) -> dict[str, ChannelRanking]:
    """The rankings of files, ``FILE`` or ``NAME=FILE``, by name: of itself, or the one given.

    Raises:
        InputError: a file that is not there, or no ranking.
    """
    found = {}
    for text in files:
        name, _, path = text.rpartition("=")
        read = ChannelRanking.from_json if path.endswith(".json") else ChannelRanking.load
        ranking = read(path)
        found[name or ranking.mode] = ranking
    return found


def save_rankings(rankings: Mapping[str, ChannelRanking], directory: Path) -> None:
    """A file for each, for :func:`read_rankings`."""
    for name, ranking in rankings.items():
        ranking.save(directory / f"{name.replace('/', '-')}.safetensors")


def arrays_of(rankings: Mapping[str, ChannelRanking]) -> dict[str, Tensor]:
    """Arrays of a record: of each ranking the order, the scores, and their intervals if any."""
    return {
        f"{column}.{name}": values
        for name, ranking in rankings.items()
        for column, values in {"order": ranking.order, **_columns(ranking)}.items()
    }


def shown(ranking: ChannelRanking) -> dict[str, Any]:
    """The first channels of a ranking."""
    top = ranking.order[:SHOWN]
    values = {name: column[top].tolist() for name, column in _columns(ranking).items()}
    return {"images": ranking.images, "top": top.tolist(), **values}


def _columns(ranking: ChannelRanking) -> dict[str, Tensor]:
    interval = ranking.interval
    bounds = {} if interval is None else {"low": interval[0], "high": interval[1]}
    return {"scores": ranking.scores, **bounds}
