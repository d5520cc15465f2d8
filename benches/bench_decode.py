"""A readout trained on cached latents, beside one with network, convolution and pooling in place.

The rival runs the frozen network on every batch of every epoch, convolves its feature maps to one a
cell and pools these, as Equation S1 is written. Both have the same start, batches and cells, and
end with the same logits to 1e-4, which is checked after a shorter training. The rival would take
minutes: a few of its steps are timed, as many as its name says, and scaled to all.

The cached latents have to come from somewhere: that is a contestant of its own, since it is done
once, whatever the number of readouts, epochs and layers. Both together are the last row.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benches.harness import OURS, Race, copy_bandwidth, milliseconds
from gpe.data import ImageSet
from gpe.models.inside import layout_of, maps_at
from gpe.ops.place_on_grid import place_on_grid
from gpe.readout import Readout, build_readout, grid_latents, train_readout

GRID, IMAGES, EPOCHS, BATCH, ROUNDS, TIMED = 3, 2000, 5, 50, 5, 2
LAYER = "layer4"
MEAN = STD = (0.5, 0.5, 0.5)


def races(device: str) -> Iterator[partial[Race]]:
    """ResNet-18 with random weights, 3×3 cells of 32 pixels, 5 epochs of 2,000 images."""
    yield partial(_race, device)


def _race(device: str) -> Race:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18().to(device, memory_format=torch.channels_last).eval()
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.zeros(IMAGES, dtype=torch.int64, device=device)
    images = ImageSet(pixels, labels, ("any",), MEAN, STD)
    cells = torch.randint(GRID**2, (IMAGES,))
    at = torch.arange(IMAGES)

    def cache(chosen: Tensor = at) -> Tensor:
        found = grid_latents(net, images, cells[chosen], GRID, layers=[LAYER], order=chosen)
        return found[LAYER]

    latents = cache()
    layout = layout_of(net, LAYER, torch.zeros(1, 3, 96, 96, device=device))

    def maps(chosen: Tensor) -> Tensor:
        """What the network makes of canvases, before any pooling."""
        with torch.no_grad():
            patches = pixels[chosen.to(device)]
            canvases = place_on_grid(
                patches,
                cells[chosen].to(device),
                GRID,
                mean=MEAN,
                std=STD,
                memory_format=torch.channels_last,
            )
            return maps_at(net, LAYER, canvases, layout)[0]

    def train(features: Tensor | Callable, images: int = IMAGES, epochs: int = EPOCHS) -> Readout:
        """On the first ``images`` of one seeded order."""
        place = "cpu" if isinstance(features, Tensor) else device
        readout = build_readout("gapnet", latents, GRID**2).to(place)
        chosen = cells[:images].to(place)
        return train_readout(readout, features, chosen, epochs=epochs, batch_size=BATCH)

    def in_place() -> Readout:
        return train(maps, TIMED * BATCH, epochs=1)

    _check(train(latents, 200, epochs=2), train(maps, 200, epochs=2), latents)
    steps = EPOCHS * IMAGES // BATCH
    contestants = {
        OURS: (lambda: train(latents), 1),
        f"in place, {TIMED} of {steps} steps": (in_place, steps / TIMED),
        "latents, once for all readouts": (lambda: cache(at[:200]), IMAGES / 200),
    }
    times = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (step, scale) in contestants.items():
            times[name].append(milliseconds(step, device) * scale)
    once = next(name for name in times if name.startswith("latents"))
    both = [a + b for a, b in zip(times[OURS], times[once], strict=True)]
    times[f"{OURS} and latents"] = both
    return Race(
        f"A readout of {GRID}×{GRID} cells, {device}, ResNet-18, {IMAGES} images, {EPOCHS} epochs",
        EPOCHS * latents.nbytes,
        times,
        copy_bandwidth(device),
        {},
    )


def _check(cached: Readout, in_place: nn.Module, latents: Tensor) -> None:
    """The issue asks for 1e-4 in the logits."""
    with torch.no_grad():
        apart = (cached(latents) - in_place.cpu()(latents)).abs().max().item()
    assert apart < 1e-4, f"logits differ by {apart}"
