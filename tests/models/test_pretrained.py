"""open_model: torchvision's and timm's classifiers, their weights and preprocessing."""

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
