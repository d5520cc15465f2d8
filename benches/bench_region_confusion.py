"""region_confusion beside what one would write without it, for the four regions of Figure 4.

NumPy's two ways are those of published evaluation code: for each region a copy of prediction and
label with all else set to the unlabelled class, or one histogram of pairs for each region. Torch's
best take one histogram for all regions; a compiler fuses upsampling and argmax.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import gpe
from benches.harness import OURS, Race, race

COUNT, CLASSES, HEIGHT, WIDTH = 4, 19, 1024, 2048
STRIDES = (16, 8)  # of a network: of the labels' size over the logits'
COLUMNS = (0, WIDTH), (0, WIDTH // 2), (WIDTH // 4, 3 * WIDTH // 4), (WIDTH // 2, WIDTH)
REGIONS = [(0, left, HEIGHT, right) for left, right in COLUMNS]
ROUNDS = 7  # NumPy's way takes seconds


def races(device: str) -> Iterator[partial[Race]]:
    """Smooth logits, as networks give them, and noise; labels are much like the predictions."""
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        for stride in STRIDES if device == "cuda" else STRIDES[:1]:
            for kind in ("smooth", "noise"):
                yield partial(_race, device, dtype, stride, kind)


def _race(device: str, dtype: torch.dtype, stride: int, kind: str) -> Race:
    logits, labels = _sample(device, dtype, stride, kind)
    torch.compiler.reset()
    rivals: dict[str, Callable] = {
        OURS: _ours,
        "masked copies, NumPy": _masked_copies,
        "histogram a region, NumPy": _histograms,
        "histogram a region, torch": _histograms_in_torch,
        "one histogram, torch": _one_histogram,
        "one histogram, compiled": torch.compile(_one_scatter, dynamic=False),
        "one histogram after compiled": partial(_one_histogram, predict=_compiled()),
        "image by image after compiled": partial(_image_by_image, predict=_compiled()),
    }
    expected = _one_histogram(logits.double(), labels)
    for label, rival in rivals.items():
        wrong = (torch.as_tensor(rival(logits, labels)).to(device) - expected).abs().sum()
        # Classes whose logits are level but for rounding: each moves two counts in some regions.
        assert wrong <= 2e-5 * labels.numel(), f"{label}: {wrong} counts are wrong"
    sizes = f"{COUNT}×{CLASSES}×{HEIGHT // stride}×{WIDTH // stride} to {HEIGHT}×{WIDTH}"
    return race(
        f"region_confusion, {device}, {kind} logits {sizes}, {dtype}, 4 regions",
        {label: _called(rival, logits, labels) for label, rival in rivals.items()},
        device=device,
        calls=1,
        bytes_moved=logits.nbytes + labels.nbytes,
        rounds=ROUNDS,
    )


def _called(count: Callable, logits: Tensor, labels: Tensor) -> Callable:
    return lambda: torch.no_grad()(count)(logits, labels)


def _ours(logits: Tensor, labels: Tensor) -> Tensor:
    return gpe.region_confusion(logits, labels, REGIONS, num_classes=CLASSES)


def _predictions(logits: Tensor) -> Tensor:
    return F.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear", align_corners=False).argmax(1)


def _masked_copies(logits: Tensor, labels: Tensor) -> np.ndarray:
    predictions, labels = _predictions(logits).cpu().numpy(), labels.cpu().numpy()
    found = []
    for left, right in COLUMNS:
        outside = np.ones(labels.shape, dtype=bool)
        outside[..., left:right] = False
        prediction, label = predictions.copy(), labels.copy()
        prediction[outside] = label[outside] = 255
        mask = (label >= 0) & (label < CLASSES)
        pairs = CLASSES * label[mask].astype(int) + prediction[mask]
        found.append(np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES))
    return np.stack(found)


def _histograms(logits: Tensor, labels: Tensor) -> np.ndarray:
    predictions, labels = _predictions(logits).cpu().numpy(), labels.cpu().numpy()
    found = []
    for left, right in COLUMNS:
        prediction, label = predictions[..., left:right], labels[..., left:right]
        mask = label < CLASSES
        pairs = CLASSES * label[mask].astype(np.int64) + prediction[mask]
        found.append(np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES))
    return np.stack(found)


def _histograms_in_torch(logits: Tensor, labels: Tensor) -> Tensor:
    predictions = _predictions(logits)
    found = []
    for left, right in COLUMNS:
        prediction, label = predictions[..., left:right], labels[..., left:right].long()
        mask = label < CLASSES
        pairs = CLASSES * label[mask] + prediction[mask]
        found.append(torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES))
    return torch.stack(found)


def _one_histogram(
    logits: Tensor, labels: Tensor, predict: Callable[[Tensor], Tensor] = _predictions
) -> Tensor:
    bins = _bins(predict(logits), labels)
    return _of_quarters(torch.bincount(bins, minlength=4 * CLASSES**2 + 1))


def _one_scatter(logits: Tensor, labels: Tensor) -> Tensor:
    """A bincount, whose shape a compiler knows."""
    bins = _bins(_predictions(logits), labels)
    zeros = bins.new_zeros(4 * CLASSES**2 + 1)
    return _of_quarters(zeros.scatter_add(0, bins, torch.ones_like(bins)))


def _image_by_image(logits: Tensor, labels: Tensor, predict: Callable) -> Tensor:
    """Full-resolution logits of one image at a time, where they are stored at all."""
    one_by_one = zip(logits.split(1), labels.split(1), strict=True)
    return sum(_one_histogram(image, label, predict) for image, label in one_by_one)


def _compiled() -> Callable[[Tensor], Tensor]:
    return torch.compile(_predictions, dynamic=False)


def _bins(predictions: Tensor, labels: Tensor) -> Tensor:
    """Quarter of the image, label and prediction in one number; the last is of what is ignored."""
    labels = labels.long()
    quarter = torch.arange(WIDTH, device=labels.device) // (WIDTH // 4)
    bins = (quarter * CLASSES + labels) * CLASSES + predictions
    return torch.where(labels < CLASSES, bins, 4 * CLASSES**2).flatten()


def _of_quarters(counts: Tensor) -> Tensor:
    """The four regions are sums of quarters."""
    first, second, third, fourth = counts[:-1].view(4, CLASSES, CLASSES)
    left, right = first + second, third + fourth
    return torch.stack([left + right, left, second + third, right])


def _sample(device: str, dtype: torch.dtype, stride: int, kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = HEIGHT // stride, WIDTH // stride
    coarse = 8 if kind == "smooth" else 1  # pixels of the logits to a random number
    shape = COUNT, CLASSES, size[0] // coarse, size[1] // coarse
    logits = F.interpolate(torch.randn(shape, generator=generator), size, mode="bilinear")
    noise = torch.randn(logits.shape, generator=generator) / 4
    labels = F.interpolate(logits + noise, (HEIGHT, WIDTH), mode="bilinear").argmax(1)
    labels[:, -HEIGHT // 8 :] = 255  # the car that carries the camera
    return logits.to(device, dtype), labels.to(device, torch.uint8)
