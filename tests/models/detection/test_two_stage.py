"""Faster and Cascade R-CNN: published names, a strict loader, and boxes whatever the batches."""

import pytest
import torch

from gpe.ablation import ablated, random_orders
from gpe.ablation.detection import detections_without
from gpe.errors import InputError
from gpe.models.detection import load_detector
from gpe.models.detection.legacy import clip, coder, soft_nms
from gpe.models.detection.two_stage import STDS, cascade_rcnn, faster_rcnn

MADE = {"faster-rcnn": faster_rcnn, "cascade-rcnn": cascade_rcnn}
SMALL = {"width": 4, "neck_width": 8, "head_width": 16, "proposals": 20}


@pytest.fixture(scope="module", params=MADE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def small(name):
    """With weights so large that scores and boxes differ from place to place."""
    torch.manual_seed(0)
    model = MADE[name](**SMALL).eval()
    for head in (model.rpn_head, *model.heads):
        for part in head.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
                torch.nn.init.normal_(part.weight, std=0.3)
    return model


# Names


def published(name, wide=True):
    """Names and shapes of the published form, from the documents."""
    with torch.device("meta"):
        state = MADE[name]().backbone.state_dict()
    shapes = {f"backbone.{key}": tuple(value.shape) for key, value in state.items()}
    shapes |= {"neck.reduction_conv.conv.weight": (256, 480, 1, 1)}
    shapes |= {"neck.reduction_conv.conv.bias": (256,)}
    for level in range(5):
        shapes[f"neck.fpn_convs.{level}.conv.weight"] = (256, 256, 3, 3)
        shapes[f"neck.fpn_convs.{level}.conv.bias"] = (256,)
    for part, outputs, side in (("conv", 256, 3), ("cls", 3, 1), ("reg", 12, 1)):
        shapes[f"rpn_head.rpn_{part}.weight"] = (outputs, 256, side, side)
        shapes[f"rpn_head.rpn_{part}.bias"] = (outputs,)
    faster = name == "faster-rcnn"
    for head in ("bbox_head",) if faster else ("bbox_head.0", "bbox_head.1", "bbox_head.2"):
        for layer, outputs, inputs in (
            ("shared_fcs.0", 1024, 12544),
            ("shared_fcs.1", 1024, 1024),
            ("fc_cls", 81 if faster else 2, 1024),
            ("fc_reg", 324 if faster else 4, 1024),
        ):
            shapes[f"{head}.{layer}.weight"], shapes[f"{head}.{layer}.bias"] = (
                (outputs, inputs),
                (outputs,),
            )
    return shapes


def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        state = MADE[name]().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published(name)
    assert len(state) == {"faster-rcnn": 1856, "cascade-rcnn": 1872}[name]


def test_a_checkpoint_of_the_published_form_loads(name, small, tmp_path):
    weights = dict(small.state_dict())
    if name == "cascade-rcnn":
        weights |= {"mask_head.0.conv_res.conv.weight": torch.ones(1)}
    torch.save({"state_dict": weights}, tmp_path / "epoch_5.pth.stu")
    found, model = load_detector(tmp_path / "epoch_5.pth.stu")
    assert found == name and model.shrink and not model.training
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("neck.fpn_convs.4.conv.bias"), "neck.fpn_convs.4.conv.bias missing"),
        (lambda w: w.update({"extra.bias": torch.ones(1)}), "extra.bias unexpected"),
    ],
)
def test_unfit_files_are_told_by_the_names_that_differ(name, small, tmp_path, change, message):
    weights = dict(small.state_dict())
    change(weights)
    torch.save({"state_dict": weights}, tmp_path / "epoch_5.pth")
    with pytest.raises(InputError, match=f"path: expected .* to hold a {name}, .*{message}"):
        load_detector(tmp_path / "epoch_5.pth")


def test_masks_are_tolerated_of_the_cascade_alone(tmp_path):
    weights = faster_rcnn(**{**SMALL, "head_width": 2}).state_dict()
    torch.save(weights | {"mask_head.0.bias": torch.ones(1)}, tmp_path / "epoch_5.pth")
    with pytest.raises(InputError, match=r"mask_head\.0\.bias unexpected"):
        load_detector(tmp_path / "epoch_5.pth")


def test_another_network_is_no_detector(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(InputError, match=r"path: expected .* to hold a detector .* got another"):
        load_detector(tmp_path / "linear.pth")


# Boxes


@torch.no_grad()
def test_batches_change_nothing(small):
    images, size = torch.randn(3, 3, 70, 128), (70, 128)
    whole = small.detect(small.latent(images), size, least_score=0.0)
    assert all(len(one["boxes"]) for one in whole)
    for place, one in enumerate(whole):
        (alone,) = small.detect(small.latent(images[place : place + 1]), size, least_score=0.0)
        torch.testing.assert_close(alone["scores"], one["scores"], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(alone["boxes"], one["boxes"], rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_heads_alone_find_what_the_network_without_these_channels_finds(small):
    images, size = torch.randn(2, 3, 64, 128), (64, 128)
    orders = random_orders(8, 1)
    for _, count, found in detections_without(small, small.latent(images), size, orders, (1, 3, 8)):
        with ablated(small, "neck", orders["random/0"][:count] if count else []):
            expected = small(images)
        zeroed = [maps.clone() for maps in small.latent(images)]
        for maps in zeroed:
            maps[:, orders["random/0"][:count]] = 0
        plainly = small.detect(zeroed, size)
        for one, other, third in zip(found, expected, plainly, strict=True):
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(one["scores"], third["scores"], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_stages_of_the_cascade_refine_boxes_and_their_logits_are_averaged():
    """Against the rule read out, stage by stage, for regions that are given."""
    torch.manual_seed(1)
    model, size = cascade_rcnn(**SMALL).eval(), (64, 128)
    for head in model.heads:
        torch.nn.init.normal_(head.fc_reg.weight, std=0.1)
    latent = model.latent(torch.randn(1, 3, *size))
    regions = torch.tensor([[10.0, 5, 40, 60], [60, 10, 90, 50]])
    (found,) = model._by_stages(latent, [regions], size, 0.001)
    boxes, total = regions, torch.zeros(2, 2)
    for head, stds in zip(model.heads, STDS, strict=True):
        logits, deltas = head(model._pooled(latent, [boxes]))
        boxes = clip(coder(stds).decode_single(deltas, boxes), size)
        total += logits
    kept, scores = soft_nms(boxes, (total / 3).softmax(1)[:, 1])
    torch.testing.assert_close(found["boxes"], boxes[kept])
    torch.testing.assert_close(found["scores"], scores)


@torch.no_grad()
def test_published_results_are_a_pixel_less_wide_and_high(small):
    images, size = torch.randn(1, 3, 64, 128), (64, 128)
    small.shrink = False
    (plain,) = small.detect(small.latent(images), size)
    small.shrink = True
    (shrunk,) = small.detect(small.latent(images), size)
    small.shrink = False
    torch.testing.assert_close(
        plain["boxes"] - shrunk["boxes"], torch.tensor([[0.0, 0, 1, 1]]).expand_as(plain["boxes"])
    )


def test_losses_are_shares_of_a_larger_batch(small):
    images, boxes = torch.randn(1, 3, 64, 128), torch.tensor([[20.0, 10, 43, 60]])
    found = []
    for times in (1, 4):
        torch.manual_seed(0)
        none = torch.zeros(0, 4)
        found.append(small.losses(images, [boxes], [none], of_all=lambda count: times * count))  # noqa: B023
    for name, value in found[1].items():
        torch.testing.assert_close(4 * value, found[0][name])


def test_a_small_network_learns_two_boxes(name):
    torch.manual_seed(0)
    model = MADE[name](width=4, neck_width=16, head_width=32, proposals=50)
    images = torch.zeros(1, 3, 96, 128)
    boxes = torch.tensor([[20.0, 20, 43, 76], [80, 10, 104, 70]])
    for x1, y1, x2, y2 in boxes.int().tolist():
        images[..., y1:y2, x1:x2] = 2
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        parts = model.losses(images, [boxes], [torch.zeros(0, 4)])
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        model.train()  # batch statistics of one image: running ones lag behind after 40 steps
        (found,) = model.detect(model.latent(images), (96, 128))
    from torchvision.ops import box_iou

    best = box_iou(boxes, found["boxes"][:10])
    assert (best.max(1).values > 0.6).all()
