"""The linear maps that what follows a layer begins with, as DeepLab's ASPP does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental import optimization
from torch.nn import functional as F

from gpe.ablation.tracing import Recording, UntraceableError, holds_tensors, subgraph

# What treats each channel by itself and linearly, so that it may run before channels are removed.
_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AvgPool1d)
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # in evaluation mode
_BY_CHANNEL_MODULES = (*_POOLS, *_IDLE, nn.Flatten, nn.Upsample)
_BY_CHANNEL_FUNCTIONS = (
    F.adaptive_avg_pool2d,
    F.avg_pool2d,
    F.interpolate,
    torch.flatten,
    torch.mean,
)
_BY_CHANNEL_METHODS = ("flatten", "mean", "contiguous", "squeeze")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class LinearMap:
    """One of the first linear maps: ``apply(input, weight)``, to which the bias is added."""

    name: str  # of its node
    source: int  # which of the front's outputs it reads
    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor  # [out, C, ...]
    bias: Tensor | None  # [out]

    def whole(self, inputs: Tensor) -> Tensor:
        """Its output for all channels, bias included."""
        output = self.apply(inputs, self.weight)
        return output if self.bias is None else output + spread(self.bias, output)


def spread(bias: Tensor, output: Tensor) -> Tensor:
    """A bias ``[out]`` as it is added to an output ``[N,out,...]``."""
    return bias.view(1, -1, *[1] * (output.dim() - 2))


@dataclass(frozen=True)
class LinearStart:
    """What follows a layer, where it reads the layer through linear maps alone.

    Attributes:
        front: the layer's output to the inputs of the maps, such as the output itself and its
            average over the map; channels stay channels.
        maps: of these.
        rest: the maps' outputs, then all that ``after`` takes, to logits. The layer's output is
            among these for its shape's sake only.
    """

    front: fx.GraphModule
    maps: list[LinearMap]
    rest: fx.GraphModule


def fold_batch_norms(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose batch norms are part of the convolutions before them, where that can be."""
    calls = [node.target for node in module.graph.nodes if node.op == "call_module"]
    if len(set(calls)) != len(calls):  # folding would change the module for its other callers too
        return module
    try:
        fused = optimization.fuse(module.eval(), no_trace=True)
    except RuntimeError:  # what a network keeps beside its weights cannot always be copied
        return module
    assert isinstance(fused, fx.GraphModule)
    return fused


def linear_start(after: fx.GraphModule, recording: Recording) -> LinearStart:
    """The linear maps that ``after`` begins with, of a layer that yields ``[N,C,...]``.

    Raises:
        UntraceableError: why there are none that can be split.
    """
    modules, values = dict(after.named_modules()), recording.values
    features = next(node for node in after.graph.nodes if node.op == "placeholder")
    count, channels, *_ = values[features.name].shape

    by_channel, terminals = [features], []
    for node in after.graph.nodes:
        given = node.args[0] if node.args else None
        if node.op == "output" and any(node_in in by_channel for node_in in node.all_input_nodes):
            raise UntraceableError("the network ends before any linear layer")
        if node.op in ("placeholder", "output") or not set(node.all_input_nodes) & set(by_channel):
            continue
        value = values[node.name]
        if not holds_tensors(value):
            continue  # a shape is the same whatever is removed
        if not isinstance(given, fx.Node) or given not in by_channel:
            raise UntraceableError(f"{node.name} reads the layer in a way not known here")
        ndim = values[given.name].dim()
        if _acts_by_channel(node, modules, ndim) and value.shape[:2] == (count, channels):
            by_channel.append(node)
            continue
        terminal = _linear_map(node, modules, values[given.name], channels)
        if terminal is None:
            raise UntraceableError(
                f"{node.name}, which reads the layer, is not one of the linear maps known here"
            )
        terminals.append((node, terminal))
    if not terminals:
        raise UntraceableError("nothing reads the layer")

    sources = list(dict.fromkeys(node.args[0] for node, _ in terminals))
    takes = [node for node in after.graph.nodes if node.op == "placeholder"]
    logits = next(node for node in after.graph.nodes if node.op == "output").args[0]
    return LinearStart(
        subgraph(after, after.graph, [features], sources, always_tuple=True),
        [LinearMap(node.name, sources.index(node.args[0]), *linear) for node, linear in terminals],
        subgraph(after, after.graph, [*(node for node, _ in terminals), *takes], [logits]),
    )


def _acts_by_channel(node: fx.Node, modules: dict[str, nn.Module], ndim: int) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) in _BY_CHANNEL_MODULES
    if node.target in ("mean", torch.mean):
        over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = over if isinstance(over, list | tuple) else [over]
        # Over channels, it could keep the shape of a square map.
        if not all(isinstance(dim, int) and dim % ndim > 1 for dim in dims):
            return False
    if node.op == "call_function":
        return node.target in _BY_CHANNEL_FUNCTIONS
    return node.op == "call_method" and node.target in _BY_CHANNEL_METHODS


def _linear_map(
    node: fx.Node, modules: dict[str, nn.Module], given: Tensor, channels: int
) -> tuple[Callable, Tensor, Tensor | None] | None:
    """How to apply it, its weight and its bias; None for what is no linear map known here."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    module = modules[str(node.target)]
    if isinstance(module, _CONVOLUTIONS):
        plain = next(kind for kind in _CONVOLUTIONS if isinstance(module, kind))
        if type(module).forward is plain.forward and module.groups == 1:
            return partial(module._conv_forward, bias=None), module.weight, module.bias
    if type(module) is nn.Linear and given.shape[1:] == (channels,):
        return F.linear, module.weight, module.bias
    return None
