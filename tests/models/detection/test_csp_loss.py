"""CSP's targets and loss: cell by cell, as their rules read; a network learns from them."""

import math

import pytest
import torch

from gpe.models.detection import csp
from gpe.models.detection.csp import decode
from gpe.models.detection.csp_loss import csp_loss, csp_targets

NONE = torch.zeros(0, 4)


def test_a_box_has_one_centre_a_bump_and_heights_around_it():
    targets = csp_targets([torch.tensor([[20.0, 12, 45, 73]])], [NONE], (128, 128))
    x1, y1, x2, y2 = 20 / 4, 12 / 4, 44 / 4, 72 / 4
    row, column = int((y1 + y2) / 2), int((x1 + x2) / 2)
    assert targets.centres.nonzero().tolist() == [[0, row, column]]
    expected = torch.zeros(32, 32)
    w, h = int(x2) - math.ceil(x1), int(y2) - math.ceil(y1)
    sx, sy = (0.3 * ((k - 1) / 2 - 1) + 0.8 for k in (w, h))
    for i in range(h):
        for j in range(w):
            expected[math.ceil(y1) + i, math.ceil(x1) + j] = math.exp(
                -((i - int(h / 2)) ** 2) / (2 * sy**2) - (j - int(w / 2)) ** 2 / (2 * sx**2)
            )
    torch.testing.assert_close(targets.near[0], expected)
    tall = targets.log_heights[0].isfinite()
    assert tall.sum() == 25 and tall[row - 2 : row + 3, column - 2 : column + 3].all()
    assert targets.log_heights[0][tall].unique().item() == pytest.approx(math.log(y2 - y1))
    found = targets.offsets[0, :, row, column].tolist()
    assert found == [(y1 + y2) / 2 - row - 0.5, (x1 + x2) / 2 - column - 0.5]
    assert targets.offsets.isfinite().sum() == 2


def test_ignored_boxes_are_no_negatives_but_where_people_are():
    people, others = torch.tensor([[20.0, 20, 40, 60]]), torch.tensor([[0.0, 0, 60, 100]])
    targets = csp_targets([people, NONE], [others, NONE], (128, 128))
    assert targets.negatives[1].all()
    row, column = targets.centres[0].nonzero()[0].tolist()
    assert not targets.negatives[0, row, column] and targets.negatives[0, row + 1, column]
    assert not targets.negatives[0, :25, :5].any() and targets.negatives[0, 25:].all()


def test_the_loss_is_its_formula():
    torch.manual_seed(0)
    people = torch.tensor([[20.0, 20, 40, 69], [60, 30, 90, 103]])
    targets = csp_targets([people], [torch.tensor([[0.0, 0, 50, 100]])], (128, 128))
    maps = torch.randn(1, 1, 32, 32), torch.rand(1, 1, 32, 32) * 4, torch.randn(1, 2, 32, 32)
    centre = height = offset = 0.0
    for i in range(32):
        for j in range(32):
            p = maps[0][0, 0, i, j].sigmoid().item()
            if targets.centres[0, i, j]:
                centre -= (1 - p) ** 2 * math.log(p)
                for axis in range(2):
                    offset += smooth((maps[2] - targets.offsets)[0, axis, i, j].item())
            elif targets.negatives[0, i, j]:
                near = targets.near[0, i, j].item()
                centre -= (1 - near) ** 4 * p**2 * math.log(1 - p)
            true = targets.log_heights[0, i, j].item()
            if true == true:
                height += smooth(maps[1][0, 0, i, j].item() / true - 1)
    parts = {name: value.item() for name, value in csp_loss(maps, targets).items()}
    tall = targets.log_heights.isfinite().sum().item()
    expected = {"centre": 0.01 * centre / 2, "height": height / tall, "offset": 0.1 * offset / 4}
    assert parts == pytest.approx(expected, rel=1e-4)


def test_losses_of_the_parts_of_a_batch_add_up_to_its_own():
    torch.manual_seed(0)
    people = [torch.tensor([[20.0, 20, 40, 69], [60, 30, 90, 103]]), NONE, torch.ones(1, 4) * 40]
    people[2][:, 2:] += 30
    maps = torch.randn(3, 1, 32, 32), torch.rand(3, 1, 32, 32), torch.randn(3, 2, 32, 32)
    whole = csp_targets(people, [NONE] * 3, (128, 128))
    totals = [whole.centres.sum(), whole.log_heights.isfinite().sum()]
    parts = []
    for some in (slice(0, 2), slice(2, 3)):
        here = people[some]
        targets = csp_targets(here, [NONE] * len(here), (128, 128))
        counts = iter(totals)
        own = tuple(each[some] for each in maps)
        parts.append(csp_loss(own, targets, of_all=lambda _, counts=counts: next(counts)))
    for name, value in csp_loss(maps, whole).items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)


def smooth(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def test_boxes_are_clipped_to_the_image():
    beyond = torch.tensor([[-9.0, 100, 20, 150], [200, 5, 230, 60], [-30, 5, 0, 60]])
    targets = csp_targets([beyond], [beyond], (128, 128))
    clipped = torch.tensor([[0.0, 100, 20, 128]])
    for one, other in zip(targets, csp_targets([clipped], [clipped], (128, 128)), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert targets.centres.sum() == 1


@pytest.mark.parametrize("side", (1, 2.2, 3, 4, 5, 6))
def test_boxes_as_low_as_a_cell_do_not_explode(side):
    box = torch.tensor([[41.0, 41, 41 + side, 41 + side]])
    targets = csp_targets([box], [NONE], (128, 128))
    maps = tuple(torch.zeros(1, n, 32, 32, requires_grad=True) for n in (1, 1, 2))
    loss = sum(csp_loss(maps, targets).values())
    loss.backward()
    assert loss.isfinite() and loss < 10
    assert all(part.grad.isfinite().all() for part in maps)


def test_perfect_maps_give_the_boxes_back():
    boxes = torch.tensor([[20.0, 20, 41, 70], [80, 31, 111, 105]])
    targets = csp_targets([boxes], [NONE], (128, 128))
    logits = torch.where(targets.centres, 9.0, -9.0)[:, None]
    maps = logits, targets.log_heights.nan_to_num()[:, None], targets.offsets.nan_to_num()
    found = decode(maps, (128, 128))[0]["boxes"]
    middles, expected = ((b[:, :2] + b[:, 2:]) / 2 for b in (found, boxes))
    # The published training takes the last pixel for the edge: half a pixel, and a pixel of height.
    torch.testing.assert_close(middles.sort(0)[0], expected - 0.5)
    heights = (found[:, 3] - found[:, 1]).sort()[0]
    torch.testing.assert_close(heights, torch.tensor([49.0, 73.0]))


def test_a_small_network_learns_two_boxes():
    torch.manual_seed(0)
    model = csp("resnet18", width=8, neck_width=8, head_width=8).train()
    images, boxes = torch.rand(2, 3, 128, 128), torch.tensor([[20.0, 20, 41, 70]])
    targets = csp_targets([boxes, boxes + 40], [NONE] * 2, (128, 128))
    optimizer, losses = torch.optim.Adam(model.parameters(), 2e-3), []
    for _ in range(25):
        loss = sum(csp_loss(model(images), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
