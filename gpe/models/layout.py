"""Where the channels of a layer's output lie: NCHW, NHWC, tokens, pooled, or several maps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from gpe.errors import InputError
from gpe.models.running import WRAPPED, Call, mixed_sizes, own_dim, tensors_of
from gpe.ops.mask_channels import mask_channels

_FORMATS = {"NCHW": (4, 1), "NHWC": (4, 3), "NLC": (3, 2), "NCL": (3, 1)}
_PREFIXES = ("cls_token", "class_token", "dist_token", "reg_token", "register_tokens")
# Of an image of this height and width, the shapes of the tensors that each layer yields.
Outputs = Callable[[int, int], Mapping[str, Sequence[list[int]]]]
_LARGE = 512**2  # pixels; larger images are not made larger still


@dataclass(frozen=True)
class Layout:
    """How the output of a layer is laid out.

    Attributes:
        layer: its name.
        channels: how many.
        dims: which dimension holds them, of each map that the layer yields.
        ndims: how many dimensions each map has.
        prefix: tokens in front that are no place of the image, as a class token.
    """

    layer: str
    channels: int
    dims: tuple[int, ...] = (1,)
    ndims: tuple[int, ...] = (4,)
    prefix: int = 0

    def maps(self, output: object, images: Tensor) -> list[Tensor]:
        """Views of what the layer yields: each ``[N,C,H,W]``, ``[N,C,T,1]`` or ``[N,C]``.

        Raises:
            InputError: an output of another layout than this.
        """
        tensors = checked_outputs(self.layer, output, len(images))
        self.expect(tensors)
        found = []
        for tensor, dim in zip(tensors, self.dims, strict=True):
            if tensor.dim() == 3:
                tensor = tensor[:, self.prefix :] if dim == 2 else tensor[:, :, self.prefix :]
            tensor = tensor.movedim(dim, 1)
            found.append(tensor[..., None] if tensor.dim() == 3 else tensor)
        return found

    def expect(self, output: object) -> None:
        """An InputError for an output of another layout than this."""
        tensors = list(tensors_of(output))
        ndims = tuple(tensor.dim() for tensor in tensors)
        both = zip(tensors, self.dims, strict=False)
        channels = {tensor.shape[dim] for tensor, dim in both if dim < tensor.dim()}
        if ndims != self.ndims or channels != {self.channels}:
            raise InputError(
                f"layer: expected {self.layer!r} to yield {self.channels} channels in dimension "
                f"{_listed(self.dims)} of each image, got {_listed(t.shape for t in tensors)}"
            )

    def pool(self, output: object, images: Tensor) -> Tensor:  # [N,C]
        """The average over all places, of several maps the mean, float32 or wider; a copy."""
        pooled = []
        for features in self.maps(output, images):
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            pooled.append(features.mean((2, 3)) if features.dim() == 4 else features.clone())
        return pooled[0] if len(pooled) == 1 else torch.stack(pooled).mean(0)

    def mask(
        self, output: object, channels: Tensor | Sequence[int], *, inplace: bool = False
    ) -> object:
        """What the layer yields with these channels set to zero, in all its maps and tokens.

        Args:
            output: the structure that the layer yields; it is kept.
            channels, inplace: as of :func:`gpe.mask_channels`.
        """
        dims = iter(self.dims)

        def masked(part: object) -> object:
            if isinstance(part, Tensor):
                dim = next(dims)
                turned = mask_channels(part.movedim(dim, 1), channels, inplace=inplace)
                return part if inplace else turned.movedim(1, dim)
            if isinstance(part, Mapping):
                whole: Any = type(part)
                return whole({key: masked(value) for key, value in part.items()})
            if isinstance(part, list | tuple):
                kind: Any = type(part)
                items = [masked(value) for value in part]
                return kind(*items) if hasattr(kind, "_fields") else kind(items)
            return part

        return masked(output)


def checked_outputs(layer: str, output: object, count: int) -> list[Tensor]:
    """The tensors that a layer yields.

    Raises:
        InputError: other than one floating tensor of each image, or maps of it at several levels.
    """
    tensors = list(tensors_of(output))
    levels = isinstance(output, list | Mapping) or len({t.shape[2:] for t in tensors}) > 1
    if not tensors or (len(tensors) > 1 and not (levels and all(t.dim() == 4 for t in tensors))):
        raise InputError(
            f"layer: expected one tensor from {layer!r}, got {len(tensors)} in a "
            f"{type(output).__name__}; name a module inside it"
        )
    for tensor in tensors:
        if tensor.dim() not in (2, 3, 4) or len(tensor) != count or not tensor.is_floating_point():
            raise InputError(
                f"layer: expected {layer!r} to yield floating [{count},C,H,W], [{count},H,W,C], "
                f"[{count},T,C] or [{count},C], got {tensor.dtype} {list(tensor.shape)}"
            )
    return tensors


def layout_among(
    calls: Sequence[Call],
    layer: str,
    module: nn.Module,
    model: nn.Module,
    image: Tensor,
    channel_dim: int | None,
    outputs: Outputs,
) -> Layout:
    """As :func:`gpe.models.inside.layout_of`, which has its calls and probes."""
    call = only_call(calls, layer, module)
    tensors = checked_outputs(layer, call.output, len(image))
    shapes = [list(tensor.shape) for tensor in tensors]
    dims = [
        given_dim(channel_dim, layer, shape)
        if channel_dim is not None
        else _derived(calls, call, layer, number, shape, model, image, outputs)
        for number, shape in enumerate(shapes)
    ]
    channels = {shape[dim] for shape, dim in zip(shapes, dims, strict=True)}
    if len(channels) > 1:
        raise InputError(
            f"layer: expected maps with the same channels from {layer!r}, got "
            f"{_listed(shapes)}; name a module inside it"
        )
    prefix = 0
    if len(shapes) == 1 and len(shapes[0]) == 3 and image.dim() == 4:
        prefix = _prefix(model, call.name, shapes[0][3 - dims[0]], image)
    return Layout(layer, channels.pop(), tuple(dims), tuple(map(len, shapes)), prefix)


def only_call(calls: Sequence[Call], layer: str, module: nn.Module) -> Call:
    """The call of a layer, of which there has to be just one."""
    own = [call for call in calls if call.module is module]
    if not own:
        raise InputError(f"layer: expected one that runs, got {layer!r}, which does not")
    if len(own) > 1:
        after = []
        for call in own:
            before = [c for c in calls if c.end < call.begin and not any(c.module.children())]
            after.append(repr(before[-1].name) if before else "the images")
        raise InputError(
            f"layer: expected one that runs once, got {layer!r}, which runs {len(own)} times: "
            f"after {', '.join(after)}; name a layer around or before one of these"
        )
    return own[0]


def given_dim(channel_dim: int, layer: str, shape: Sequence[int]) -> int:
    if channel_dim % len(shape) == 0 or not -len(shape) <= channel_dim < len(shape):
        raise InputError(
            f"channel_dim: expected one of 1 to {len(shape) - 1}, or of -1 to {1 - len(shape)}, "
            f"for {layer!r}, which yields {shape}, got {channel_dim}"
        )
    return channel_dim % len(shape)


def _derived(
    calls: Sequence[Call],
    call: Call,
    layer: str,
    number: int,
    shape: list[int],
    model: nn.Module,
    image: Tensor,
    outputs: Outputs,
) -> int:
    """The dimension of the channels of one map."""
    if len(shape) == 2:
        return 1
    if isinstance(call.module, _ConvNd | _NormBase | nn.GroupNorm) and (
        (sizes := mixed_sizes(call.module)) and shape[1] == sizes[1]
    ):
        return 1
    if declared := _declared(call.module, shape):
        return declared.pop()
    same = _same_at_other_sizes(layer, shape, number, image, outputs)
    if len(same) == 1:
        return same.pop()
    told = _structure(calls, call, number, shape)
    seen = _proportions(shape, image)
    if told and seen and not told & seen:
        told = set()  # they contradict each other
    else:
        above = (_declared(module, shape) for module in _above(model, call.name))
        told = (told & seen) or told or seen or next(filter(None, above), set())
    told &= same or told
    if len(told) != 1:
        raise InputError(
            f"channel_dim: expected the dimension of the channels of {call.name!r}, which yields "
            f"{shape} and does not show it, got None"
        )
    return told.pop()


def _declared(module: nn.Module, shape: Sequence[int]) -> set[int]:
    """What timm says of a module's maps."""
    declared = getattr(module, "output_fmt", None)
    ndim, dim = _FORMATS.get(str(getattr(declared, "value", declared)), (0, 0))
    return {dim} if ndim == len(shape) else set()


def _same_at_other_sizes(
    layer: str, shape: list[int], number: int, image: Tensor, outputs: Outputs
) -> set[int]:
    """Which dimensions stay the same for an image of another size; none if that is unknown."""
    if image.dim() != 4:
        return set()
    height, width = image.shape[2:]
    large = height * width > _LARGE
    both = [(256, 384)] if large else [(height + 64, width + 128), (2 * height, 3 * width)]
    found: set[int] = set()
    for size in [*both, (height + 64, width), (height, width + 64)]:
        shapes = outputs(*size).get(layer, [])
        other = shapes[number] if number < len(shapes) else []
        changed = {dim for dim in range(1, len(shape)) if shape[dim : dim + 1] != other[dim:][:1]}
        if len(other) != len(shape) or not changed:
            continue
        found = set(range(1, len(shape))) - changed
        if len(changed) == 1 and len(shape) == 4 and size not in both:
            # Height comes before width, and both before or after the channels.
            first = changed.pop() - (size[0] == height)
            found = {1: {3}, 2: {1}}.get(first, found)
        if len(found) == 1:
            break
    return found


def _structure(calls: Sequence[Call], call: Call, number: int, shape: list[int]) -> set[int]:
    """What the layers say that make this output or take it."""
    told = set()
    if (own := call.channel_dims[number]) is not None:
        told.add(own)
    elif within := [c for c in calls if call.holds(c) and mixed_sizes(c.module)]:
        last = within[-1]
        size = (mixed_sizes(last.module) or (0, 0))[1]
        places = {dim for dim in range(1, len(shape)) if shape[dim] == size}
        if len(places) > 1 and last.outputs[0][0] == shape and last.channel_dims[0] is not None:
            places = {last.channel_dims[0]}
        told |= places if len(places) == 1 else set()
    for later in calls:
        if later.takes is not None and later.takes is call.yields and later.begin > call.end:
            sizes = mixed_sizes(later.module)
            taken = own_dim(later.module, later.taken, sizes[0]) if sizes else None
            if taken is not None and later.taken == shape:
                told.add(taken)
                break
    return told if len(told) == 1 else set()


def _proportions(shape: list[int], image: Tensor) -> set[int]:
    """By which dimensions have the image's proportions."""
    if image.dim() != 4:
        return set()
    height, width = image.shape[2:]
    if len(shape) == 3:
        grids = {dim for dim in (1, 2) if _is_grid(shape[dim], height, width)}
        return {1, 2} - grids if len(grids) == 1 else set()
    found = set()
    for channels, (rows, columns) in {1: (2, 3), 3: (1, 2)}.items():
        if _alike(shape[rows], shape[columns], height, width):
            found.add(channels)
    return found if len(found) == 1 else set()


def _alike(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a map of so many rows and columns may come of an image, its sides rounded."""
    if height == width:
        return rows == columns
    low = max(height / (rows + 1), width / (columns + 1))
    high = min(height / max(rows - 1, 0.5), width / max(columns - 1, 0.5))
    return low < high


def _is_grid(count: int, height: int, width: int) -> bool:
    """Whether so many tokens may be a grid over the image."""
    return any(
        count % rows == 0 and _alike(rows, count // rows, height, width)
        for rows in range(1, count + 1)
    )


def _above(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules that hold one, innermost first."""
    found = []
    for holder, module in model.named_modules():
        holder = holder.replace(WRAPPED, "")
        if not holder or name.startswith(f"{holder}."):
            found.append(module)
    return found[::-1]


def _prefix(model: nn.Module, name: str, tokens: int, image: Tensor) -> int:
    """How many of the tokens are no places, where a module around the layer says it."""
    height, width = image.shape[2:]
    for module in _above(model, name):
        count = getattr(module, "num_prefix_tokens", None)
        if count is None:
            parts = [getattr(module, part, None) for part in _PREFIXES]
            count = sum(p.shape[1] for p in parts if isinstance(p, Tensor) and p.dim() == 3)
        if count and 0 < count < tokens and _is_grid(tokens - count, height, width):
            return 0 if _is_grid(tokens, height, width) else count
    return 0


def _listed(values: Iterable) -> str:
    return ", ".join(str(list(v) if isinstance(v, torch.Size) else v) for v in values)
