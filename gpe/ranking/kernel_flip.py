"""A network whose kernels are mirrored (Kernel-Flip* and Kernel-Flip**, section 4.2.1).

The rule: mirrored is the weight of every convolution with a width (``nn.Conv2d``, ``nn.Conv3d``,
their transposed forms and all subclasses; grouped and depthwise ones are no different) that runs
between the images and the layer's output. What runs after the layer, the head, is never
mirrored, nor is ``nn.Conv1d``, whose axis is no width. It is the execution that decides, not the
names: a convolution counts whose module is called.

A convolution that is no such module (conditional, deformable or called as a function) is refused:
it would stay as it is. Position embeddings and what attention, Mamba or LSTM layers know of places
are weights of no convolution, and are not mirrored.

Such a network sees the mirrored image as the network itself sees the image, mirrored, wherever a
kernel's grid is symmetric: with stride 1 and as much padding on the left as on the right. Where
stride is 2 and the width even, or where padding is larger on one side, as TensorFlow's "same"
padding is, the grid of the mirrored kernels lies a pixel off.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from gpe.errors import InputError
from gpe.models.inside import run_to


def mirrored_weights(
    model: nn.Module, layer: str, images: Tensor, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights that a kernel flip mirrors, mirrored, by name; ``model`` keeps its own.

    Args:
        model, layer: as for :func:`gpe.models.inside.run_to`.
        images: a batch, which is run to see which convolutions it meets.
        weights: to run with, and to mirror, instead of the model's own.

    Raises:
        InputError: there is no such convolution, one computes its weight from others, or one is
            run by something that is no module of a convolution.
    """
    own = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in own.items()}
    mirrored = {}
    for name in _convolutions_that_run(model, layer, images, weights):
        convolution = model.get_submodule(name)
        weight = names.get(id(convolution._parameters.get("weight")))
        if weight is None:
            raise InputError(
                f"model: expected convolutions that hold their weights, got {name!r}, which "
                "computes its weight; torch.nn.utils.parametrize.remove_parametrizations ends that"
            )
        mirrored[weight] = weights.get(weight, own[weight]).detach().flip(-1)
    if not mirrored:
        raise InputError(
            f"layer: expected convolutions before or in it, whose kernels can be mirrored, "
            f"got {layer!r}, which has none"
        )
    return mirrored


def _convolutions_that_run(
    model: nn.Module, layer: str, images: Tensor, weights: Mapping[str, Tensor]
) -> list[str]:
    met: list[str] = []
    stray = _Stray()
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            # Of shape [out, in, ..., width], or [in, out, ..., width] where it is transposed.
            if isinstance(module, _ConvNd) and len(module.kernel_size) >= 2:
                before = module.register_forward_pre_hook(lambda *_, name=name: met.append(name))
                hooks.callback(before.remove)
            if isinstance(module, _ConvNd):
                hooks.callback(module.register_forward_pre_hook(stray.enter).remove)
                hooks.callback(module.register_forward_hook(stray.leave).remove)
        hooks.enter_context(stray)
        run_to(model, (layer,), images, lambda *_: None, weights)
    if stray.found:
        raise InputError(
            "model: expected convolutions that are modules of torch.nn, whose kernels can be "
            f"mirrored, got {stray.found[0]} outside of one"
        )
    return list(dict.fromkeys(met))


class _Stray(TorchDispatchMode):
    """Notes kernels with a width that no module of a convolution runs: they would stay as are."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.found: list[str] = []

    def enter(self, *_: object) -> None:
        self.inside += 1

    def leave(self, *_: object) -> None:
        self.inside -= 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        weight = args[1] if "conv" in str(func) and len(args) > 1 else None
        shape = list(weight.shape) if isinstance(weight, Tensor) else []
        if len(shape) > 3 and shape[-1] > 1 and not self.inside:
            self.found.append(f"{func} with a kernel {shape}")
        return func(*args, **(kwargs or {}))
