"""GAPNet, PermuteNet and the authors' checkpoints."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18 as torchvision_resnet18

from gpe.errors import InputError
from gpe.models import GAPNet, PermuteNet, ResNet, load_location_checkpoint, resnet18

IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny() -> ResNet:
    return ResNet((1, 1), width=8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Yields(nn.Module):
    """A backbone that yields ``value`` for all images."""

    def __init__(self, value: Any):
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Any:
        return self.value


class TestGAPNet:
    @pytest.mark.parametrize("stem", ["grid", "cifar", "imagenet"])
    def test_shape(self, stem: str):
        assert GAPNet(resnet18(width=2, stem=stem), 9)(IMAGES).shape == (3, 9)

    def test_is_convolution_and_mean(self):
        net = GAPNet(tiny(), 5).eval()
        weight, bias = net.classifier.weight, net.classifier.bias
        maps = F.conv2d(net.backbone(IMAGES), weight, bias, padding=1)
        torch.testing.assert_close(net(IMAGES), maps.sum((2, 3)) / maps[0, 0].numel())

    def test_standard_network(self):
        """ResNet-18 without its linear layer, and 3·3·512 weights and a bias for each cell."""
        net = GAPNet(resnet18(), 9)
        assert sum(p.numel() for p in net.parameters()) == 11_176_512 + 9 * (3 * 3 * 512 + 1)
        assert not any(isinstance(module, nn.Linear) for module in net.modules())

    @pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
    def test_padding_mode(self, padding_mode: str):
        """Only zeros let the convolution see the border of a constant map."""
        net = GAPNet(Yields(torch.ones(1, 8, 4, 4)), 5, channels=8, padding_mode=padding_mode)
        assert net.classifier.padding_mode == padding_mode
        inner, logits = net.classifier(torch.ones(1, 8, 4, 4))[:, :, 1, 1], net(IMAGES)
        assert torch.allclose(logits, inner, atol=1e-6) == (padding_mode != "zeros")

    def test_every_parameter_learns(self):
        net = GAPNet(tiny(), 5)
        net(IMAGES).square().sum().backward()
        assert all(parameter.grad.any() for parameter in net.parameters())

    def test_compiles_into_one_graph(self):
        net = GAPNet(tiny(), 5).eval()
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        assert torch.equal(compiled(IMAGES), net(IMAGES))


class TestPermuteNet:
    def test_is_mean_permutation_and_linear(self):
        """The whole batch under one permutation, drawn anew in every pass."""
        for training in (True, False):
            net = PermuteNet(tiny(), 5, generator=seeded(7)).train(training)
            draws = seeded(7)
            for _ in range(3):
                order = torch.randperm(16, generator=draws)
                pooled = net.backbone(IMAGES).mean((2, 3))
                expected = net.classifier(torch.stack([row[order] for row in pooled]))
                torch.testing.assert_close(net(IMAGES), expected)

    def test_evaluation_draws_anew(self):
        net = PermuteNet(tiny(), 5).eval()
        assert not torch.equal(net(IMAGES), net(IMAGES))

    def test_seed_decides(self):
        """The generator's seed alone: without one it is 0, whatever torch.manual_seed says."""
        net = PermuteNet(tiny(), 5).eval()
        runs = {}
        for seed in (0, 0, 1):
            net.generator.manual_seed(seed)
            runs.setdefault(seed, []).append(net(IMAGES))
        torch.manual_seed(3)
        fresh = PermuteNet(net.backbone, 5).eval()
        fresh.classifier = net.classifier
        assert torch.equal(*runs[0])
        assert torch.equal(fresh(IMAGES), runs[0][0])
        assert not torch.equal(runs[0][0], runs[1][0])

    def test_weights_that_are_constant_over_channels_see_no_permutation(self):
        """Nothing but the sum of the channels reaches such logits, and it has no order."""
        net = PermuteNet(tiny(), 5).eval()
        net.classifier.weight.data = torch.randn(5, 1).expand(5, 16).contiguous()
        torch.testing.assert_close(net(IMAGES), net(IMAGES))

    def test_fixed_permutation(self):
        """One permutation, drawn at construction and kept by the state dict."""
        net = PermuteNet(tiny(), 5, permutation="fixed", generator=seeded(7)).eval()
        order = torch.randperm(16, generator=seeded(7))
        pooled = net.backbone(IMAGES).mean((2, 3))
        assert torch.equal(net(IMAGES), net.classifier(pooled[:, order]))
        assert torch.equal(net(IMAGES), net(IMAGES))

        other = PermuteNet(tiny(), 5, permutation="fixed", generator=seeded(8)).eval()
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(IMAGES), net(IMAGES))

    def test_sorted_channels_are_a_set_and_their_mean_is_one_number(self):
        """Another order of the channels changes nothing; other channels of the same mean do."""
        for order, numbers in (("sorted", 16), ("mean", 1)):
            net = PermuteNet(tiny(), 5, permutation=order).eval()
            assert net.classifier.in_features == numbers
            maps = net.backbone(IMAGES)
            pooled = maps.mean((2, 3))
            seen = pooled.sort(1).values if order == "sorted" else pooled.mean(1, keepdim=True)
            torch.testing.assert_close(net(IMAGES), net.classifier(net.norm(seen)))
            shuffled = maps[:, torch.randperm(16, generator=seeded(1))]
            spread = maps + torch.linspace(-1, 1, 16)[:, None, None]
            for changed, same in ((shuffled, True), (spread, order == "mean")):
                net.backbone.forward = lambda images, changed=changed: changed
                close = torch.allclose(net(IMAGES), net.classifier(net.norm(seen)), atol=1e-5)
                assert close is same

    def test_resumes_bit_for_bit(self, tmp_path: Path):
        net = PermuteNet(tiny(), 5, generator=seeded(7)).eval()
        net(IMAGES)
        torch.save(net.state_dict(), tmp_path / "net.pt")
        expected = [net(IMAGES) for _ in range(3)]

        resumed = PermuteNet(tiny(), 5).eval()
        resumed.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
        assert all(torch.equal(resumed(IMAGES), logits) for logits in expected)

    def test_deep_copy_draws_the_same_by_itself(self):
        net = PermuteNet(tiny(), 5).eval()
        twin = copy.deepcopy(net)
        expected = [net(IMAGES) for _ in range(3)]
        assert all(torch.equal(twin(IMAGES), logits) for logits in expected)

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    def test_compiled_network_draws_anew(self, backend: str):
        net = PermuteNet(tiny(), 5, generator=seeded(7)).eval()
        expected = [net(IMAGES) for _ in range(3)]
        net.generator.manual_seed(7)
        compiled = torch.compile(net, backend=backend)
        torch.testing.assert_close([compiled(IMAGES) for _ in range(3)], expected)

    def test_default_device_is_not_where_permutations_are_drawn(self):
        """As after torch.set_default_device("cuda"): the generator stays on the CPU."""
        net = PermuteNet(tiny(), 5)
        with torch.device("meta"):
            assert net(IMAGES).device.type == "cpu"

    def test_every_parameter_learns(self):
        net = PermuteNet(tiny(), 5)
        net(IMAGES).square().sum().backward()
        assert all(parameter.grad.any() for parameter in net.parameters())


class TestBackbones:
    """What both networks share is tested on GAPNet."""

    def test_timm_in_every_form(self):
        """Bare trunk, classifier and list of maps: the same weights give the same logits."""
        classifier = timm.create_model("resnet18", pretrained=False)
        expected = GAPNet(classifier, 5).eval()
        for options in ({"num_classes": 0, "global_pool": ""}, {"features_only": True}):
            backbone = timm.create_model("resnet18", pretrained=False, **options)
            backbone.load_state_dict(classifier.state_dict(), strict=False)
            net = GAPNet(backbone, 5).eval()
            net.classifier = expected.classifier
            assert net.channels == 512
            assert torch.equal(net(IMAGES), expected(IMAGES))

    @pytest.mark.parametrize("features_only", [False, True])
    def test_timm_with_channels_last_shape(self, features_only: bool):
        """Swin yields [N,H,W,C]."""
        size = {"img_size": 64, "window_size": 2, "embed_dim": 4}
        depth = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
        name, form = "swin_tiny_patch4_window7_224", {"features_only": features_only}
        swin = timm.create_model(name, pretrained=False, **form, **size, **depth).eval()
        net, images = GAPNet(swin, 5), torch.rand(2, 3, 64, 64)
        maps = swin(images)[-1] if features_only else swin.forward_features(images)
        assert maps.shape == (2, 2, 2, 32)
        expected = net.classifier(maps.permute(0, 3, 1, 2)).mean((2, 3))
        torch.testing.assert_close(net(images), expected)

    def test_compiles_with_forward_features(self):
        net = GAPNet(timm.create_model("resnet18", pretrained=False), 5).eval()
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        assert torch.equal(compiled(IMAGES), net(IMAGES))

    def test_torchvision_trunk(self):
        trunk = nn.Sequential(*list(torchvision_resnet18().children())[:-2])
        assert GAPNet(trunk, 9, channels=512)(IMAGES).shape == (3, 9)

    def test_tokens_are_no_feature_map(self):
        options = {"img_size": 48, "depth": 1, "embed_dim": 12, "num_heads": 1}
        vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)
        message = r"map \[N,12,H,W\], got \[3, 10, 12\] from VisionTransformer"
        for network in (GAPNet, PermuteNet):
            with pytest.raises(InputError, match=message):
                network(vit, 5)(IMAGES)

    @pytest.mark.parametrize(
        ("value", "came"),
        [
            (torch.zeros(1, 8), r"\[1, 8\]"),
            (torch.zeros(1, 7, 4, 4), r"\[1, 7, 4, 4\]"),
            ({"out": None}, "NoneType"),
        ],
    )
    def test_no_such_feature_map(self, value: Any, came: str):
        with pytest.raises(InputError, match=rf"map \[N,8,H,W\], got {came} from Yields"):
            GAPNet(Yields(value), 5, channels=8)(IMAGES)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GAPNet(nn.Identity(), 9), "channels: expected .* Identity does not tell"),
        (lambda: PermuteNet(nn.Identity(), 9), "channels: expected .* Identity does not tell"),
        (lambda: GAPNet(tiny(), 0), "num_classes: expected at least 1, got 0"),
        (lambda: PermuteNet(tiny(), 0), "num_classes: expected at least 1, got 0"),
        (lambda: GAPNet(tiny(), 9, padding_mode="same"), "padding_mode: .* got 'same'"),
        (
            lambda: PermuteNet(tiny(), 9, permutation="none"),
            "permutation: expected one of random, fixed, sorted, mean, got 'none'",
        ),
    ],
)
def test_bad_arguments(build: Callable[[], nn.Module], message: str):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestPermuteNetOnGPU:
    def test_draws_as_on_the_cpu(self):
        """In float64, so that TF32 does not blur it; the state may come from a GPU."""
        net = PermuteNet(tiny(), 9).double().eval()
        on_gpu = copy.deepcopy(net).cuda()
        on_gpu.load_state_dict({name: value.cuda() for name, value in net.state_dict().items()})
        for _ in range(2):
            logits = on_gpu(IMAGES.double().cuda()).cpu()
            torch.testing.assert_close(logits, net(IMAGES.double()))

    def test_generator_has_to_be_on_the_cpu(self):
        with pytest.raises(InputError, match="generator: expected one on the CPU, got cuda"):
            PermuteNet(tiny(), 9, generator=torch.Generator("cuda"))


class AuthorsBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int, padding_mode: str):
        super().__init__()
        padded = {"padding": 1, "padding_mode": padding_mode, "bias": False}
        self.conv1 = nn.Conv2d(before, after, 3, stride, **padded)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, **padded)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride == 2 or before != after:
            projection = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class AuthorsNet(nn.Module):
    """The authors' networks after ../shared/paper/FACTS.md: their names, our words."""

    def __init__(self, width: int, num_classes: int, *, gapnet: bool, padding_mode: str = "zeros"):
        super().__init__()
        padding = {"padding": 3, "padding_mode": padding_mode, "bias": False}
        self.conv1 = nn.Conv2d(3, width, 7, 2, **padding)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.layer1 = self.stage(width, widths[0], 1, padding_mode)
        self.layer2 = self.stage(widths[0], widths[1], 2, padding_mode)
        self.layer3 = self.stage(widths[1], widths[2], 2, padding_mode)
        self.layer4 = self.stage(widths[2], widths[3], 2, padding_mode)
        if gapnet:
            self.pre_classifier = nn.Conv2d(
                widths[3], num_classes, 3, padding=1, padding_mode=padding_mode
            )
        self.linear_location = nn.Linear(widths[3], num_classes)
        self.gapnet = gapnet

    def stage(self, before: int, after: int, stride: int, padding_mode: str) -> nn.Sequential:
        first = AuthorsBlock(before, after, stride, padding_mode)
        return nn.Sequential(first, AuthorsBlock(after, after, 1, padding_mode))

    def forward(self, images: Tensor, permutation: Tensor | None = None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.gapnet:
            return F.adaptive_avg_pool2d(self.pre_classifier(x), 1).flatten(1)
        return self.linear_location(F.adaptive_avg_pool2d(x, 1).flatten(1)[:, permutation])


def trained(net: AuthorsNet) -> AuthorsNet:
    """``net`` with batch norms as training might have left them, in evaluation mode."""
    random = seeded(1)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(generator=random)
        norm.running_var.uniform_(0.5, 2, generator=random)
        norm.weight.data.uniform_(0.5, 2, generator=random)
        norm.bias.data.normal_(generator=random)
        norm.num_batches_tracked.fill_(20_840)
    return net.eval()


def save(path: Path, net: dict[str, Tensor]) -> Path:
    torch.save({"net": net, "acc": 99.9, "epoch": 19}, path)
    return path


class TestAuthorsCheckpoints:
    @pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
    def test_gapnet(self, tmp_path: Path, padding_mode: str):
        theirs = trained(AuthorsNet(8, 25, gapnet=True, padding_mode=padding_mode))
        path = save(tmp_path / "ckpt.pth", theirs.state_dict())
        ours = load_location_checkpoint(path, padding_mode=padding_mode)
        assert isinstance(ours, GAPNet)
        assert torch.equal(ours(IMAGES), theirs(IMAGES))

    def test_permutenet(self, tmp_path: Path):
        theirs = trained(AuthorsNet(8, 49, gapnet=False))
        ours = load_location_checkpoint(save(tmp_path / "ckpt.pth", theirs.state_dict()))
        assert isinstance(ours, PermuteNet)
        draws = seeded(0)
        for _ in range(2):
            order = torch.randperm(64, generator=draws)
            assert torch.equal(ours(IMAGES), theirs(IMAGES, order))

    @pytest.mark.parametrize("gapnet", [True, False])
    def test_data_parallel_and_old_torch(self, tmp_path: Path, gapnet: bool):
        """DataParallel's ``module.`` goes; ``num_batches_tracked`` is not missed."""
        net = trained(AuthorsNet(4, 9, gapnet=gapnet)).state_dict()
        plain = load_location_checkpoint(save(tmp_path / "plain.pth", net))
        net = {f"module.{name}": net[name] for name in net if "num_batches" not in name}
        other = load_location_checkpoint(save(tmp_path / "other.pth", net))
        assert torch.equal(other(IMAGES), plain(IMAGES))

    def test_can_be_trained_on(self, tmp_path: Path):
        net = trained(AuthorsNet(8, 9, gapnet=True)).state_dict()
        ours = load_location_checkpoint(save(tmp_path / "ckpt.pth", net)).train()
        ours(IMAGES).square().sum().backward()
        assert all(parameter.grad.any() for parameter in ours.parameters())

    def test_leaves_the_random_state_alone(self, tmp_path: Path):
        path = save(tmp_path / "ckpt.pth", AuthorsNet(4, 9, gapnet=True).state_dict())
        before = torch.get_rng_state()
        load_location_checkpoint(path)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda net: [net.pop(name) for name in list(net) if "layer2" in name],
                r"layer2.0.conv1.weight, .* and 22 more missing$",
            ),
            (
                lambda net: net.update({"fc.weight": torch.zeros(9, 4)}),
                "another network: fc.weight unexpected$",
            ),
            (
                lambda net: net.update({"conv1.weight": torch.zeros(4, 3, 3, 3)}),
                r"conv1.weight \[4, 3, 3, 3\] where \[4, 3, 7, 7\] is due of another shape$",
            ),
            (lambda net: net.clear(), "no tensors under net, acc, epoch$"),
            (
                lambda net: net.update({"conv1.weight": torch.tensor(1.0)}),
                r"conv1.weight \[\] where",
            ),
        ],
    )
    def test_another_network(self, tmp_path: Path, change: Callable, message: str):
        net = dict(AuthorsNet(4, 9, gapnet=False).state_dict())
        change(net)
        path = save(tmp_path / "ckpt.pth", net)
        with pytest.raises(InputError, match=f"path: expected {path} to hold .*{message}"):
            load_location_checkpoint(path)

    @pytest.mark.parametrize(
        ("content", "came"),
        [
            ([1, 2], "a list"),
            ({"model_state": {}, "epoch": 1}, "no tensors under model_state, epoch"),
            ({"net": {"conv1.weight": 3}}, "no tensors under net"),
        ],
    )
    def test_another_kind_of_file(self, tmp_path: Path, content: Any, came: str):
        path = tmp_path / "ckpt.pth"
        torch.save(content, path)
        with pytest.raises(InputError, match=f"path: expected {path} to hold .* got {came}$"):
            load_location_checkpoint(path)

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 nor a zip archive"])
    def test_no_torch_file(self, tmp_path: Path, content: bytes):
        path = tmp_path / "ckpt.pth"
        path.write_bytes(content)
        message = f"path: expected {path} to hold weights, got (an empty|what cannot)"
        with pytest.raises(InputError, match=message):
            load_location_checkpoint(path)

    def test_no_file(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"path: there is no .*ckpt\.pth"):
            load_location_checkpoint(tmp_path / "ckpt.pth")
        with pytest.raises(InputError, match="to hold weights, got a directory"):
            load_location_checkpoint(tmp_path)

    def test_unknown_padding_mode(self, tmp_path: Path):
        path = save(tmp_path / "ckpt.pth", AuthorsNet(4, 9, gapnet=True).state_dict())
        with pytest.raises(InputError, match="padding_mode: expected one of zeros"):
            load_location_checkpoint(path, padding_mode="same")
