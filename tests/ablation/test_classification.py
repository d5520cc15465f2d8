"""The sweep of a classifier's latents: the answers that zeroing and running again yields."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gpe
from gpe.ablation import classification as module
from gpe.ablation import classifier_sweep, random_orders
from gpe.ablation.classification import answers_sweep, logits_without
from gpe.ablation.plan import make_plan
from gpe.errors import InputError
from gpe.models import Classifier, resnet18
from gpe.models.head import split_classifier

WIDTH, CLASSES = 64, 10


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Classifier(resnet18(width=8, stem="cifar"), CLASSES).double()
    images = torch.rand(16, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(20):  # batch norms that fit, so that the answers differ
            net(images)
        nn.init.normal_(net.head.weight)
        latents = net.eval().forward_features(images).mean((0, 2, 3))
        net.head.bias.copy_(-net.head.weight @ latents)  # or all images would get one answer
    return net


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_count_and_range_is_what_zeroing_and_running_again_yields(net, images, dtype):
    net, images = net.to(dtype), images.to(dtype)
    trunk, head, _ = split_classifier(net, images[:2])
    plan = make_plan(random_orders(WIDTH, 2), [0, 1, 7, 40, 63, 64], [(0, 5), (5, 60), (8, 9)], 64)
    with torch.no_grad():
        found = dict(logits_without(trunk(images), head, plan))
        assert sorted(found) == list(range(len(plan.variants)))
        for variant, logits in found.items():
            with gpe.ablated(net, "backbone", plan.channels(variant)):
                expected = net(images)
            tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
            torch.testing.assert_close(
                logits, expected, rtol=0, atol=tolerance * expected.abs().max().item()
            )
    net.double()


def test_rows_are_the_accuracies_of_the_general_sweep(net, images, monkeypatch):
    """Which counts confusions of any layer, and so of the one before the pooling."""
    monkeypatch.setattr(module, "AT_ONCE", 5)
    trunk, head, _ = split_classifier(net, images[:2])
    with torch.no_grad():
        labels = net(images).argmax(1)
        labels[::3] = (labels[::3] + 1) % CLASSES  # not all are right
        options = {"counts": 16, "ranges": 16}
        result = classifier_sweep(trunk(images), labels, head, random_orders(WIDTH, 2), **options)
    expected = gpe.ablation_sweep(
        net,
        [(images, labels)],
        random_orders(WIDTH, 2),
        layer="backbone",
        regions=["full"],
        num_classes=CLASSES,
        **options,
    )
    assert result.points == expected.points and result.right.shape == (18, len(images))
    accuracies = []
    for row, other in zip(result.rows, expected.rows, strict=True):
        assert row["accuracy"] == int(other["confusion"].diagonal().sum()) / len(images)
        accuracies.append(row["accuracy"])
    assert accuracies[0] == 8 / 12 and len(set(accuracies)) > 2


def test_where_all_channels_are_removed_the_bias_answers():
    head = nn.Linear(3, 2)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, 1.0]))
    labels = torch.tensor([1, 1, 0, 1])
    result = classifier_sweep(torch.randn(4, 3), labels, head, {"a": range(3)}, counts=[3])
    assert [row["accuracy"] for row in result.rows] == [0.75]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"latents": torch.zeros(2, 5)}, r"latents: expected floating \[N,4\]"),
            ({"latents": torch.zeros(0, 4)}, "of one image or more"),
            ({"latents": torch.tensor([[0, 1, float("nan"), 0]] * 2)}, "latents: expected finite"),
            ({"labels": torch.tensor([0])}, r"labels: expected torch.int64 \[2\]"),
            ({"labels": torch.tensor([0, 3])}, "labels: expected classes from 0 to 2"),
            ({"rankings": {"a": range(3)}}, "to rank the 4 channels"),
            ({"counts": [5]}, "counts: expected each once, from 0 to 4"),
        ],
    )
    def test_one_message(self, changes, message):
        arguments = {
            "latents": torch.zeros(2, 4),
            "labels": torch.tensor([0, 1]),
            "head": nn.Linear(4, 3),
            "rankings": {"a": range(4)},
            "counts": [2],
        }
        with pytest.raises(InputError, match=message):
            classifier_sweep(**arguments | changes)


class TestSplit:
    @pytest.mark.parametrize(
        ("name", "layer"),
        [
            ("torchvision/resnet18", "fc"),
            ("torchvision/mobilenet_v3_small", "classifier.3"),
            ("timm/vit_tiny_patch16_224", "head"),
        ],
    )
    def test_both_parts_are_the_whole_and_share_its_weights(self, name, layer):
        from gpe.models.pretrained import open_model

        torch.manual_seed(0)
        opened = open_model(name, weights="random")
        images = torch.rand(1, 3, 224, 224)
        trunk, head, found = split_classifier(opened.model, images)
        assert found == layer
        with torch.no_grad():
            torch.testing.assert_close(
                F.linear(trunk(images), head.weight, head.bias), opened.model(images)
            )
        shared = {id(parameter) for parameter in opened.model.parameters()}
        assert {id(parameter) for parameter in trunk.parameters()} < shared
        assert not any(module._forward_hooks for module in opened.model.modules())

    @pytest.mark.parametrize("bf16", [False, True])
    @pytest.mark.parametrize("kind", ["convolution", "norm", "mean of two"])
    def test_heads_that_are_a_linear_map(self, kind, bf16):
        class Distilled(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))
                self.b = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))

            def forward(self, latents):
                return (self.a(latents) + self.b(latents)) / 2

        torch.manual_seed(0)
        pooled = [nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        head = {
            "convolution": [nn.Conv2d(6, 4, 1), nn.Flatten()],
            "norm": [nn.Flatten(), nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))],
            "mean of two": [nn.Flatten(), Distilled()],
        }[kind]
        net, images = nn.Sequential(*pooled, *head), torch.rand(8, 3, 4, 4)
        for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm1d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        net.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            trunk, linear, layer = split_classifier(net, images)
            latents = net[:3](images).flatten(1)
            torch.testing.assert_close(trunk(images), latents)
        if not bf16:
            with torch.no_grad():
                torch.testing.assert_close(linear(latents), net(images))
        assert layer == {"convolution": "3", "norm": "4", "mean of two": "4"}[kind]
        assert linear.weight.dtype == torch.float32

    @pytest.mark.parametrize("name", ["timm/levit_128s", "timm/dla34", "timm/efficientformerv2_s0"])
    def test_distilled_and_convolutional_networks(self, name):
        from gpe.models.pretrained import open_model

        torch.manual_seed(0)
        net = open_model(name, weights="random").model
        images = torch.rand(2, 3, 224, 224)
        with torch.no_grad():
            trunk, head, _ = split_classifier(net, images)
            torch.testing.assert_close(head(trunk(images)), net(images), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", ["squeezenet1_1", "timm/deit_tiny_distilled_patch16_224"])
    def test_networks_without_one_linear_head_are_refused(self, name):
        from gpe.models.pretrained import open_model

        net = open_model(name, weights="random").model
        with pytest.raises(InputError, match=r"logits are a linear map of latents \[N,C\]"):
            split_classifier(net, torch.rand(1, 3, 224, 224))

    def test_logits_that_are_pooled(self):
        net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with pytest.raises(InputError, match="a linear map of latents"):
            split_classifier(net, torch.zeros(1, 3, 4, 4))

    def test_a_linear_layer_of_a_kind_of_its_own(self):
        class Cosine(nn.Linear):
            def forward(self, latents):
                return F.linear(F.normalize(latents), F.normalize(self.weight))

        net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Cosine(3, 4))
        with pytest.raises(InputError, match="a linear map of latents"):
            split_classifier(net, torch.rand(1, 3, 4, 4))


def test_labels_that_would_be_broadcast_are_refused():
    net, images = nn.Sequential(nn.Identity(), nn.Flatten()), torch.eye(3)[..., None, None]
    with pytest.raises(InputError, match=r"batches: expected labels \[3\], got \[1\]"):
        answers_sweep(
            net, [(images, torch.tensor([0]))], {"first": range(3)}, layer="0", counts=[1]
        )
