"""What a ranking keeps of its images: each of them, or sums whose size does not grow."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, distributed

from gpe.errors import InputError
from gpe.ops.flip_difference import flip_difference
from gpe.ranking.modes import DEVIATION, is_signed, moments
from gpe.ranking.result import ChannelRanking, ImageId, Sums
from gpe.statistics import DRAWS

Keep = Literal["images", "draws", "sums"]


class Tally:
    """The images of one mode, as they come."""

    def __init__(self, mode: str, keep: Keep):
        self.mode, self.keep = mode, keep
        self.ids: list[ImageId] = []
        self.parts: list[Tensor] = []  # each [n,C]
        self.running: tuple[Tensor, Tensor] | None = None  # of the moments and of their sizes
        self.draws: Tensor | None = None  # of each draw, of the moments
        self.times = torch.zeros(DRAWS, dtype=torch.float64)

    def totals(self, features: Tensor) -> tuple[Tensor, Tensor] | None:
        """The running sums, for a kernel to add to; None where images are kept."""
        if self.keep == "images":
            return None
        if self.running is None:
            zeros = features.new_zeros(features.shape[1], dtype=torch.float64)
            self.running = zeros, zeros.clone()
        return self.running

    def add(self, values: Tensor, ids: Sequence[ImageId], *, summed: bool) -> None:
        """Images ``[n,C]``; ``summed`` where the running sums have them already."""
        if len(ids) == 0:
            return
        self.ids += ids
        if self.keep == "images":
            self.parts.append(values.cpu())
            return
        values = moments(self.mode, values)
        if not summed:
            flip_difference(values, torch.zeros_like(values), totals=self.totals(values))
        if self.keep == "draws":
            times = torch.stack([times_of(image) for image in ids], 1)  # [D,n]
            self.times += times.sum(1)
            added = times.to(values.device) @ values.double()
            self.draws = added if self.draws is None else self.draws.add_(added)

    def gather(
        self, shares: Sequence[tuple[list[ImageId], torch.dtype | None]], width: int
    ) -> None:
        """Makes this the tally of all processes, whose ids and dtypes are given."""
        self.ids = [image for ids, _ in shares for image in ids]
        if self.keep == "images":
            dtype = next((dtype for _, dtype in shares if dtype is not None), torch.float32)
            own = torch.cat(self.parts) if self.parts else torch.empty(0, width, dtype=dtype)
            self.parts = _gathered_rows(own, [len(ids) for ids, _ in shares])
            return
        width = moments(self.mode, torch.empty(0, width)).shape[1]
        self.totals(torch.empty(0, width))
        assert self.running is not None
        self.running = _summed(self.running[0]), _summed(self.running[1])
        if self.keep == "draws":
            none = torch.zeros(DRAWS, width, dtype=torch.float64)
            self.draws = _summed(none if self.draws is None else self.draws)
            self.times = _summed(self.times)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the images that are kept."""
        return self.parts[0].dtype if self.parts else None

    def ranking(self, *, layer: str, weights: str) -> ChannelRanking:
        """By all images so far."""
        about = {"layer": layer, "weights": weights}
        if not self.ids:
            raise InputError(f"images: expected one or more for {self.mode!r}, got none")
        if self.keep == "images":
            return ChannelRanking.of_differences(
                self.mode, torch.cat(self.parts), self.ids, **about
            )
        assert self.running is not None
        # What is summed of sizes is of sizes, whether the kernel or the moments take them.
        total = self.running[0 if is_signed(self.mode) or self.mode == DEVIATION else 1].cpu()
        draws = None if self.draws is None else self.draws.cpu()
        times = None if self.draws is None else self.times
        return ChannelRanking.of_sums(self.mode, Sums(total, draws, times), self.ids, **about)


def times_of(image: ImageId) -> Tensor:  # [D]
    """How often an image counts in each draw of a Poisson bootstrap, the same wherever it is seen.

    Source:
        Chamandy et al., "Estimating uncertainty for massive data streams", Google, 2012.
    """
    seed = int.from_bytes(hashlib.sha256(repr(image).encode()).digest()[:8], "big", signed=True)
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.ones(DRAWS, dtype=torch.float64), generator=generator)


def gathered(tallies: Mapping[str, Tally], width: int | None, weights: str) -> int:
    """Makes all tallies those of all processes; returns the number of channels.

    Tensors are exchanged as such; only ids are pickled.

    Raises:
        InputError: other weights in another process; no images in any.
    """
    shares = {mode: (tally.ids, tally.dtype) for mode, tally in tallies.items()}
    parts = [(weights, width, shares)]
    several = distributed.is_available() and distributed.is_initialized()
    if several:
        parts *= distributed.get_world_size()
        distributed.all_gather_object(parts, parts[0])
    if len({part[0] for part in parts}) > 1:
        raise InputError("model: expected the same weights in all processes, got others")
    widths = {part[1] for part in parts} - {None}
    if not widths:
        raise InputError("batches: expected one or more images, got none")
    if len(widths) > 1:
        raise InputError(f"layer: expected as many channels in all processes, got {widths}")
    channels = int(widths.pop() or 0)
    for mode, tally in tallies.items() if several else ():
        tally.gather([part[2][mode] for part in parts], channels)
    return channels


def _exchanged(tensor: Tensor) -> Tensor:
    """Where the processes exchange tensors: on the GPU where they have nothing else."""
    only_gpu = distributed.get_backend() == "nccl"
    return tensor.cuda() if only_gpu else tensor.cpu()


def _summed(tensor: Tensor) -> Tensor:
    tensor = _exchanged(tensor).contiguous()
    distributed.all_reduce(tensor)
    return tensor.cpu()


def _gathered_rows(own: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The rows of each process; a tensor of the same shape goes from each to each."""
    padded = _exchanged(own.new_zeros(max(counts), *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return [part[:count].cpu() for part, count in zip(parts, counts, strict=True)]
