"""Channels removed from any network for a while, and the check that they are."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gpe.ablation.plan import indices
from gpe.errors import InputError
from gpe.metrics.evaluating import evaluating
from gpe.models.inside import find_layer, layout_of
from gpe.models.layout import Layout, given_dim
from gpe.models.running import (
    RefusedError,
    aside,
    eager,
    forward,
    mixed_sizes,
    own_dim,
    own_passes,
    tensors_of,
    untouched,
)

# What was found of a layer, so that a loop over removals does not look again: by the module that
# ran, the shape of what it took, and the argument.
_Key = tuple[ref, torch.Size, int | None]
_KNOWN: WeakKeyDictionary[nn.Module, dict[_Key, Layout]] = WeakKeyDictionary()


@contextmanager
def ablated(
    model: nn.Module,
    layer: str,
    channels: Tensor | Sequence[int],
    *,
    channel_dim: int | None = None,
) -> Iterator[nn.Module]:
    """Within the block, ``layer`` of ``model`` yields zeros in these channels.

    Weights stay as they are, gradients pass through the other channels, and blocks may be
    nested: then the channels of all of them are removed. What :func:`torch.compile` made of the
    network runs uncompiled within the block.

    The first pass tells in which dimension the channels lie, as
    :func:`gpe.models.inside.layout_of` does, with a few passes of one image more; and whether the
    network yields the same without any of the layer's channels, which is a warning. Each pass
    checks that the layer ran once.

    Args:
        model: any network of Python code, or a compiled one.
        layer: its name in ``model.named_modules()``. It yields one floating tensor ``[N,C,H,W]``,
            ``[N,H,W,C]``, ``[N,T,C]`` or ``[N,C]``, or several maps with the same channels, from
            all of which they are removed, as from all tokens.
        channels: indices, integers ``[k]`` or a sequence of them; none removes nothing.
        channel_dim: of the layer's output, where it does not show; negative from the end.

    Yields:
        The model itself. After the block, also after an error in it, it is as before.

    Raises:
        InputError: there is no such layer, with the nearest that there are; a network that is
            traced or scripted; when the network runs, a layer that does not run, or not just once,
            with its calls; one whose channels cannot be told apart, or whose result the network
            drops, as of a ReLU in place; and channels that are out of range or repeated.

    Source:
        Section 4.2.2: a removed channel is set to zero.

    Example:
        >>> import torch, gpe
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with gpe.ablated(net, "0", [0, 2]):
        ...     net(torch.ones(1, 4, 1, 1))
        tensor([[0., 1., 0., 1.]])
        >>> net(torch.ones(1, 4, 1, 1))
        tensor([[1., 1., 1., 1.]])
    """
    module, channels = find_layer(model, layer), indices("channels", channels)
    with eager(model) as network, _Mask(network, module, layer, channels, channel_dim).on():
        yield model


@contextmanager
def removed(network: nn.Module, layout: Layout, channels: Tensor) -> Iterator[None]:
    """:func:`ablated` for a network that runs as Python code and a layer that was looked at."""
    module = find_layer(network, layout.layer)
    with _Mask(network, module, layout.layer, channels, layout=layout).on():
        yield


def expect_effect(
    network: nn.Module,
    layout: Layout,
    images: Tensor,
    pick: Callable[[object], object] = lambda output: output,
) -> None:
    """Looks whether what a network yields depends on the channels of a layer at all.

    Args:
        network: in evaluation mode.
        layout: of the layer.
        images: one or more.
        pick: what counts of the network's output.

    Raises:
        InputError: the network drops what the layer returns and goes on with what it wrote in
            place, so that nothing would be removed.

    Warns:
        UserWarning: nothing changes without all of the channels, though some are not zero.
    """
    module, every = find_layer(network, layout.layer), range(layout.channels)
    alive = False

    def look(module: nn.Module, arguments: tuple, output: object) -> None:
        nonlocal alive
        alive = any(bool(tensor.any()) for tensor in tensors_of(output))

    def zero(module: nn.Module, arguments: tuple, output: object) -> object:
        return layout.mask(output, every)

    kept: list[tuple[Tensor, Tensor]] = []

    def write(module: nn.Module, arguments: tuple, output: object) -> object:
        kept.extend((tensor, tensor.clone()) for tensor in tensors_of(output))
        return layout.mask(output, every, inplace=True)

    def run(hook: Callable) -> list[Tensor]:
        with torch.no_grad(), untouched(network), ExitStack() as stack:
            for handle in _hooked(module, hook):
                stack.callback(handle.remove)
            return [tensor.clone() for tensor in tensors_of(pick(forward(network, images)))]

    def same(one: list[Tensor], other: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    before = run(look)
    if not (alive and before and same(before, run(zero))):
        return
    written = run(write)
    for tensor, value in reversed(kept):  # it may be a weight
        with torch.no_grad():
            tensor.copy_(value)
    if not same(before, written):
        raise InputError(
            f"layer: expected one whose result the network uses, got {layout.layer!r}, which works "
            "in place and whose result is dropped; name the layer before it or around it"
        )
    warnings.warn(
        f"layer: the network yields the same without all {layout.channels} channels of "
        f"{layout.layer!r}",
        stacklevel=2,
    )


@dataclass(eq=False)
class _Mask:
    """Zeroes channels of a layer, and watches the passes of the outermost module that runs."""

    network: nn.Module
    module: nn.Module
    layer: str
    channels: Tensor
    channel_dim: int | None = None
    layout: Layout | None = None
    outermost: int | None = None  # its number among the holders, while it runs
    calls: int = 0
    masked: bool = False
    own: Callable[[], bool] = field(default_factory=own_passes)
    holders: list[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        name = next(name for name, module in self.network.named_modules() if module is self.module)
        above = ["", *accumulate(name.split(".")[:-1], "{}.{}".format)]
        self.holders = [self.network.get_submodule(holder) for holder in above]

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for holder in self.holders:
                before = holder.register_forward_pre_hook(self.begin, with_kwargs=True)
                stack.callback(before.remove)
                after = holder.register_forward_hook(self.finish, always_call=True)
                stack.callback(after.remove)
            stack.callback(self.module.register_forward_pre_hook(self.count).remove)
            for handle in _hooked(self.module, self.zero):
                stack.callback(handle.remove)
            yield

    def begin(self, holder: nn.Module, arguments: tuple, options: dict) -> None:
        if not self.own():
            return
        number = self.holders.index(holder)
        # One that holds what still runs begins anew: what ran was left by an error.
        if self.outermost is not None and self.outermost < number:
            return
        given = next(tensors_of((arguments, options)), None)
        if self.layout is None and given is not None and given.dim() > 1:
            self.look(holder, given)
        self.outermost, self.calls, self.masked = number, 0, False

    def look(self, holder: nn.Module, images: Tensor) -> None:
        """Finds the layout, or leaves it open where the network takes more than images."""
        key = ref(holder), images.shape[1:], self.channel_dim
        known = _KNOWN.setdefault(self.module, {})
        if key not in known:
            name = next(name for name, module in holder.named_modules() if module is self.module)
            try:
                with aside(), evaluating(holder):
                    layout = layout_of(holder, name, images, channel_dim=self.channel_dim)
                    expect_effect(holder, layout, images[:1])
            except InputError as error:
                told = self.channel_dim is not None or mixed_sizes(self.module) is not None
                if isinstance(error, RefusedError) or (images.dim() != 4 and told):
                    return
                raise
            finally:
                torch.clear_autocast_cache()  # of weights that were cast without gradients
            known[key] = layout
        self.layout = known[key]

    def count(self, module: nn.Module, arguments: tuple) -> None:
        if not self.own() or self.outermost is None:
            return
        self.calls += 1
        if self.calls > 1:
            raise InputError(
                f"layer: expected one that runs once, got {self.layer!r}, which runs again in the "
                "same pass; name a layer around or before one of its calls"
            )

    def zero(self, module: nn.Module, arguments: tuple, output: object) -> object:
        if not self.own():
            return output
        if self.layout is None:
            self.layout = _by_kind(module, self.layer, output, self.channel_dim)
        self.layout.expect(output)
        self.masked = True
        return self.layout.mask(output, self.channels)

    def finish(self, holder: nn.Module, arguments: tuple, output: object) -> None:
        if not self.own() or self.outermost != self.holders.index(holder):
            return
        self.outermost = None
        if not self.masked and output is not None:  # None also after an error
            raise InputError(f"layer: expected one that runs, got {self.layer!r}, which does not")


def _hooked(module: nn.Module, hook: Callable) -> list[RemovableHandle]:
    """Hooks after all others, and before those of a network that takes features by hooks."""
    own = bool(module._forward_hooks)
    handles = [module.register_forward_hook(hook, prepend=True)] if own else []
    return [*handles, module.register_forward_hook(hook)]


def _by_kind(module: nn.Module, layer: str, output: object, channel_dim: int | None) -> Layout:
    """Of a layer in a pass that is not one of images alone."""
    if not isinstance(output, Tensor) or output.dim() < 2:
        came = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"layer: expected {layer!r} to yield a tensor [N,C,...], got {came}")
    sizes, dim = mixed_sizes(module), 1 if output.dim() == 2 else None
    if channel_dim is not None:
        dim = given_dim(channel_dim, layer, output.shape)
    elif sizes is not None:
        dim = own_dim(module, output.shape, sizes[1])
    if dim is None:
        raise InputError(
            f"channel_dim: expected the dimension of the channels of {layer!r}, which yields "
            f"{list(output.shape)} and does not show it, got None"
        )
    return Layout(layer, output.shape[dim], (dim,), (output.dim(),))
