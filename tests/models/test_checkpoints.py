"""read_checkpoint: what training scripts save, what is hostile, what is damaged."""

import argparse
import collections
import datetime
import os
import pathlib
import struct
import subprocess
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from gpe.errors import InputError
from gpe.models import load_deeplab_checkpoint, open_model
from gpe.models.checkpoints import fit, read_checkpoint, read_file
from gpe.models.deeplab import deeplabv3

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}
AVERAGE = {name: value / 2 for name, value in STATE.items()}


def saved(path: Path, content: object, **options) -> Path:
    torch.save(content, path, **options)
    return path


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class TestWrappers:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        ("content", "taken"),
        [
            (STATE, ""),
            *[({key: STATE, "epoch": 3}, key) for key in (
                "state_dict", "model", "model_state", "model_state_dict", "net", "ema",
                "state_dict_ema", "model_ema", "module", "generator",
            )],
            ({"model": {"state_dict": STATE}, "epoch": 3}, "model.state_dict"),
            ({"ema": {"module": STATE, "decay": 0.9}, "model": None}, "ema.module"),
            ({"ema": 0.9, "model_ema": {}, "model": STATE, "loss": torch.ones(())}, "model"),
            ({"network": STATE, "optimizer": {"state": {"a": {"exp": torch.ones(1)}}}}, "network"),
        ],
    )  # fmt: skip
    def test_taken(self, tmp_path, content, taken, zipped):
        path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=zipped)
        checkpoint = read_checkpoint(path)
        assert_same(checkpoint.weights, STATE)
        assert (checkpoint.taken, checkpoint.note) == (taken, "")
        assert checkpoint.extras.get("epoch") == (content.get("epoch"))

    @pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
    def test_the_averaged_ones_unless_others_are_asked_for(self, tmp_path, keys):
        path = saved(tmp_path / "a.pth", {keys[0]: STATE, keys[1]: AVERAGE})
        checkpoint = read_checkpoint(path)
        assert_same(checkpoint.weights, AVERAGE)
        assert checkpoint.note == f"weights under {keys[1]}, not {keys[0]}"
        assert_same(read_checkpoint(path, averaged=False).weights, STATE)

    def test_two_networks_are_refused(self, tmp_path):
        path = saved(tmp_path / "a.pth", {"generator": STATE, "critic": STATE})
        with pytest.raises(InputError, match="weights of one network, got those of generator, cri"):
            read_checkpoint(path)

    def test_safetensors_by_content_with_metadata(self, tmp_path):
        for name in ("a.safetensors", "b.bin"):
            safetensors.torch.save_file(STATE, tmp_path / name, metadata={"arch": "x"})
            checkpoint = read_checkpoint(tmp_path / name)
            assert_same(checkpoint.weights, STATE)
            assert checkpoint.extras == {"arch": "x"}
        assert_same(read_checkpoint(saved(tmp_path / "c.safetensors", STATE)).weights, STATE)

    @pytest.mark.parametrize("end", [".pth", ".safetensors"])
    def test_names_that_are_not_utf8(self, tmp_path, end):
        path = tmp_path / os.fsdecode(b"\xff\n[v2]" + end.encode())
        with path.open("wb") as file:
            if end == ".pth":
                torch.save(STATE, file)
            else:
                file.write(safetensors.torch.save(STATE))
        assert_same(read_checkpoint(path).weights, STATE)
        path.write_bytes(b"x")
        with pytest.raises(InputError) as raised:
            read_checkpoint(path)
        assert str(raised.value).isprintable()


class TestPrefixes:
    @pytest.mark.parametrize(
        "prefix",
        ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "model._orig_mod.",
         "module.model.", "net.module.", "backbone."],
    )  # fmt: skip
    @pytest.mark.parametrize("count", [(), ("n_averaged",), ("model.n_averaged",)])
    def test_stripped(self, prefix, count):
        weights = {f"{prefix}{name}": value for name, value in STATE.items()}
        weights |= dict.fromkeys(count, torch.tensor(3))
        assert_same(fit(weights, STATE), STATE)

    def test_of_compiled_parts(self):
        weights = {f"a._orig_mod.{n}": v for n, v in STATE.items()} | {
            "b.module.x": STATE["conv.bias"]
        }
        assert list(fit(weights, ["a.conv.weight", "a.conv.bias", "b.x"]))[1:] == [
            "a.conv.bias",
            "b.x",
        ]

    @pytest.mark.parametrize("own", ["module.", "model.", "_orig_mod.", "n_averaged."])
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model."])
    def test_the_networks_own_names_stay(self, own, prefix):
        expected = {f"{own}{name}": value for name, value in STATE.items()}
        weights = {f"{prefix}{name}": value for name, value in expected.items()}
        assert_same(fit(weights, expected), expected)

    def test_a_prefix_that_not_all_share_stays(self):
        weights = {"model.conv.weight": STATE["conv.weight"], "conv.bias": STATE["conv.bias"]}
        assert fit(weights, STATE).keys() == weights.keys()

    @pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
    def test_weights_of_a_loss_beside_the_network_are_left_out(self, prefix):
        weights = {f"{prefix}{name}": value for name, value in STATE.items()}
        weights |= {"criterion.weight": torch.ones(3), "metric.total": torch.ones(1)}
        with pytest.warns(UserWarning, match=r"criterion\.weight, metric\.total are of no part"):
            assert_same(fit(weights, STATE), STATE)
        two = weights | {f"teacher.{name}": value for name, value in STATE.items()}
        assert fit(two, STATE).keys() == two.keys()

    @pytest.mark.parametrize("kind", ["data parallel", "compiled", "averaged", "lightning"])
    def test_into_a_network(self, tmp_path, kind):
        torch.manual_seed(0)
        net = open_model("timm/test_resnet", weights="random").model
        wrapped = {
            "data parallel": nn.DataParallel,
            "compiled": torch.compile,
            "averaged": torch.optim.swa_utils.AveragedModel,
            "lightning": lambda model: nn.ModuleDict({"model": model}),
        }[kind](net)
        path = saved(tmp_path / "a.ckpt", {"state_dict": wrapped.state_dict()})
        loaded = open_model("timm/test_resnet", weights=path).model
        images = torch.rand(1, 3, 64, 64)
        assert torch.equal(loaded(images), net(images))


class TestInertData:
    def test_of_training_scripts(self, tmp_path):
        extras = {
            "best_score": np.float64(0.5),
            "seen": np.int64(3),
            "done": np.bool_(True),
            "word": np.str_("abc"),
            "args": argparse.Namespace(model="x", output=pathlib.PurePosixPath("/a")),
            "when": datetime.datetime(2020, 1, 2),
            "took": datetime.timedelta(seconds=3),
            "log": collections.defaultdict(list, {"a": [1]}),
            "version": torch.__version__,
            "root": Path("data"),
        }
        checkpoint = read_checkpoint(saved(tmp_path / "a.pth", {"model_state": STATE} | extras))
        assert_same(checkpoint.weights, STATE)
        assert checkpoint.extras == {**extras, "root": pathlib.PurePosixPath("data")}
        assert type(checkpoint.extras["best_score"]) is float

    def test_numpy_of_either_version(self, tmp_path):
        """Of numpy 1 the same names lie in numpy.core."""
        saved(tmp_path / "a.pth", {"net": STATE, "best": np.float32(0.5)})
        with (
            zipfile.ZipFile(tmp_path / "a.pth") as old,
            zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(b"numpy._core.", b"numpy.core."))
        assert read_checkpoint(tmp_path / "b.pth").extras == {"best": 0.5}

    def test_arrays(self, tmp_path):
        arrays = {name: np.asfortranarray(value.numpy()) for name, value in STATE.items()}
        path = saved(tmp_path / "a.pth", {"model": arrays, "table": np.arange(6, dtype=">i4")})
        checkpoint = read_checkpoint(path)
        assert_same(checkpoint.weights, STATE)
        assert checkpoint.extras["table"].value.tolist() == list(range(6))

    def test_the_safe_list_of_others_is_left_alone(self, tmp_path):
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(saved(tmp_path / "a.pth", STATE))
        assert set(torch.serialization.get_safe_globals()) == before

    def test_the_authors_deeplab(self, tmp_path):
        net = deeplabv3("resnet18", 4, width=8).eval()
        images = torch.rand(1, 3, 64, 64)
        for key in ("model_state", "state_dict", "model_ema"):
            weights = {f"module.{name}": value for name, value in net.state_dict().items()}
            content = {key: weights, "best_score": np.float64(0.5), "output_stride": 16}
            loaded = load_deeplab_checkpoint(saved(tmp_path / "a.pth", content))
            assert torch.equal(loaded(images)["out"], net(images)["out"])

    @pytest.mark.parametrize("stride", ["x", [8], torch.ones(3), 4])
    def test_another_output_stride(self, tmp_path, stride):
        content = {"model": deeplabv3("resnet18", 4, width=8).state_dict(), "output_stride": stride}
        with pytest.raises(InputError, match="output_stride: expected 8 or 16"):
            load_deeplab_checkpoint(saved(tmp_path / "a.pth", content))


class Runs:
    """Executes a command where it is unpickled by other means."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Calls(Runs):
    def __reduce__(self):
        return subprocess.call, (["touch", str(self.path)],)


class Evaluates(Runs):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w')",)


class Attribute(Runs):
    def __reduce__(self):
        return getattr, (str(self.path), "upper")


class Objects:
    """A numpy scalar of objects."""

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], (np.dtype("O"), b"12345678")


class TestHostile:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (Runs, "posix.system"),
            (Calls, r"\w+\.call"),
            (Evaluates, "eval"),
            (Attribute, "getattr"),
            (lambda path: nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        ],
    )
    def test_nothing_is_executed(self, tmp_path, kind, name, zipped):
        trace, path = tmp_path / "trace", tmp_path / "a.pth"
        content = {"model": STATE, "x": kind(trace)}
        saved(path, content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=f"got more than that: {name}, which is not exec"):
            read_checkpoint(path)
        assert not trace.exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (3, "a int"),
            ([STATE], "a list"),
            ({}, "an empty dict"),
            ({"epoch": 3}, "no tensors under epoch"),
            ({3: torch.ones(1)}, "no tensors under 3"),
            ({b"a": torch.ones(1)}, "no tensors under b'a'"),
            ({"a\n\udcff": 1, "x" * 500: 2}, r"no tensors under a\\n\\udcff, x{99}…$"),
            ({"model": {"a": 1, "b": torch.ones(1)}}, "no tensors under a"),
            ({"a": torch.ones(1, device="meta")}, "without data, under a"),
            ({"a": torch.eye(2).to_sparse()}, "sparse"),
            ({"a": Objects()}, "what cannot be read: ValueError: .*'O8'"),
        ],
    )
    def test_no_weights(self, tmp_path, content, message):
        path = saved(tmp_path / "a.pth", content)
        with pytest.raises(InputError, match=f"path: expected .* to hold weights, got .*{message}"):
            read_checkpoint(path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"x",
            b"PK\x03\x04 no archive",
            b"\x80\x02",
            b"\x80\x02garbage",
            struct.pack("<Q", 2**63) + b"{",
            struct.pack("<Q", 2**40) + b"{}",
            struct.pack("<Q", 2) + b"{]",
            struct.pack("<Q", 61) + b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}',
        ],
    )
    @pytest.mark.parametrize("end", [".pth", ".safetensors", ".bin", ""])
    def test_damaged(self, tmp_path, content, end):
        path = tmp_path / f"a{end}"
        path.write_bytes(content)
        for read in (read_checkpoint, read_file):
            with pytest.raises(
                InputError, match=r"to hold weights, got (what cannot|an empty)"
            ) as e:
                read(path)
            assert str(e.value).isprintable() and len(str(e.value)) < 400

    @pytest.mark.parametrize("zipped", [True, False])
    def test_half_written(self, tmp_path, zipped):
        path = saved(tmp_path / "a.pth", STATE, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for length in range(1, len(whole), len(whole) // 25):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"hold weights, got (what cannot be|more th)"):
                read_checkpoint(path)

    def test_a_dict_in_a_thousand_places_of_a_thousand(self, tmp_path):
        """Ten to the twelfth ways lead to it, of which one is enough."""
        content = {}
        for _ in range(4):
            content = {str(number): content for number in range(1000)}
        with pytest.raises(InputError, match="no tensors under 0, 1, 2 and 997 more"):
            read_checkpoint(saved(tmp_path / "a.pth", content))

    def test_a_huge_claim(self, tmp_path):
        """A storage said to be longer than what the archive holds of it."""
        saved(tmp_path / "a.pth", {"a": torch.arange(4.0)})
        with (
            zipfile.ZipFile(tmp_path / "a.pth") as old,
            zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
        ):
            for name in old.namelist():
                data = old.read(name).replace(b"K\x04t", b"J\x00\x00\x00\x40t")
                new.writestr(name, data.replace(b"K\x04\x85", b"J\x00\x00\x00\x40\x85"))
        with pytest.raises(InputError, match="what cannot be read"):
            read_checkpoint(tmp_path / "b.pth")

    def test_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for name, message in {".": "a directory", "pipe": "no file"}.items():
            with pytest.raises(InputError, match=f"got {message}"):
                read_checkpoint(tmp_path / name)
        for name in ("none", "x" * 300, "a\0b"):
            with pytest.raises(InputError, match=r"weights: (there is no|expected) .*"):
                read_checkpoint(tmp_path / name, argument="weights")

    def test_other_archives(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
        with pytest.raises(InputError, match="got a TorchScript archive; save its weights"):
            read_checkpoint(tmp_path / "script.pt")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.txt", "text")
        with pytest.raises(InputError, match="what cannot be read"):
            read_checkpoint(tmp_path / "a.zip")
