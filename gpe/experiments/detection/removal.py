"""What a detector loses without some channels of its latent (Table S1), or of another layer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, distributed

from gpe.data.boxed_views import BoxedSet, whole_batches
from gpe.experiments.detection.config import TARGETED, AblationConfig, paper_row
from gpe.experiments.detection.layers import Place
from gpe.experiments.detection.scores import (
    Boxes,
    People,
    curves_of,
    estimates,
    flat,
    pictures,
    rates_of,
    summary,
    unflat,
)
from gpe.experiments.processes import is_first, several, share
from gpe.experiments.removal.config import RANDOM
from gpe.experiments.removal.rankings import (
    arrays_of,
    draws_of,
    save_rankings,
    shared_of,
    shown,
    wanted_of,
)
from gpe.experiments.runs import Partial, record
from gpe.experiments.trained import autocast
from gpe.models.detection import Detector
from gpe.ops.flip_difference import flip_difference
from gpe.ranking import ChannelRanking
from gpe.ranking.derived import needed
from gpe.ranking.modes import over_maps
from gpe.records import Record, save_arrays

Kept = dict[int, list[Tensor]]  # what is kept of a batch, by the place of its first image


class Removal:
    """A detector and the images that it is looked at with; a process takes its share of them."""

    def __init__(
        self,
        config: AblationConfig,
        model: Detector,
        images: BoxedSet,
        directory: Path,
        workers: int,
    ):
        self.config, self.model, self.images = config, model, images
        self.directory, self.workers = directory, workers
        self.people = People(images)
        self.own = list(share(range(len(images))))
        self.kept: Kept = {}
        self.place = Place(model, config.level, config.layer, images.size)

    @torch.no_grad()
    def done(self) -> Record:
        """The record of the job; rankings and arrays are left beside it."""
        config, images = self.config, self.images
        rankings, matched = wanted_of(config, self._rankings())
        ranking = rankings[TARGETED]
        channels = ranking.scores.numel()
        count, counts = config.removed(str(config.detector), channels)
        draws = draws_of(config, channels)
        orders = {name: one.order for name, one in rankings.items()} | matched | draws
        found = self._found(orders, counts)

        metrics = {point: self.people.metric(boxes) for point, boxes in found.items()}
        rows = [
            {"order": name, "count": removed, **rates_of(metric)}
            for (name, removed), metric in metrics.items()
        ]
        whole, targeted = metrics["", 0], metrics[TARGETED, count]
        random = [metrics[name, count] for name in draws]
        result = {
            "detector": config.detector,
            "channels": channels,
            "count": count,
            "counts": counts,
            **summary(whole, self.people),
            "rows": rows,
            "targeted": estimates(targeted.intervals()),
            # In points, over the same images.
            "targeted_less_whole": estimates(whole.paired_intervals(targeted)),
            "random_less_whole": estimates(whole.paired_intervals(random)),
            "targeted_less_random": estimates(targeted.paired_intervals(random), -1),
            "controls": {
                name: estimates(metrics[name, count].intervals())
                for name in rankings
                if name != TARGETED
            },
            "ranking": shown(ranking),
        }
        if matched:
            alike = [metrics[name, count] for name in matched]
            result["targeted_less_matched"] = estimates(targeted.paired_intervals(alike), -1)
            result["shared"] = shared_of(matched, ranking.order, counts)
        first = next(iter(draws))
        drawn = {"": ("", 0), TARGETED: (TARGETED, count), RANDOM: (first, count)}
        arrays = arrays_of(rankings)
        for name, point in drawn.items():
            arrays |= curves_of(metrics[point], name)
        arrays |= pictures(images, self.people, {n: found[point] for n, point in drawn.items()})
        if is_first():
            save_rankings(rankings, self.directory)
            save_arrays(self.directory, arrays)
        made = record(config.job, config, result, chance=100)
        if self.place.name != self.model.LATENT:
            return made
        return replace(made, paper=paper_row(str(config.detector), str(config.data), channels))

    def _rankings(self) -> dict[str, ChannelRanking]:
        """By what all modes are made of; what the removal begins with is kept on the way."""
        partial, modes = Partial(self.directory, "ranking"), needed(self.config.modes)
        done, parts = 0, {mode: list[Tensor]() for mode in modes}
        if (saved := partial.load()) is not None:
            done, parts = saved[0], {mode: [saved[1][mode]] for mode in modes}
        room = int(self.config.cache * 2**30)
        places = self._places(done)
        for place, images in zip(places, self._batches(places), strict=True):
            with autocast(self.config.device, self.config.precision):
                kept = self.place.read(images)
                seen = self.place.ranked(kept)
                mirrored = self.place.ranked(self.place.read(images.flip(-1)))
            size = sum(part.nbytes for part in kept)
            if size <= room:
                self.kept[place], room = kept, room - size
            nothing = [maps.new_zeros(()).expand_as(maps) for maps in seen]
            for mode in modes:
                pairs = zip(seen, mirrored if mode == TARGETED else nothing, strict=True)
                apart = [flip_difference(*pair).difference for pair in pairs]
                parts[mode].append(over_maps(mode, apart).cpu())
            partial.save(place + len(images), {m: torch.cat(some) for m, some in parts.items()})
        return self._ranked({mode: torch.cat(some) for mode, some in parts.items()})

    def _ranked(self, values: dict[str, Tensor]) -> dict[str, ChannelRanking]:
        """Of the images of all processes."""
        shares = [(self.own, values)]
        if several():
            shares *= distributed.get_world_size()
            distributed.all_gather_object(shares, (self.own, values))
        ids = [self.images.ids[index] for indices, _ in shares for index in indices]
        about = {"layer": self.place.name, "weights": self.config.weights_digest}
        return {
            mode: ChannelRanking.of_differences(
                mode, torch.cat([part[mode] for _, part in shares]), ids, **about
            )
            for mode in values
        }

    def _found(
        self, orders: dict[str, Tensor], counts: Sequence[int]
    ) -> dict[tuple[str, int], Boxes]:
        """Boxes by order and count."""
        points = [("", 0), *((name, count) for name in orders for count in counts)]
        rows = dict.fromkeys(points, torch.zeros(0, 6))
        partial, done = Partial(self.directory, "boxes"), 0
        if (saved := partial.load()) is not None:
            done = saved[0]
            rows = {point: saved[1][_name(point)] for point in points}
        for place, kept in self._begun(done):
            with autocast(self.config.device, self.config.precision):
                found = self.place.without(
                    kept, self.images.size, orders, counts, self.config.least_score
                )
                for name, count, boxes in found:
                    rows[name, count] = torch.cat([rows[name, count], flat(boxes, place)])
            done = place + len(kept[0])
            partial.save(done, {_name(point): some for point, some in rows.items()})
        return {point: unflat(some, self.own) for point, some in rows.items()}

    def _begun(self, done: int) -> Iterator[tuple[int, list[Tensor]]]:
        """What is kept of each batch from image ``done`` on, and the place of its first image."""
        missing = [place for place in self._places(done) if place not in self.kept]
        again = self._batches(missing)
        for place in self._places(done):
            if place in self.kept:
                yield place, self.kept.pop(place)
            else:
                with autocast(self.config.device, self.config.precision):
                    yield place, self.place.read(next(again))

    def _places(self, done: int) -> range:
        return range(done, len(self.own), self._batch)

    @property
    def _batch(self) -> int:
        return self.config.batch_size or 1

    def _batches(self, places: Iterable[int]) -> Iterator[Tensor]:
        """Normalised images of the batches that begin at these places."""
        order = [index for place in places for index in self.own[place : place + self._batch]]
        return whole_batches(
            self.images,
            self._batch,
            order=order,
            workers=self.workers,
            device=self.config.device,
        )


def _name(point: tuple[str, int]) -> str:
    return f"{point[0]}/{point[1]}"
