"""One network trained in several processes, with the losses and weights of one process.

Each batch is dealt out, each process computes its part, and ``DistributedDataParallel`` averages
the gradients. What looks at a whole batch is done here for the batch of all processes: batch norm's
statistics and dropout's mask. One process meets none of this.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from gpe.data.resident import Part
from gpe.experiments.processes import count, several, summed


class Shared:
    """Trains ``model`` together with the other processes, where there are any.

    Args:
        model: on its device; the same weights in each process.
        sync_batch_norm: batch norm over the images of all processes; else each has its own
            statistics, and the first process's are those of the network.
    """

    def __init__(self, model: nn.Module, *, sync_batch_norm: bool):
        self.model, self.sync_batch_norm = model, sync_batch_norm
        self._parallel: nn.Module | None = None
        if not several():
            return
        on_gpu = next(model.parameters()).is_cuda
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.__class__ = _Dropout  # as parametrize does: the weights stay where they are
            if isinstance(module, nn.BatchNorm2d) and sync_batch_norm and not on_gpu:
                module.__class__ = _BatchNorm
        if on_gpu and sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self._parallel = DistributedDataParallel(
            _Calls(model), broadcast_buffers=not sync_batch_norm, gradient_as_bucket_view=True
        )

    def __call__(self, function: Callable[..., Any], *args: Any, part: Part | None) -> Any:
        """What ``function`` yields of this process's ``part`` of a batch.

        The gradients of the network that it uses are averaged over the processes.
        """
        if self._parallel is None:
            return function(*args)
        for module in self.model.modules():
            if isinstance(module, _Dropout):
                module.part = part
        return self._parallel(function, *args)

    def weighted(self, loss: Tensor, of: Tensor | int) -> Tensor:
        """``loss``, a mean over ``of`` images or pixels here, as its part in the mean over all."""
        if self._parallel is None:
            return loss
        own = torch.as_tensor(of, dtype=torch.float64, device=loss.device)
        return loss * (own * count() / summed(own)).to(loss.dtype)

    def evaluating(self, model: nn.Module | None = None) -> None:
        """Sets the network, or a running mean of it, to evaluation, the same everywhere."""
        model = (model or self.model).eval()
        if self._parallel is not None and not self.sync_batch_norm:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


class _Calls(nn.Module):
    """A network whose call is that of whichever function uses it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class _BatchNorm(nn.BatchNorm2d):
    """What ``torch.nn.SyncBatchNorm`` does, which torch has for GPUs alone, on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        places = summed(torch.tensor(float(input.numel() // input.shape[1])))
        wide = input.float()
        mean = all_reduce(wide.sum((0, 2, 3))) / places
        centred = wide - mean.view(-1, 1, 1)
        variance = all_reduce(centred.square().sum((0, 2, 3))) / places
        self._keep(mean, variance * places / (places - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        output = centred * scale.view(-1, 1, 1)
        if self.bias is not None:
            output = output + self.bias.view(-1, 1, 1)
        return output.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """In the running averages."""
        if self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        for kept, new in ((self.running_mean, mean), (self.running_var, variance)):
            if kept is not None:
                kept.lerp_(new, share)


class _Dropout(nn.Dropout):
    """The mask of the whole batch is drawn in each process, which keeps its part."""

    part: Part | None = None

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.part is None:
            return super().forward(input)
        last = torch.channels_last
        format = last if input.is_contiguous(memory_format=last) else torch.contiguous_format
        shape = (self.part.whole, *input.shape[1:])
        ones = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=format)
        mask = F.dropout(ones.fill_(1), self.p)
        return input * mask[self.part.start : self.part.stop]
