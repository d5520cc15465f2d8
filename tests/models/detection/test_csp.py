"""CSP: the published names and shapes, a strict loader, and boxes as they were decoded."""

import copy
import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from gpe.errors import InputError
from gpe.models.detection import csp, load_detector
from gpe.models.detection.csp import decode


@pytest.fixture(scope="module")
def published():
    """A state dict of the published form, with seeded weights of the names in the documents."""
    torch.manual_seed(0)
    with torch.device("meta"):
        backbone = resnet50().state_dict()
    shapes = {f"backbone.{name}": tuple(value.shape) for name, value in backbone.items()}
    shapes = {name: shape for name, shape in shapes.items() if ".fc." not in name}
    for level, channels in (("p3", 512), ("p4", 1024), ("p5", 2048)):
        shapes[f"neck.{level}.weight"] = (channels, 256, 4, 4)
        shapes[f"neck.{level}.bias"] = shapes[f"neck.{level}_l2.weight"] = (256,)
    for name, outputs in (("cls", 1), ("reg", 1), ("offset", 2)):
        head = f"bbox_head.{name}_convs.0"
        shapes[f"{head}.conv.weight"] = (256, 768, 3, 3)
        shapes[f"{head}.gn.weight"] = shapes[f"{head}.gn.bias"] = (256,)
        shapes[f"bbox_head.csp_{name}.weight"] = (outputs, 256, 3, 3)
        shapes[f"bbox_head.csp_{name}.bias"] = (outputs,)
        if name != "cls":
            shapes[f"bbox_head.{name}_scales.0.scale"] = ()
    return {
        name: torch.tensor(1) if name.endswith("tracked") else torch.rand(shape) * 0.02 + 1e-3
        for name, shape in shapes.items()
    }


def saved(tmp_path, weights):
    torch.save({"state_dict": weights}, tmp_path / "epoch_1.pth.stu")
    return tmp_path / "epoch_1.pth.stu"


def test_a_checkpoint_of_the_published_form_loads(published, tmp_path):
    assert len(published) == 344
    name, model = load_detector(saved(tmp_path, published))
    assert name == "csp" and not model.training
    found = model.state_dict()
    assert found.keys() == published.keys()
    assert all(torch.equal(found[name], value) for name, value in published.items())


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda w: w.pop("neck.p4.bias"), "neck.p4.bias missing"),
        (lambda w: w.update({"mask_head.0.bias": torch.ones(1)}), "mask_head.0.bias unexpected"),
        (
            lambda w: w.update({"neck.p4.bias": torch.ones(3)}),
            r"neck.p4.bias \[3\] where \[256\] is due of another shape",
        ),
        (lambda w: w.pop("neck.p3_l2.weight"), "neck.p3_l2.weight missing"),
    ),
)
def test_weights_of_another_network_are_told_by_their_names(published, tmp_path, change, message):
    weights = dict(published)
    change(weights)
    with pytest.raises(InputError, match=f"path: expected .* a CSP, got another .*{message}"):
        load_detector(saved(tmp_path, weights))


@pytest.fixture(scope="module", params=("resnet18", "resnet50"))
def small(request):
    torch.manual_seed(1)
    return csp(request.param, width=8, neck_width=16, head_width=8).eval()


def test_small_ones_load_too(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "small.pth")
    (_, again), images = load_detector(tmp_path / "small.pth"), torch.rand(1, 3, 128, 128)
    for one, other in zip(small(images), again(images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_all_of_the_last_stage_is_dilated(small):
    """Stages have strides 8, 16 and 16; with torchvision's dilation the same weights differ."""
    stages = small.backbone(torch.rand(1, 3, 128, 256))
    assert [tuple(stage.shape[2:]) for stage in stages.values()] == [(16, 32), (8, 16), (8, 16)]
    convs = [c for c in small.backbone.layer4.modules() if isinstance(c, nn.Conv2d)]
    assert {c.dilation for c in convs if c.kernel_size == (3, 3)} == {(2, 2)}
    assert {c.stride for c in convs} == {(1, 1)}


def test_the_neck_normalises_over_channels(small):
    latent = small.neck(small.backbone(torch.rand(2, 3, 128, 128)))
    assert latent.shape == (2, 48, 32, 32)
    norms = latent.unflatten(1, (3, 16)).norm(dim=2)
    torch.testing.assert_close(norms, torch.full_like(norms, 10), rtol=1e-4, atol=0)


def test_batches_change_nothing(small):
    images = torch.rand(3, 3, 128, 128)
    whole = small(images)
    for n in range(3):
        for one, other in zip(small(images[n : n + 1]), whole, strict=True):
            torch.testing.assert_close(one[0], other[n], rtol=1e-4, atol=1e-5)


def test_removing_channels_of_the_latent_is_zeroing_them(small):
    images, channels = torch.rand(1, 3, 128, 128), [0, 20, 47]
    latent = small.neck(small.backbone(images))
    latent[:, channels] = 0
    zeroed = copy.deepcopy(small)
    for name in ("cls", "reg", "offset"):
        getattr(zeroed.bbox_head, f"{name}_convs")[0].conv.weight.data[:, channels] = 0
    for one, other in zip(small.bbox_head(latent), zeroed(images), strict=True):
        torch.testing.assert_close(one, other)


# Boxes


def maps(*cells, shape=(32, 64)):
    """Of cells (row, column, score, height in pixels, dy, dx)."""
    logits = torch.full((1, 1, *shape), -20.0, dtype=torch.float64)
    heights, offsets = torch.zeros_like(logits), torch.zeros(1, 2, *shape, dtype=torch.float64)
    for row, column, score, height, dy, dx in cells:
        logits[0, 0, row, column] = math.log(score / (1 - score))
        heights[0, 0, row, column] = math.log(height / 4)
        offsets[0, :, row, column] = torch.tensor([dy, dx])
    return logits, heights, offsets


def test_a_cell_becomes_a_box():
    """Channel 0 of the offsets is y; a cell's middle is half a cell in."""
    found = decode(maps((16, 30, 0.8, 50, 0.25, -0.5)), (128, 256))[0]
    y, x, w = 16 * 4 + 2 + 1, 30 * 4 + 2 - 2, 0.41 * 50
    expected = [[x - w / 2, y - 25, x + w / 2, y + 25]]
    torch.testing.assert_close(found["boxes"], torch.tensor(expected))
    torch.testing.assert_close(found["scores"], torch.tensor([0.8]))


def test_boxes_end_at_the_last_pixel():
    corners = decode(maps((0, 0, 0.9, 80, 0, 0), (31, 63, 0.8, 80, 0, 0)), (128, 256))[0]["boxes"]
    assert corners[0, :2].tolist() == [0, 0] and corners[1, 2:].tolist() == [255, 127]


def test_low_scores_and_overlapping_boxes_are_dropped():
    cells = (16, 30, 0.8, 50, 0, 0), (16, 31, 0.7, 50, 0, 0), (16, 50, 0.11, 50, 0, 0)
    low = (2, 2, 0.0999, 20, 0, 0)
    assert decode(maps(*cells, low), (128, 256))[0]["scores"].tolist() == pytest.approx([0.8, 0.11])
    assert len(decode(maps(*cells), (128, 256), most=1)[0]["boxes"]) == 1
    assert len(decode(maps(*cells), (128, 256), candidates=2)[0]["boxes"]) == 1
    assert decode(maps(), (128, 256))[0]["boxes"].shape == (0, 4)
