"""torch.func and forward-mode AD through every op: right, or refused by name."""

import pytest
import torch
from torch.autograd import forward_ad

import gpe
from tests.ops.conftest import compiled_for_cpu

A, B, T = torch.randn(3, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double().unbind()
LOCATIONS = torch.arange(4)
OPS = {
    "gap_mse": lambda x: gpe.gap_mse(x, B).mse + gpe.gap_mse(x).z_a.square().sum(),
    "flip_difference": lambda x: gpe.flip_difference(x, B).absolute_total.square().sum(),
    "mask_channels": lambda x: gpe.mask_channels(x, [1]).square().sum(),
    "mask_channels in place": lambda x: gpe.mask_channels(x * 1, [1], inplace=True).pow(2).sum(),
    "place_on_grid": lambda x: gpe.place_on_grid(x, LOCATIONS, 2, std=0.5).square().sum(),
    "augshift": lambda x: gpe.AugShiftLoss()(x, None, lambda z: z, torch.tensor([0, 2])).loss,
}
every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


def gradient(op, x=A):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(op(x), x)[0]


@every_op
def test_func_grad(op, served, interpreted):
    if interpreted:
        pytest.skip("plain PyTorch serves these")
    torch.testing.assert_close(torch.func.grad(op)(A), gradient(op))


@every_op
def test_forward_mode(op, served, interpreted):
    if interpreted:
        pytest.skip("plain PyTorch serves these")
    expected = (gradient(op) * T).sum()
    torch.testing.assert_close(torch.func.jvp(op, (A,), (T,))[1], expected)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(op(forward_ad.make_dual(A, T))).tangent
        torch.testing.assert_close(tangent, expected)


@every_op
def test_vmap(op, served, interpreted):
    if interpreted:
        pytest.skip("plain PyTorch serves these")
    several = torch.stack([A, T])
    torch.testing.assert_close(torch.func.vmap(op)(several), torch.stack([op(A), op(T)]))
    gradients = torch.func.vmap(torch.func.grad(op))(several)
    torch.testing.assert_close(gradients, torch.stack([gradient(op), gradient(op, T)]))


def test_indices_that_vmap_maps_over_are_refused():
    places = LOCATIONS.expand(2, 4)
    for name, call in {
        "locations": lambda where: gpe.place_on_grid(A, where, 2),
        "channels": lambda where: gpe.mask_channels(A, where[:1]),
        "labels": lambda where: gpe.region_confusion(
            A, where[:, None, None], [(0, 0, 1, 1)], num_classes=3
        ),
    }.items():
        with pytest.raises(gpe.InputError, match=f"{name}: expected a tensor over which"):
            torch.func.vmap(call)(places)


@compiled_for_cpu
def test_bare_operators_refuse_tangents():
    """They would drop them, which reads as a derivative of zero."""
    x, ones = A.float(), torch.ones(3)
    raw = {
        "flip_difference": lambda x: torch.ops.gpe.flip_difference(x, x, None, None),
        "mask_channels": lambda x: torch.ops.gpe.mask_channels(x, ones.bool()),
        "place_on_grid": lambda x: torch.ops.gpe.place_on_grid(
            x, LOCATIONS, 2, ones, ones, torch.float32, False
        ),
    }
    assert all(callable(getattr(gpe, name)) for name in raw)  # and registered
    for call in raw.values():
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
            call(forward_ad.make_dual(x, x))
