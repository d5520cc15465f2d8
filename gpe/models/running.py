"""Networks that anybody wrote, run with care: guarded, uncompiled, left as they were, watched."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils.weak import WeakTensorKeyDictionary

from gpe.errors import InputError

WRAPPED = "_orig_mod."  # what torch.compile puts into names

Weights = Mapping[str, Tensor]


class RefusedError(InputError):
    """What a network raised, said in one line; ``reason`` is the end of it."""

    def __init__(self, expected: str, reason: str):
        super().__init__(f"{expected}: {reason}")
        self.reason = reason


@contextmanager
def foreign(expected: str) -> Iterator[None]:
    """Whatever a network raises becomes an InputError of one line, which begins with ``expected``.

    Of nested blocks the outermost says what was expected.

    Example:
        >>> with foreign("model: expected one that takes images, got Sequential"):
        ...     nn.Sequential(nn.Linear(2, 2))(torch.zeros(1, 3))
        Traceback (most recent call last):
        gpe.models.running.RefusedError: model: expected one that takes images, got Sequential: ...
    """
    try:
        yield
    except RefusedError as error:
        raise RefusedError(expected, error.reason) from error
    except InputError:
        raise
    except Exception as error:  # a network may raise anything
        came = next(iter(str(error).strip().splitlines()), "")
        raise RefusedError(expected, f"{type(error).__name__}: {came:.160}") from error


@contextmanager
def eager(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the network runs as Python code, so that hooks in it are called.

    What :func:`torch.compile` made of a network, of a part of it or of a function around it does
    not see hooks that come later; here it runs uncompiled, and nothing has to be compiled anew.
    The block is given the network out of the wrapper of :func:`torch.compile`.

    Raises:
        InputError: a network that is traced, scripted or exported, wholly or in part: it calls no
            hook.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> with eager(torch.compile(net)) as inner:
        ...     inner is net
        True
    """
    for name, module in model.named_modules():
        exported = any(kind.__module__ == "torch.export._unlift" for kind in type(module).__mro__)
        if exported or isinstance(module, torch.jit.ScriptModule):
            where = f"its module {name!r}" if name else "it"
            how = "exported" if exported else "traced or scripted"
            raise InputError(
                f"model: expected a network of Python code, got {type(model).__name__}: {where} is "
                f"{how}, which cannot be looked into; give the network it was made of"
            )
    # Nothing was compiled where this was never imported, which takes seconds.
    compiles = "torch._dynamo" in sys.modules and not torch.compiler.is_compiling()
    with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
        inner = getattr(model, WRAPPED.strip("."), model)
        assert isinstance(inner, nn.Module)
        yield inner


def forward(model: nn.Module, images: Tensor, weights: Weights | None = None) -> object:
    """What a network makes of images, or an InputError of one line on why it does not take them.

    ``weights`` are parameters and buffers to run with instead of the model's own, by name.
    """
    taken = f"{str(images.dtype).removeprefix('torch.')} images {list(images.shape)}"
    with foreign(f"model: expected a network that takes {taken}, got {type(model).__name__}"):
        if weights:
            return functional_call(model, dict(weights), images)
        return model(images)


# How many passes lie around one another: within a forward pass, a hook may run others.
_INNER: ContextVar[int] = ContextVar("_INNER", default=0)


@contextmanager
def aside() -> Iterator[None]:
    """Within the block, which a hook opens, passes are none of the pass that called the hook."""
    token = _INNER.set(_INNER.get() + 1)
    try:
        yield
    finally:
        _INNER.reset(token)


def own_passes() -> Callable[[], bool]:
    """What tells a hook that was added here whether it is called in a pass that it is meant for."""
    here = _INNER.get()
    return lambda: _INNER.get() == here


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients; and whatever runs in the block changes neither the network,
    its modes, buffers and other attributes, nor what is drawn at random after it."""
    kept = []
    for module in model.modules():
        drawn = [v for v in vars(module).values() if isinstance(v, torch.Generator)]
        kept.append(
            (
                module,
                {k: dict(v) if k in _TABLES else v for k, v in vars(module).items()},
                {name: (b, b.clone()) for name, b in module._buffers.items() if b is not None},
                [(generator, generator.get_state()) for generator in drawn],
            )
        )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model.eval()
            yield
    finally:
        for module, attributes, buffers, generators in kept:
            for name, value in attributes.items():
                if name in _TABLES:
                    table = vars(module)[name]
                    table.clear()
                    table.update(value)
                else:
                    vars(module)[name] = value
            for name in set(vars(module)) - set(attributes):
                del vars(module)[name]
            with torch.no_grad():
                for buffer, value in buffers.values():
                    if not buffer.is_meta and not torch.equal(buffer, value):
                        buffer.copy_(value)
            for generator, state in generators:
                generator.set_state(state)


_TABLES = ("_parameters", "_buffers", "_modules")


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: of the module.
        module: itself.
        begin, end: when, as numbers that count all beginnings and ends.
        takes: the tensor that it is given first, as the first call that yielded it; None for
            others.
        outputs: what it yields, shapes and dtypes of the tensors.
        yields: the first call that yielded the tensor that it yields, itself if it is new.
        channel_dims: of each output the dimension of its channels, where its kind tells.
        output: itself, of modules that are to be reached.
    """

    name: str
    module: nn.Module
    begin: int
    takes: "Call | None" = None
    taken: list[int] = field(default_factory=list)
    end: int = -1
    outputs: list[tuple[list[int], torch.dtype]] = field(default_factory=list)
    yields: "Call | None" = None
    channel_dims: list[int | None] = field(default_factory=list)
    output: object = None

    def holds(self, other: "Call") -> bool:
        """Whether the other was called within this one."""
        return self.begin < other.begin and other.end < self.end


def calls_of(
    model: nn.Module,
    images: Tensor,
    *,
    reach: Collection[nn.Module] = (),
    weights: Weights | None = None,
) -> list[Call]:
    """Runs a network once and notes the calls of its modules, in the order in which they end.

    Modules in ``reach`` have to be reached, and their outputs are kept; what is raised after that
    ends the notes, and that is all.

    Raises:
        InputError: as :func:`forward` and :func:`eager`.
    """
    watch = _Watch(reach)
    with ExitStack() as stack:
        network = stack.enter_context(eager(model))
        for name, module in network.named_modules():
            watch.names[module] = name.replace(WRAPPED, "")
            before = module.register_forward_pre_hook(watch.begin, with_kwargs=True)
            stack.callback(before.remove)
            after = module.register_forward_hook(watch.finish, with_kwargs=True)
            stack.callback(after.remove)
        try:
            forward(network, images, weights)
        except InputError:
            if not reach or set(reach) - {call.module for call in watch.ended}:
                raise
    return watch.ended


def tensors_of(output: object) -> Iterator[Tensor]:
    """The tensors in a structure of dicts, lists and tuples, in their order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from tensors_of(value)


def pick_logits(output: Any) -> Any:
    """The logits of what a network returns: under "out" or "logits", first of a tuple, or all."""
    if isinstance(output, Mapping):
        return next((output[key] for key in ("out", "logits") if key in output), None)
    return output[0] if isinstance(output, tuple | list) and output else output


class _Watch:
    """Hooks for every module of a network."""

    def __init__(self, reach: Collection[nn.Module]) -> None:
        self.reach, self.own = reach, own_passes()
        self.names: dict[nn.Module, str] = {}
        self.clock = 0
        self.open: list[Call] = []
        self.ended: list[Call] = []
        # By tensor, not by its number, which the next one may get.
        self.sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def begin(self, module: nn.Module, arguments: tuple, options: dict) -> None:
        if not self.own():
            return
        given = next(tensors_of((arguments, options)), None)
        call = Call(self.names[module], module, self.clock)
        if given is not None:
            call.takes, call.taken = self.sources.get(given), list(given.shape)
        self.clock += 1
        self.open.append(call)

    def finish(self, module: nn.Module, arguments: tuple, options: dict, output: object) -> None:
        if not self.own():
            return
        while (call := self.open.pop()).module is not module:
            pass  # one that raised, and was caught
        call.end = self.clock
        if module in self.reach:
            call.output = output
        self.clock += 1
        tensors = list(tensors_of(output))
        given = next(tensors_of((arguments, options)), None)
        call.outputs = [(list(tensor.shape), tensor.dtype) for tensor in tensors]
        call.channel_dims = [_channel_dim(call, given, tensor) for tensor in tensors]
        for tensor in tensors:
            if self.sources.get(tensor) is None:
                self.sources[tensor] = call
        call.yields = self.sources.get(tensors[0]) if tensors else None
        self.ended.append(call)


def mixed_sizes(module: nn.Module) -> tuple[int, int] | None:
    """Channels in and out of a convolution, a linear layer or a normalisation."""
    if isinstance(module, _ConvNd):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, _NormBase):
        return module.num_features, module.num_features
    if isinstance(module, nn.GroupNorm):
        return module.num_channels, module.num_channels
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0], module.normalized_shape[0]
    return None


def own_dim(module: nn.Module, shape: Sequence[int], size: int) -> int | None:
    """Which dimension of a tensor holds a module's ``size`` channels, by the module's kind."""
    places = [dim for dim in range(1, len(shape)) if shape[dim] == size]
    if isinstance(module, _ConvNd | _NormBase | nn.GroupNorm) and 1 in places:
        return 1
    last = len(shape) - 1
    # Subclasses of LayerNorm may turn maps around first, as those of ConvNeXt do.
    if type(module) in (nn.Linear, nn.LayerNorm, nn.RMSNorm) and last in places:
        return last
    return places[0] if len(places) == 1 else None


def _channel_dim(call: Call, given: Tensor | None, output: Tensor) -> int | None:
    sizes, source = mixed_sizes(call.module), call.takes
    if sizes is not None:
        return own_dim(call.module, output.shape, sizes[1])
    if source is not None and given is not None and not any(call.module.children()):
        # One that works on each number by itself.
        alike = given.shape == output.shape and given.stride() == output.stride()
        if alike and source.channel_dims and source.outputs[0][0] == list(output.shape):
            return source.channel_dims[0]
    return None
