"""Hand-written readings of the legacy rules, in their own frame, beside torchvision's in ours."""

import math

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, box_iou, nms, roi_align

from gpe.models.detection.legacy import STRIDES, Anchors, clip, coder, exported, levels, soft_nms


def legacy(boxes):
    """From our frame to one whose last pixel belongs to the box."""
    return boxes - torch.tensor([0, 0, 1, 1])


@pytest.fixture
def boxes():
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=random) * 300
    sides = 4 + torch.rand(60, 2, generator=random) * 200
    return torch.cat([corners, corners + sides], 1).double()


def legacy_anchors(stride):
    """Scale 8, height over width 0.5, 1 and 2, around the middle of a cell, rounded."""
    middle, found = (stride - 1) / 2, []
    for ratio in (0.5, 1, 2):
        w, h = stride * 8 / math.sqrt(ratio), stride * 8 * math.sqrt(ratio)
        corners = (-(w - 1) / 2, -(h - 1) / 2, (w - 1) / 2, (h - 1) / 2)
        found.append([round(middle + corner) for corner in corners])
    return torch.tensor(found).double()


def test_anchors():
    anchors = Anchors()
    for cell, stride in zip(anchors.cell_anchors, STRIDES, strict=True):
        assert torch.equal(legacy(cell.double()), legacy_anchors(stride))
    images = ImageList(torch.zeros(1, 3, 64, 128), [(64, 128)])
    maps = [torch.zeros(1, 1, 64 // stride, 128 // stride) for stride in STRIDES]
    found = anchors(images, maps)[0]
    # Cell by cell along the rows, three shapes a cell: the order of the published channels.
    second = anchors.cell_anchors[0] + torch.tensor([4.0, 0, 4, 0])
    assert torch.equal(found[3:6], second) and len(found) == 3 * sum(m.numel() for m in maps)


def legacy_decoded(boxes, deltas, stds):
    deltas = deltas * torch.tensor(stds, dtype=torch.float64)
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    limit = abs(math.log(16 / 1000))
    new_w, new_h = (
        side * delta.clamp(-limit, limit).exp()
        for side, delta in ((w, deltas[:, 2]), (h, deltas[:, 3]))
    )
    x, y = x + w * deltas[:, 0], y + h * deltas[:, 1]
    return torch.stack([x - (new_w - 1) / 2, y - (new_h - 1) / 2,
                        x + (new_w - 1) / 2, y + (new_h - 1) / 2], 1)  # fmt: skip


@pytest.mark.parametrize(
    "stds", ((1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2), (0.033, 0.033, 0.067, 0.067)), ids=str
)
def test_coder(boxes, stds):
    deltas = torch.randn(len(boxes), 4, generator=torch.Generator().manual_seed(1)).double()
    deltas[0] = 100  # beyond the limit
    found = coder(stds).decode_single(deltas, boxes)
    torch.testing.assert_close(legacy(found), legacy_decoded(legacy(boxes), deltas, stds))


def legacy_aligned(features, box, scale, side=7, samples=2):
    """Averages of bilinear samples, of which a bin has two a side; no half pixel is taken off."""
    x1, y1 = box[0] * scale, box[1] * scale
    w, h = (box[2] + 1) * scale - x1, (box[3] + 1) * scale - y1
    out = np.zeros((features.shape[0], side, side))
    for row in range(side):
        for column in range(side):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + (row + (i + 0.5) / samples) * h / side
                    x = x1 + (column + (j + 0.5) / samples) * w / side
                    out[:, row, column] += bilinear(features, y, x) / samples**2
    return out


def bilinear(features, y, x):
    height, width = features.shape[1:]
    if y < -1 or x < -1 or y > height or x > width:
        return 0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right, dy, dx = min(top + 1, height - 1), min(left + 1, width - 1), y - top, x - left
    upper = features[:, top, left] * (1 - dx) + features[:, top, right] * dx
    lower = features[:, bottom, left] * (1 - dx) + features[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def test_roi_align(boxes):
    features = torch.rand(1, 2, 40, 60, generator=torch.Generator().manual_seed(2)).double()
    found = roi_align(features, [boxes[:20]], 7, 1 / 4, sampling_ratio=2, aligned=False)
    for one, box in zip(found, legacy(boxes[:20]).tolist(), strict=True):
        expected = legacy_aligned(features[0].numpy(), box, 1 / 4)
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-12)


def test_levels_are_torchvisions_but_for_exact_borders(boxes):
    def legacy_level(box):
        x1, y1, x2, y2 = legacy(box).tolist()
        side = math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))
        return min(max(math.floor(math.log2(side / 56 + 1e-6)), 0), 3)

    boxes = torch.cat([boxes, boxes * 4, boxes / 3])
    found = levels(boxes).tolist()
    assert found == [legacy_level(box) for box in boxes] and set(found) == {0, 1, 2, 3}
    pooling = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    maps = {str(n): torch.zeros(1, 1, 512 >> n, 512 >> n) for n in range(4)}
    pooling(maps, [boxes.float()], [(2048, 2048)])
    assert pooling.map_levels([boxes.float()]).tolist() == found


def test_clipping_leaves_strips_of_what_lies_outside():
    boxes = torch.tensor([[-20.0, -30, -5, -2], [110, 70, 140, 90], [10, 20, 30, 40]])
    x1, y1, x2, y2 = legacy(clip(boxes, (64, 100))).T
    old = legacy(boxes)
    for found, before, most in ((x1, old[:, 0], 99), (y1, old[:, 1], 63), (x2, old[:, 2], 99),
                                (y2, old[:, 3], 63)):  # fmt: skip
        assert torch.equal(found, before.clamp(0, most))


def test_exported_boxes_are_a_pixel_less_wide_and_high(boxes):
    old = legacy(boxes)
    found = exported(boxes)
    torch.testing.assert_close(found[:, 2:] - found[:, :2], old[:, 2:] - old[:, :2])
    assert torch.equal(found[:, :2], boxes[:, :2])


def legacy_soft_nms(boxes, scores, overlap=0.5, least=1e-3):
    """One box after the other; overlaps in the legacy frame."""
    left, kept = (
        [[*box, score, n] for n, (box, score) in enumerate(zip(boxes, scores, strict=True))],
        [],
    )
    while left:
        left.sort(key=lambda row: -row[4])
        best = left.pop(0)
        kept.append((best[5], best[4]))
        for row in left:
            w = min(best[2], row[2]) - max(best[0], row[0]) + 1
            h = min(best[3], row[3]) - max(best[1], row[1]) + 1
            if w > 0 and h > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (best, row)]
                iou = w * h / (sum(areas) - w * h)
                row[4] *= 1 - iou if iou > overlap else 1
        left = [row for row in left if row[4] >= least]
    return kept


def test_soft_suppression(boxes):
    near = torch.cat([boxes, boxes + 5, boxes * 1.1])
    scores = torch.rand(len(near), generator=torch.Generator().manual_seed(3)).double()
    indices, values = soft_nms(near, scores)
    expected = legacy_soft_nms(legacy(near).tolist(), scores.tolist())
    assert indices.tolist() == [n for n, _ in expected]
    torch.testing.assert_close(values, torch.tensor([v for _, v in expected]).double())
    assert (values.diff() <= 0).all() and len(nms(near, scores, 0.5)) < len(indices)
    none, no_scores = soft_nms(near[:0], scores[:0])
    assert none.shape == no_scores.shape == (0,) and none.dtype == torch.int64


def test_soft_suppression_ends_where_boxes_are_the_same_and_nothing_is_dropped():
    same = torch.tensor([[0.0, 0, 10, 10]] * 3)
    indices, values = soft_nms(same, torch.tensor([0.5, 0.9, 0.7]), least_score=0.0)
    assert sorted(indices.tolist()) == [0, 1, 2]
    assert values.tolist() == pytest.approx([0.9, 0.0, 0.0])


def test_overlaps_are_those_of_the_legacy_frame(boxes):
    old = legacy(boxes)
    w, h = old[0, 2] - old[0, 0] + 1, old[0, 3] - old[0, 1] + 1
    shared = torch.minimum(old[:, 2:], old[0, 2:]) - torch.maximum(old[:, :2], old[0, :2]) + 1
    shared = shared.clamp(min=0).prod(1)
    areas = (old[:, 2:] - old[:, :2] + 1).prod(1)
    torch.testing.assert_close(box_iou(boxes[:1], boxes)[0], shared / (w * h + areas - shared))
