"""What ``gpe explore`` asks of a network: its answers without channels, image by image."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gpe.ablation import ablation_sweep, classifier_sweep
from gpe.ablation.choice import Engines
from gpe.ablation.classification import logits_without
from gpe.ablation.plan import make_plan
from gpe.data.listing import spread
from gpe.data.pixels import IGNORE
from gpe.experiments.images import images_for
from gpe.experiments.options import Places
from gpe.experiments.removal.classify import reference
from gpe.experiments.removal.config import REGIONS, ClassificationConfig, RemovalConfig
from gpe.experiments.removal.layers import centre_views
from gpe.experiments.segmentation.run import expect_classes, open_segmenter, pixels
from gpe.experiments.segmentation.scores import answer_of, percent
from gpe.experiments.trained import Trained
from gpe.metrics.evaluating import evaluating
from gpe.metrics.region_iou import mean_iou, resolve_regions
from gpe.models.head import split_classifier
from gpe.models.inside import layout_of
from gpe.models.running import eager
from gpe.models.stages import last_feature_map
from gpe.ops.region_confusion import region_confusion

SIDE = 256  # pixels, about: the pictures of a page need no more
_MEMORY = 2**26  # bytes that variants which run at once may take

Orders = Mapping[str, Tensor]  # name of a ranking to its channels, int64 [C]
Rows = list[dict[str, Any]]


class Segmenter:
    """A segmentation network and its labelled images.

    Attributes:
        layer: yields the maps of the channels that are removed, if any does.
        removed_at: the layer where they are removed.
        channels: how many it has.
    """

    def __init__(self, config: RemovalConfig, network: Trained, places: Places):
        config, _ = open_segmenter(config)
        self.config, self.layer, self.removed_at = config, config.layer, config.layer
        self.model = network.model.to(config.device)
        self.images = pixels(config, places, config.split or "val", config.size, config.images)
        expect_classes(network, self.images)
        self.layout = layout_of(self.model, self.layer, next(self.batches()))
        self.channels = self.layout.channels

    def batches(self) -> Iterator[Tensor]:
        """All images, as the network takes them."""
        for batch in self.images.batches(self.config.batch_size or 1):
            yield batch.images

    def samples(
        self, orders: Orders, counts: Sequence[int], number: int
    ) -> tuple[Rows, dict[str, Tensor]]:
        """What the network answers without the first channels of each order, about some images.

        Returns:
            For the record: what each image is called and scores, in percent. And arrays:
            ``image0`` uint8 ``[3,h,w]``, ``labels0`` ``[h,w]``, ``answers0``
            ``[orders,counts,h,w]``, and so on; ``palette``.
        """
        plan = make_plan(orders, counts, (), self.channels)
        engines = Engines(self.model, self.layout, "auto", _MEMORY)
        arrays = {"palette": torch.tensor(self.images.palette, dtype=torch.uint8)}
        found = []
        for place, index in enumerate(spread(len(self.images), number)):
            image, labels = self.images.samples[index]
            step = -(-max(labels.shape) // SIDE)
            seen = self.images.normalise(image[None].to(self.config.device))
            said, scores = {}, {}
            with eager(self.model) as network, evaluating(network), torch.inference_mode():
                engine = engines.engine(seen, plan)
                for variant, logits in engine.run(seen, plan, range(len(plan.variants))):
                    answer = answer_of(logits, labels.shape)
                    said[variant] = answer[::step, ::step]
                    scores[variant] = self._scores(answer, labels)
            answers = torch.stack([said[variant] for variant in plan.variant_of])
            arrays[f"image{place}"] = image[:, ::step, ::step]
            arrays[f"labels{place}"] = labels[::step, ::step]
            arrays[f"answers{place}"] = answers.unflatten(0, (len(orders), len(counts)))
            rows = [
                {"ranking": point.ranking, "stop": point.stop} | scores[variant]
                for point, variant in zip(plan.points, plan.variant_of, strict=True)
            ]
            found.append({"id": self.images.ids[index], "rows": rows})
        return found, arrays

    def _scores(self, answer: Tensor, labels: Tensor) -> dict[str, float | None]:
        """Percent of the labelled pixels that are right, and the mIoU of each region."""
        rectangles = resolve_regions(REGIONS, *labels.shape)
        confusion = region_confusion(
            answer[None],
            labels[None],
            list(rectangles.values()),
            num_classes=len(self.images.classes),
        )
        right = (answer == labels)[labels != IGNORE].double().mean().item()
        shares = {"accuracy": right, **dict(zip(rectangles, mean_iou(confusion), strict=True))}
        return {name: percent(float(share)) for name, share in shares.items()}

    def alone(self, channels: Tensor) -> Rows:
        """The mIoU of each region without each of these channels, of all images."""
        swept = ablation_sweep(
            self.model,
            self.images.batches(self.config.batch_size or 1),
            {"alone": _first(channels, self.channels)},
            layer=self.layer,
            ranges=[(place, place + 1) for place in range(len(channels))],
            regions=REGIONS,
            num_classes=len(self.images.classes),
        )
        return [
            {"channel": int(channels[row["start"]]), "region": row["region"]}
            | {"miou": percent(row["miou"])}
            for row in swept.rows
        ]


class Classifier:
    """As :class:`Segmenter`, of whole images."""

    def __init__(self, config: ClassificationConfig, network: Trained, places: Places):
        self.config, self.network = config, network
        self.model = network.model.to(config.device)
        images = images_for(config.data, network, images=config.images, places=places)
        self.images = images.to(config.device)
        few = next(self.batches())[:2]
        self.split = split_classifier(self.model, few)
        self.head = self.split.head.float()
        self.layer = last_feature_map(self.model, few, inside=network.inside)
        self.removed_at, self.channels = self.split.layer, self.head.in_features

    def batches(self) -> Iterator[Tensor]:
        return centre_views(self.config, self.network, self.images, range(len(self.images)))

    def samples(
        self, orders: Orders, counts: Sequence[int], number: int
    ) -> tuple[Rows, dict[str, Tensor]]:
        """As of :class:`Segmenter`, but ``answers`` and how sure they are, ``shares``, are
        ``[orders,counts,images]``."""
        plan = make_plan(orders, counts, (), self.channels)
        chosen = torch.tensor(spread(len(self.images), number))
        with torch.no_grad():
            latents = self._latents[chosen.to(self.config.device)]
            said = dict(logits_without(latents, self.head, plan))
        likely = torch.stack([said[variant] for variant in plan.variant_of]).softmax(2).cpu()
        shares, answers = likely.unflatten(0, (len(orders), len(counts))).max(3)
        arrays = {"shares": shares, "answers": answers}
        (batch,) = self.images.batches(chosen, len(chosen))
        for place, image in enumerate(batch.images.cpu()):
            step = -(-max(image.shape[1:]) // (SIDE // 2))
            arrays[f"image{place}"] = image[:, ::step, ::step]
        names = self.network.classes or [f"class {k}" for k in range(self.head.out_features)]
        labels, classes = self.images.labels, self.images.classes  # none where there are none
        found = [
            {"id": str(index), "label": classes[labels[index]] if classes else None}
            | {"answers": {k: names[k] for k in answers[..., place].unique().tolist()}}
            for place, index in enumerate(chosen.tolist())
        ]
        return found, arrays

    def kept(self, orders: Orders, counts: Sequence[int]) -> Rows:
        """How many answers are right, and how many those of the whole network, in percent."""
        return self._rows(orders, counts=counts)

    def alone(self, channels: Tensor) -> Rows:
        """The same without each of these channels."""
        ranges = [(place, place + 1) for place in range(len(channels))]
        rows = self._rows({"alone": _first(channels, self.channels)}, ranges=ranges)
        return [{"channel": int(channels[row["start"]])} | row for row in rows]

    def _rows(self, orders: Orders, **removals: Any) -> Rows:
        labels, _ = reference(self.network, self.images, self._latents, self.head)
        right, same = (
            classifier_sweep(self._latents, answers, self.head, orders, **removals).rows
            for answers in (labels, self.head(self._latents).argmax(1))
        )
        return [
            row | {"accuracy": 100 * row["accuracy"], "kept": 100 * other["accuracy"]}
            for row, other in zip(right, same, strict=True)
        ]

    @cached_property
    def _latents(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.split.trunk(batch).float() for batch in self.batches()])


def _first(channels: Tensor, width: int) -> Tensor:
    """A ranking that begins with these channels."""
    rest = torch.ones(width, dtype=torch.bool)
    rest[channels] = False
    return torch.cat([channels, rest.nonzero()[:, 0]])
