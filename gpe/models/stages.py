"""The layers of a network by depth, from its images to its last feature map."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules import dropout, pooling

from gpe.errors import InputError
from gpe.models.inside import find_layer
from gpe.models.running import Call, calls_of, mixed_sizes, untouched

ENOUGH = 4  # stages that make a curve
CLEAR = 128  # pixels, of which deep maps are larger than one pixel and so differ from pooled ones
_POOLS = tuple(getattr(nn, kind) for kind in pooling.__all__)
_PASSES = (nn.Identity, dropout._DropoutNd)


def layers_by_depth(
    model: nn.Module, images: Tensor, *, inside: str = "", most: int = 8
) -> list[str]:
    """The stages of a network, first to last: the outermost modules that yield maps or tokens.

    Containers are opened, the largest first, until there are four or more. What has no weights to
    mix channels by (batch norm, ReLU, pooling) is no stage of its own.

    Args:
        model: run once, in evaluation mode, and left as it was.
        images: ``[N,C,H,W]``, as the model takes them; one is enough.
        inside: name of the module to look in, ``"backbone"``; all of the model if empty.
        most: of more stages so many are named, spread evenly, with the first and the last.

    Returns:
        Names of ``model.named_modules()``. The last one is that of :func:`last_feature_map`.

    Raises:
        InputError: there is no module ``inside``, or no stage; images that the network refuses.

    Example:
        >>> import torch
        >>> from torchvision.models import resnet18
        >>> layers_by_depth(resnet18(), torch.zeros(1, 3, 64, 64))
        ['conv1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    stages = _stages(model, images, inside)
    if len(stages) <= most:
        return stages
    places = [round(place * (len(stages) - 1) / (most - 1)) for place in range(most)]
    return [stages[place] for place in places]


def last_feature_map(model: nn.Module, images: Tensor, *, inside: str = "") -> str:
    """The layer that a network's head pools: after norm and activation, before the pooling.

    Where the network ends in a convolution or linear layer that yields logits for each place, it
    is what that takes. An activation that is no module follows the layer; it has no name.

    Args:
        model, images, inside: as of :func:`layers_by_depth`.

    Returns:
        Its name in ``model.named_modules()``. :func:`what_follows` says what comes after it.

    Raises:
        InputError: as :func:`layers_by_depth`.

    Example:
        >>> import torch
        >>> from torchvision.models import squeezenet1_1
        >>> last_feature_map(squeezenet1_1(), torch.zeros(1, 3, 64, 64))
        'features.12'
    """
    return _stages(model, images, inside)[-1]


def what_follows(model: nn.Module, layer: str, images: Tensor) -> list[str]:
    """Names of the outermost modules that run after a layer, in their order.

    Args:
        model, images: as of :func:`layers_by_depth`.
        layer: a name of ``model.named_modules()``.

    Raises:
        InputError: no such layer, one that does not run, or images that the network refuses.

    Example:
        >>> import torch
        >>> from torchvision.models import resnet18
        >>> what_follows(resnet18(), "layer4", torch.zeros(1, 3, 64, 64))
        ['avgpool', 'fc']
    """
    module = find_layer(model, layer)
    with untouched(model):
        calls = calls_of(model, images[:1], reach=[module])
    ends = [call.end for call in calls if call.module is module]
    if not ends:
        raise InputError(f"layer: expected one that runs, got {layer!r}, which does not")
    after = sorted((c for c in calls if c.begin > ends[-1]), key=lambda call: call.begin)
    found, end = [], -1
    for call in after:
        if call.begin > end:
            found.append(call.name)
            end = call.end
    return found


def _stages(model: nn.Module, images: Tensor, inside: str) -> list[str]:
    root = find_layer(model, inside) if inside else model
    calls = _seen_clearly(model, images)
    if inside:
        calls = [call for call in calls if f"{call.name}.".startswith(f"{inside}.")]
    maps = _feature_maps(calls, inside, heads=not inside)
    if not maps:
        where = f"in {inside!r} of {type(model).__name__}" if inside else type(model).__name__
        raise InputError(
            f"layer: expected a network with feature maps [N,C,H,W], got {where} without any; "
            "name a layer that yields [N,C]"
        )
    last = _last(maps, calls)
    ends = {call.name: call for call in maps if call.end <= last.end and _mixes(call.module)}
    mapped = list({call.name: None for call in sorted(ends.values(), key=lambda c: c.end)})

    def module_of(name: str) -> nn.Module:
        return root.get_submodule(name.removeprefix(inside).removeprefix("."))

    def children_of(name: str) -> list[str]:
        prefix = f"{name}." if name else ""
        return [prefix + child for child, part in module_of(name).named_children() if _mixes(part)]

    level, stages = [inside], list[str]()
    while len(stages) < ENOUGH:
        opened = [(name, children) for name in level if (children := children_of(name))]
        if not opened:
            break
        widest, children = max(opened, key=lambda pair: _numbers(module_of(pair[0])))
        if len(stages) > 1 and not any(child in mapped for child in children):
            break
        level = [n for name in level for n in (children if name == widest else [name])]
        stages = [name for name in mapped if name in level]
    if not stages:
        return [last.name]
    final = ends[stages[-1]]
    if final.yields is last.yields:
        return stages
    # Norms and activations belong to the stage that they follow.
    between = (c for c in calls if c.begin > final.end and c.end <= last.end)
    return [*(stages if any(_mixes(c.module) for c in between) else stages[:-1]), last.name]


def _seen_clearly(model: nn.Module, images: Tensor) -> list[Call]:
    """The calls for one image, a larger one where it is small and the network takes that."""
    image = images[:1]
    with untouched(model):
        if (side := min(image.shape[2:], default=CLEAR)) < CLEAR:
            times = -(-CLEAR // max(side, 1))
            try:
                return calls_of(model, image.repeat(1, 1, times, times))
            except InputError:
                pass
        return calls_of(model, image)


def _feature_maps(calls: Sequence[Call], root: str, *, heads: bool) -> list[Call]:
    """The calls that yield one map, or tokens, of features."""
    logits = _logit_layer(calls) if heads else None
    # What pools by attention makes keys and values of all places: they are its own affair.
    pools = [
        call
        for call in calls
        if "attention" in type(call.module).__name__.lower()
        and not _is_map(call)
        and len(call.taken) > 2
    ]
    return [
        call
        for call in calls
        if call.name != root
        and _is_map(call)
        and not isinstance(call.module, _PASSES)
        and not (logits and call.end > logits.begin)
        and not any(pool.holds(call) for pool in pools)
    ]


def _logit_layer(calls: Sequence[Call]) -> Call | None:
    """The layer that yields logits for each place, where the network ends in one."""
    mixing = [c for c in calls if isinstance(c.module, nn.Conv2d | nn.Linear)]
    whole = calls[-1]
    if not mixing or getattr(whole.module, "num_classes", None) == 0 or not whole.outputs:
        return None
    last = max(mixing, key=lambda call: call.begin)
    answer, sizes = whole.outputs[0][0], mixed_sizes(last.module)
    if len(answer) not in (2, 4) or sizes is None or sizes[1] != answer[1] or not _is_map(last):
        return None
    after = [c for c in calls if c.begin > last.end]
    if len(answer) == 4 and not all(isinstance(c.module, nn.Upsample | _PASSES) for c in after):
        return None
    return None if any(mixed_sizes(call.module) for call in after) else last


def _last(maps: Sequence[Call], calls: Sequence[Call]) -> Call:
    """The last map, as what is neither a pooling nor the whole network up to there yields it."""
    last = max((c for c in maps if not isinstance(c.module, _POOLS)), key=lambda call: call.end)
    stem = min(
        (c for c in calls if _mixes(c.module) and not any(c.module.children())),
        key=lambda call: call.begin,
        default=last,
    )
    while last.holds(stem):
        same = [c for c in maps if last.holds(c) and c.yields is last.yields]
        if not same:
            break
        last = max(same, key=lambda call: call.end)
    return last


def _is_map(call: Call) -> bool:
    if len(call.outputs) != 1:
        return False
    shape = call.outputs[0][0]
    wide = sum(size > 1 for size in shape[1:])
    return shape[:1] == [1] and (len(shape), wide) in ((3, 2), (4, 2), (4, 3))


def _mixes(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
