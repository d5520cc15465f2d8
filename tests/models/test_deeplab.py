"""DeepLabv3: torchvision's network where torchvision has it, and the same rules where not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gpe.errors import InputError
from gpe.models.deeplab import deeplabv3, load_deeplab_checkpoint, low_resolution_logits

IMAGES = (2, 3, 64, 96)


def tiny(**options):
    torch.manual_seed(0)
    return deeplabv3("resnet18", 4, width=8, **options).eval()


def renamed_as_the_authors(weights):
    return {name.replace("classifier.", "classifier.classifier."): v for name, v in weights.items()}


@pytest.fixture(scope="module")
def torchvisions():
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(0)
    net = deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=19, aux_loss=True
    ).eval()
    for module in net.modules():  # or else dead batch norms would hide what precedes them
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize("stride", (8, 16))
@pytest.mark.parametrize("backbone", ("resnet18", "resnet50"))
def test_the_feature_map_has_the_output_stride(backbone, stride):
    net = deeplabv3(backbone, 4, output_stride=stride, width=8).eval()
    images = torch.rand(IMAGES)
    features = net.backbone(images)["out"]
    assert features.shape == (
        2,
        64 * (4 if backbone == "resnet50" else 1),
        64 // stride,
        96 // stride,
    )
    assert low_resolution_logits(net, images).shape == (2, 4, 64 // stride, 96 // stride)
    assert net(images)["out"].shape == (2, 4, 64, 96)


@pytest.mark.parametrize("backbone", ("resnet18", "resnet50"))
def test_dilation_only_adds_pixels(backbone):
    """Every second pixel at stride 8 is a pixel at stride 16.

    But for rounding: a dilated and a plain convolution may add their terms, here at most 576, in
    different orders, which errs by at most 576 units in the last place of the largest feature in
    each of 53 layers. In float32 (2⁻²⁴) that bound would hide a mistake; in float64 it is 3e-12.
    """
    torch.manual_seed(0)
    coarse = deeplabv3(backbone, 4, output_stride=16, width=8).double().eval()
    fine = deeplabv3(backbone, 4, output_stride=8, width=8).double().eval()
    fine.load_state_dict(coarse.state_dict())
    images = torch.rand(IMAGES, dtype=torch.float64)
    expected = coarse.backbone(images)["out"]
    close = {"rtol": 0, "atol": 53 * 576 * 2**-53 * expected.abs().max().item()}
    torch.testing.assert_close(fine.backbone(images)["out"][..., ::2, ::2], expected, **close)


def test_low_resolution_logits_are_what_is_upsampled():
    net, images = tiny(), torch.rand(IMAGES)
    upsampled = F.interpolate(low_resolution_logits(net, images), IMAGES[2:], mode="bilinear")
    torch.testing.assert_close(upsampled, net(images)["out"], rtol=0, atol=0)


def test_torchvisions_weights_give_torchvisions_outputs(torchvisions, tmp_path):
    torch.save(torchvisions.state_dict(), tmp_path / "deeplab.pth")
    net = load_deeplab_checkpoint(tmp_path / "deeplab.pth")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(images)["out"], torchvisions(images)["out"])


def test_the_authors_checkpoint_has_stride_16(torchvisions, tmp_path):
    weights = renamed_as_the_authors(
        {n: v for n, v in torchvisions.state_dict().items() if not n.startswith("aux")}
    )
    torch.save(
        {"model_state": weights, "optimizer_state": {"lr": 0.1}, "best_score": 0.74},
        tmp_path / "theirs.pth",
    )
    net = load_deeplab_checkpoint(tmp_path / "theirs.pth")
    assert net.backbone(torch.rand(1, 3, 64, 64))["out"].shape == (1, 2048, 4, 4)
    assert [conv[0].dilation[0] for conv in list(net.classifier[0].convs)[1:4]] == [6, 12, 18]
    assert not net.training
    torch.testing.assert_close(
        net.classifier[4].weight, torchvisions.classifier[4].weight, rtol=0, atol=0
    )


@pytest.mark.parametrize("form", ("bare", "model", "module."))
def test_narrow_weights_load_in_every_form(tmp_path, form):
    net = tiny(output_stride=8)
    weights = net.state_dict()
    if form == "model":
        weights = {"model": weights, "epoch": 3}
    elif form == "module.":
        weights = {"model_state": nn.DataParallel(net).state_dict(), "output_stride": 8}
    torch.save(weights, tmp_path / "net.pth")
    images = torch.rand(IMAGES)
    loaded = load_deeplab_checkpoint(tmp_path / "net.pth")
    torch.testing.assert_close(loaded(images)["out"], net(images)["out"], rtol=0, atol=0)


def test_another_architecture_is_refused_by_its_names(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"another network: backbone.conv1.weight, .* missing; "):
        load_deeplab_checkpoint(tmp_path / "net.pth")
    weights = tiny().state_dict()
    weights["classifier.1.weight"] = torch.zeros(2, 2, 3, 3)
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"classifier.1.weight \[2, 2, 3, 3\] where \[32, 32"):
        load_deeplab_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"no checkpoint", "what cannot be read"),
        ([1, 2], "a list"),
        ({"model_state": 3}, "no tensors under model_state"),
        ({"epoch": 3}, "no tensors under epoch"),
    ),
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    path = tmp_path / "file.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=f"path: expected .* got .*{message}"):
        load_deeplab_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"backbone": "vgg"}, "backbone: expected one of resnet18, resnet50, got 'vgg'"),
        ({"output_stride": 32}, "output_stride: expected 8 or 16, got 32"),
        ({"num_classes": 0}, "num_classes: expected at least 1, got 0"),
        ({"width": 0}, "width: expected at least 1, got 0"),
    ),
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        deeplabv3(**options)
