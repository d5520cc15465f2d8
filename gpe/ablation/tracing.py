"""A network cut in two at a layer: what leads to it, and the rest, which may run many times."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from gpe.models.inside import find_layer
from gpe.models.running import foreign, pick_logits


class UntraceableError(Exception):
    """Why a network cannot be cut."""


@dataclass(frozen=True)
class Cut:
    """A network in two parts.

    Attributes:
        before: images to a tuple: the layer's output, and all else that the rest reads.
        after: these to logits, those before a last bilinear upsampling to the images' size. The
            values that are no tensors, such as sizes, are computed here, from the batch that it is
            given.
    """

    before: fx.GraphModule
    after: fx.GraphModule


def cut(model: nn.Module, layer: str, images: Tensor) -> Cut:
    """Traces a network and cuts it at a layer.

    Raises:
        UntraceableError: the network branches on its data, or calls the layer not just once.
    """
    try:
        graph, features = _trace(model, layer, descend=True)
    except UntraceableError:
        raise
    except Exception:  # tracing runs the network's own code on stand-ins, which may do anything
        try:
            graph, features = _trace(model, layer, descend=False)
        except UntraceableError:
            raise
        except Exception as error:
            came = next(iter(str(error).splitlines()), "")[:120]
            raise UntraceableError(
                f"it cannot be traced: {type(error).__name__}: {came}"
            ) from error

    picture = next(node for node in graph.nodes if node.op == "placeholder")
    logits = pick_logits(next(node for node in graph.nodes if node.op == "output").args[0])
    if not isinstance(logits, fx.Node):
        raise UntraceableError(f"it returns a {type(logits).__name__}")
    values = record(subgraph(model, graph, [picture], [logits]), images[:1]).values
    if not isinstance(values.get(features.name), Tensor):
        raise UntraceableError("the layer yields more than one tensor, or none that is read")
    logits = _before_upsampling(model, logits, values, images)
    seen = _reads(graph, logits, features, values, picture)
    return Cut(
        subgraph(model, graph, [picture], [features, *seen], always_tuple=True),
        subgraph(model, graph, [features, *seen], [logits]),
    )


def subgraph(
    root: nn.Module,
    graph: fx.Graph,
    inputs: list[fx.Node],
    outputs: list[fx.Node],
    *,
    always_tuple: bool = False,
) -> fx.GraphModule:
    """The part of a graph that leads from ``inputs`` to ``outputs``; names stay."""
    needed, stack = set(), list(outputs)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [] if node in inputs else node.all_input_nodes
    part = fx.Graph()
    copies = {node: part.placeholder(node.name) for node in inputs}
    for node in graph.nodes:
        if node in needed and node not in copies:
            if node.op == "placeholder":
                raise UntraceableError(f"it takes more than images: {node.name}")
            copies[node] = part.node_copy(node, copies.__getitem__)
    results = tuple(copies[node] for node in outputs)
    part.output(results if always_tuple or len(results) > 1 else results[0])
    return fx.GraphModule(root, part)


@dataclass(frozen=True)
class Recording:
    """What a graph computed.

    Attributes:
        values: of each node by name, its tensors as ones of the same shape on the meta device.
        shapes_only: the numbers of the inputs of which nothing but the shape is read.
        peak_bytes: of the tensors that were alive at once.
    """

    values: dict[str, Any]
    shapes_only: set[int]
    peak_bytes: int


def record(module: fx.GraphModule, *inputs: Tensor) -> Recording:
    """Runs a graph once and notes what it computes."""
    recorder = _Recorder(module)
    run(recorder.run, *inputs)
    takes = [node for node in module.graph.nodes if node.op == "placeholder"]
    shapes_only = {
        number
        for number, node in enumerate(takes)
        if all(user.op != "output" for user in node.users)
        and not any(holds_tensors(recorder.values[user.name]) for user in node.users)
    }
    return Recording(recorder.values, shapes_only, recorder.peak)


def run(graph: Callable[..., Any], *inputs: Tensor) -> Any:
    """What a part of a network yields; whatever its code raises is a RefusedError."""
    with foreign("model: expected one whose parts run as they do in the whole, got another"):
        return graph(*inputs)


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a structure that has any."""
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


def expanded(inputs: Iterable[Tensor], times: int, shapes_only: set[int]) -> list[Tensor]:
    """What a graph takes, for a batch that holds each image ``times`` times over.

    Inputs of which nothing but the shape is read take no memory.
    """
    return [
        tensor[:1].expand(times * len(tensor), *tensor.shape[1:])
        if number in shapes_only
        else tensor.repeat(times, *[1] * (tensor.dim() - 1))
        for number, tensor in enumerate(inputs)
    ]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.values: dict[str, Any] = {}
        self.peak = 0

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        self.values[node.name] = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), value)
        alive = tree_leaves([*self.env.values(), value])
        made = [t for t in alive if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)]
        self.peak = max(self.peak, sum(tensor.nbytes for tensor in made))
        return value


class _Tracer(fx.Tracer):
    """Looks into what holds the layer, and, where told to, into what comes after it."""

    def __init__(self, model: nn.Module, layer: nn.Module, descend: bool):
        super().__init__()
        self.layer, self.descend = layer, descend
        self.above = [module for module in model.modules() if layer in module.modules()]
        self.outputs: list[fx.Node] = []

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if module is self.layer:
            return True
        if any(module is holder for holder in self.above):
            return False
        return not (self.outputs and self.descend) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, *arguments: Any) -> Any:
        output = super().call_module(module, *arguments)
        if module is self.layer:
            self.outputs.append(output.node)
        return output


def _trace(model: nn.Module, layer: str, *, descend: bool) -> tuple[fx.Graph, fx.Node]:
    """The graph, and the node in it that is the layer's output."""
    tracer = _Tracer(model, find_layer(model, layer), descend)
    others = list(inspect.signature(model.forward).parameters.values())[1:]
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    graph = tracer.trace(model, concrete_args=defaults)
    if len(tracer.outputs) != 1:
        raise UntraceableError(f"it calls the layer {len(tracer.outputs)} times")
    return graph, tracer.outputs[0]


def _before_upsampling(
    model: nn.Module, logits: fx.Node, values: dict[str, Any], images: Tensor
) -> fx.Node:
    """What is upsampled to the images' size last, as region_confusion does by itself."""
    called = model.get_submodule(str(logits.target)) if logits.op == "call_module" else None
    if type(called) is nn.Upsample:
        given: dict[str, Any] = {**vars(called), "input": logits.all_input_nodes[0]}
    elif logits.op == "call_function" and logits.target is F.interpolate:
        names = inspect.signature(F.interpolate).parameters
        given = dict(zip(names, logits.args, strict=False)) | logits.kwargs
    else:
        return logits
    aligned = given.get("align_corners") or given.get("antialias")
    same = given.get("mode") == "bilinear" and not aligned
    full_size = values[logits.name].shape[2:] == images.shape[2:]
    source = given["input"]
    assert isinstance(source, fx.Node)
    return source if same and full_size else logits


def _reads(
    graph: fx.Graph, logits: fx.Node, features: fx.Node, values: dict[str, Any], picture: fx.Node
) -> list[fx.Node]:
    """The tensors from before the layer, made from the images, that the rest reads."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    from_images = {picture}
    for node in graph.nodes:
        if any(source in from_images for source in node.all_input_nodes):
            from_images.add(node)

    found, seen, stack = [], set(), [logits]
    while stack:
        node = stack.pop()
        if node in seen or node is features:
            continue
        seen.add(node)
        earlier = order[node] < order[features] and node in from_images
        if earlier and isinstance(values[node.name], Tensor):
            found.append(node)
        else:
            stack += node.all_input_nodes
    return sorted(found, key=order.__getitem__)
