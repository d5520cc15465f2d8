"""Rankings as experiments take them from files, make them part by part, and leave them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gpe.ablation import random_orders
from gpe.errors import InputError
from gpe.experiments.processes import from_first, is_first
from gpe.experiments.removal.config import MATCHED, ClassificationConfig, RemovalConfig
from gpe.experiments.runs import PARTIAL
from gpe.ranking import ChannelRanking
from gpe.ranking.derived import derive, needed
from gpe.ranking.result import Sums
from gpe.ranking.tally import Keep
from gpe.records import ARRAYS, atomic

SHOWN = 20  # channels of a ranking that a record names
_PARTS = 50  # at most, that a set is ranked in
_LARGE = 10_000  # images: of more, no difference is kept, and parts are fewer, their files larger
_LARGE_PARTS = 10
_LEAST = 32  # images in a part


class Ranked(Protocol):
    """What a configuration says of the rankings that it asks for."""

    @property
    def modes(self) -> tuple[str, ...]: ...
    @property
    def random_seeds(self) -> int: ...
    @property
    def seed(self) -> int: ...


def draws_of(config: Ranked, channels: int) -> dict[str, Tensor]:
    """The random orders of a layer's channels to compare with."""
    return random_orders(channels, _seeds(config))


def wanted_of(
    config: Ranked, found: Mapping[str, ChannelRanking]
) -> tuple[dict[str, ChannelRanking], dict[str, Tensor]]:
    """The rankings that a configuration asks for, and its matched orders, from those it needs."""
    one = config.random_seeds == 0  # with nothing to compare, it is a ranking among the others
    modes = [mode for mode in config.modes if one or mode != MATCHED]
    matched = [] if modes == [*config.modes] else [f"{MATCHED}:{seed}" for seed in _seeds(config)]
    orders = {
        name.replace(":", "/"): ranking.order for name, ranking in derive(matched, found).items()
    }
    return derive(modes, found), orders


def shared_of(
    matched: Mapping[str, Tensor], order: Tensor, counts: Sequence[int]
) -> dict[str, float]:
    """By count, how many of the first channels of ``order`` matched orders share, on average."""
    if not matched:
        return {}
    return {
        str(count): sum(
            len({*order[:count].tolist()} & {*other[:count].tolist()}) for other in matched.values()
        )
        / len(matched)
        for count in counts
    }


def _seeds(config: Ranked) -> range:
    return range(config.seed, config.seed + config.random_seeds)


def read_rankings(config: RemovalConfig | ClassificationConfig) -> dict[str, ChannelRanking]:
    """The rankings of files, ``FILE`` or ``NAME=FILE``, by name: its mode, or the one given.

    Raises:
        InputError: a file that is not there, or no ranking; a name that another ranking, a mode, a
            random order or a file of the run has.
    """
    found: dict[str, ChannelRanking] = {}
    matched = [f"{MATCHED}/{seed}" for seed in _seeds(config)]
    names = (*config.modes, *needed(config.modes), *draws_of(config, 1), *matched)
    taken = {_file_name(name): name for name in names}
    for text in config.rankings:
        name, path = ("", text) if Path(text).exists() else text.rpartition("=")[::2]
        read = ChannelRanking.from_json if path.endswith(".json") else ChannelRanking.load
        ranking = read(path)
        name = name or ranking.mode
        file = _file_name(name)
        if file in taken:
            raise InputError(
                f"rankings: expected names that differ, got {taken[file]!r} and {name!r}; give one "
                "as NAME=FILE"
            )
        if file == Path(ARRAYS).stem or file.startswith(PARTIAL):
            raise InputError(f"rankings: expected a name that no file of the run has, got {name!r}")
        found[name], taken[file] = ranking, name
    return found


def expect_channels(
    rankings: Mapping[str, ChannelRanking], counts: Sequence[int] | None, channels: int
) -> None:
    """Raise an InputError for more channels than the layer has, before it is ranked, or for a
    ranking of another number."""
    if counts and max(counts) > channels:
        raise InputError(f"counts: expected each from 0 to {channels}, got {max(counts)}")
    for name, ranking in rankings.items():
        if ranking.scores.numel() != channels:
            raise InputError(
                f"rankings: expected {name!r} to rank the {channels} channels of the layer, got "
                f"{ranking.scores.numel()}"
            )


def expect_about(
    rankings: Mapping[str, ChannelRanking], layers: Sequence[str], weights: Sequence[str]
) -> None:
    """Raise an InputError for a ranking that says it is of another layer or of other weights."""
    for name, ranking in rankings.items():
        for what, own, expected in (
            ("layer", ranking.layer, layers),
            ("weights", ranking.weights, weights),
        ):
            if own is not None and own not in expected:
                wanted = " or ".join(expected)
                raise InputError(
                    f"rankings: expected {name!r} to be of the {what} {wanted}, got one of {own}"
                )


def digest_of(rankings: Mapping[str, ChannelRanking]) -> str:
    """Tells the content of rankings apart; empty without any."""
    hashed = hashlib.sha256()
    for name, ranking in rankings.items():
        hashed.update(f"{name};{ranking.images};".encode())
        hashed.update(ranking.scores.numpy().tobytes())  # the order follows from these
    return hashed.hexdigest()[:16] if rankings else ""


def save_rankings(rankings: Mapping[str, ChannelRanking], directory: Path) -> None:
    """A file for each, for :func:`read_rankings`."""
    for name, ranking in rankings.items():
        ranking.save(directory / f"{_file_name(name)}.safetensors")


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


def kept_of(count: int) -> Keep:
    """What rankings of so many images keep, so that memory does not grow with large sets."""
    return "images" if count <= _LARGE else "draws"


def in_parts(
    directory: Path,
    count: int,
    batch_size: int,
    part: Callable[[Sequence[int]], tuple[dict[str, ChannelRanking], Tensor | None]],
) -> Iterator[tuple[dict[str, ChannelRanking], Tensor | None]]:
    """Ranks a set part by part, each kept in a file, so that an interrupted run continues.

    Args:
        directory: of the run.
        count: images in the set.
        batch_size: parts hold whole batches.
        part: ranks the images with these indices, in all processes together; also yields what
            latents it came by on the way.
    """
    size = max(_LEAST, -(-count // (_PARTS if count <= _LARGE else _LARGE_PARTS)))
    size = -(-size // batch_size) * batch_size
    for number, start in enumerate(range(0, count, size)):
        path = directory / f"{PARTIAL}-ranking-{number}"
        kept = from_first(partial(_load_part, path))
        if kept is None:
            kept = part(range(start, min(start + size, count)))
            if is_first():
                _save_part(path, *kept)
        yield kept


def merged(parts: Iterable[Mapping[str, ChannelRanking]]) -> dict[str, ChannelRanking]:
    """The rankings by the images of all parts."""
    found: dict[str, ChannelRanking] = {}
    for part in parts:
        for name, ranking in part.items():
            found[name] = found[name].merge(ranking) if name in found else ranking
    return found


def _load_part(path: Path) -> tuple[dict[str, ChannelRanking], Tensor | None] | None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        rankings = {name: ChannelRanking(**about) for name, about in state["rankings"].items()}
        for name, ranking in rankings.items():
            if ranking.sums is not None:
                rankings[name] = replace(ranking, sums=Sums(*ranking.sums))
        return rankings, state["latents"]
    except Exception:  # torch.load raises almost anything where there is no such file, or half
        return None


def _save_part(path: Path, rankings: Mapping[str, ChannelRanking], latents: Tensor | None) -> None:
    about = {
        name: {one.name: getattr(ranking, one.name) for one in fields(ranking)}
        | {"sums": ranking.sums and tuple(ranking.sums)}  # of no class that would be refused
        for name, ranking in rankings.items()
    }
    with atomic(path) as temporary:
        torch.save({"rankings": about, "latents": latents}, temporary)


def _file_name(name: str) -> str:
    return name.replace("/", "-")


def _columns(ranking: ChannelRanking) -> dict[str, Tensor]:
    interval = ranking.interval
    bounds = {} if interval is None else {"low": interval[0], "high": interval[1]}
    return {"scores": ranking.scores, **bounds}
