"""Files on the Hugging Face Hub: what is written is read back, and refusals are one line."""

import pytest
import torch
from torch import nn

import gpe
from gpe import hub
from gpe.ablation import AblationResult
from gpe.models import open_model, save_weights
from gpe.ranking import ChannelRanking


def test_a_ranking_goes_there_and_back(local_hub):
    differences = torch.tensor([[1.0, -4.0, 0.0], [1.0, 2.0, 0.0]])
    ranking = ChannelRanking.of_differences("overall", differences, (0, 1), layer="layer4")
    ranking.save("hf://me/rankings/overall.safetensors")
    assert (local_hub / "me" / "rankings" / "overall.safetensors").exists()
    back = ChannelRanking.load("hf://me/rankings/overall.safetensors")
    assert torch.equal(back.differences, differences) and back.layer == "layer4"


def test_a_result_goes_there_and_back(local_hub):
    network = nn.Sequential(nn.Identity(), nn.Conv2d(4, 3, 1))
    batches = [(torch.rand(2, 4, 8, 8), torch.randint(3, (2, 8, 8)))]
    job = {"layer": "0", "counts": 2, "regions": ["full"], "num_classes": 3}
    result = gpe.ablation_sweep(network, batches, {"first": range(4)}, **job)
    result.save("hf://me/results/a.safetensors")
    back = AblationResult.load("hf://me/results/a.safetensors")
    assert torch.equal(back.confusion, result.confusion)


def test_weights_go_there_and_back(local_hub):
    first = open_model("squeezenet1_1", weights="random").model
    save_weights(first, "hf://me/network/model.safetensors")
    back = open_model("squeezenet1_1", weights="hf://me/network/model.safetensors").model
    expected, found = first.state_dict(), back.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_weights_that_share_memory_are_written(tmp_path):
    network = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    network[1].weight = network[0].weight
    save_weights(network, tmp_path / "w.safetensors")
    weights = gpe.models.checkpoints.read_checkpoint(tmp_path / "w.safetensors").weights
    assert torch.equal(weights["0.weight"], weights["1.weight"])


@pytest.mark.parametrize("path", ("hf://", "hf://me", "hf://me/a", "hf://me/a/", "hf:///a/b"))
def test_a_path_without_a_file_is_refused(path):
    with pytest.raises(gpe.InputError, match=f"path: expected hf://OWNER/NAME/FILE, got {path}$"):
        hub.local(path)


def test_a_file_that_is_not_there_is_one_line(local_hub):
    with pytest.raises(gpe.InputError, match=r"^path: cannot fetch hf://me/a/b: .*404: b$"):
        ChannelRanking.load("hf://me/a/b")


def test_a_hub_that_refuses_is_one_line(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def refuse(*_, **__):
        raise OSError("no token\n\nread the manual")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(
        gpe.InputError, match=r"^path: cannot write hf://me/a/b: OSError: no token$"
    ):
        save_weights(nn.Linear(1, 1), "hf://me/a/b")
