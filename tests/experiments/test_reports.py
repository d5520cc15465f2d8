"""Whatever record a command can leave behind is read back by table, finding and report."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from gpe.experiments import EXPERIMENTS
from gpe.experiments.reports import print_findings, print_tables, write_report
from gpe.records import RECORD, Record
from tests.data import labelled_trees as trees
from tests.experiments.tiny import runs

LOCATION = "location --width 4 --epochs 1 --train-images 20 --test-images 1 --image-size 10"
AUGSHIFT = (
    "augshift --stem cifar --image-size 10 --width 4 --epochs 1 --passes 1 --train-images 20 "
    "--test-images 1 --epoch-images 16 --shifts 1"
)
SEGMENT = (
    "segment train --size 32,64 --width 4 --epochs 1 --train-images 4 --test-images 1 "
    "--batch-size 4 --workers 0"
)
CONSISTENCY = "consistency squeezenet1_1 --weights random --image-size 32 --workers 0 --shifts 2"
FROZEN = "--weights random --image-size 16 --grid 2"
DECODE = f"decode --model squeezenet1_1 {FROZEN} --train-images 8 --test-images 1 --epochs 1"
COMMANDS = {
    "location": [f"{LOCATION} --grid 2"],
    "location, objects of two seeds": [f"{LOCATION} --grid 2 --task object --seed 0,1"],
    "location, a control": [f"{LOCATION} --grid 2 --network permutenet --permutation fixed"],
    "location, one cell": [f"{LOCATION} --grid 1 --image-size 17"],
    "augshift": [f"{AUGSHIFT} --method baseline,augshift"],
    "augshift, one row of two seeds": [f"{AUGSHIFT} --method augshift --seeds 2"],
    "augshift, a sweep": [f"{AUGSHIFT} --split validation --method augshift --weight 1,2"],
    "consistency without labels": [f"{CONSISTENCY} --data ../tree"],
    "consistency of one image": [f"{CONSISTENCY} --data ../tree --images 1"],
    "segment of one image": [SEGMENT],
    "evaluate": [SEGMENT, "segment evaluate {run} --workers 0 --images 1"],
    "a half without labels": ["segment evaluate ../w.pth --data camvid --root {void} --workers 0"],
    "decode": [
        f"decode --model squeezenet1_1 {FROZEN} --train-images 8 --test-images 1 --epochs 1"
    ],
    "decode, one readout": [
        f"decode --model squeezenet1_1 {FROZEN} --train-images 8 --test-images 1 --epochs 1 "
        "--layer last --readout permutenet"
    ],
    "atlas": [f"atlas squeezenet1_1 {FROZEN} --images 4 --layer features.3"],
}


def test_what_the_repository_keeps_is_drawn(tmp_path):
    """All of results/ but the sweep over networks, and an atlas, whose maps are not kept there."""
    results = Path(__file__).parents[2] / "results"
    notes: list[str] = []
    page = tmp_path / "report.html"
    kept = [json.loads(file.read_text()).get("runs", []) for file in results.glob("*.json")]
    assert write_report([results], page, notes.append) == sum(map(len, kept)) - 1
    assert [note.partition(": ")[2] for note in notes] == [
        "networks.json left out, no record in it",
        "KeyError('maps'); it is left out",
    ]
    shown = page.read_text(encoding="utf-8")
    # As results/README.md has them: Table 2, and 18 channels of Figure 4's network of seed 0.
    for number in ("69.3", "75.6", "mean of 20 draws"):
        assert number in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_a_record_of_any_shape_is_read_back(name, call, tmp_path):
    import torch

    from gpe.models.deeplab import deeplabv3

    for label in ("cat", "dog", "cow"):
        (tmp_path / "tree" / label).mkdir(parents=True)
        Image.new("RGB", (40, 50), (len(label), 80, 30)).save(tmp_path / "tree" / label / "0.png")
    where = {}
    for command in COMMANDS[name]:
        if "{void}" in command:
            torch.save(deeplabv3("resnet18", 11, width=4).state_dict(), tmp_path / "w.pth")
            where["void"] = half_void(tmp_path)
        code, _, err = call(*command.format(**where).split())
        assert code == 0, err
        where["run"] = runs()[0]
    directories = runs()
    text = (directories[0] / RECORD).read_text()
    assert "NaN" not in text and "Infinity" not in text
    if "void" in where:
        assert Record.load(directories[0]).result["miou"]["left"] is None
    console = Console(file=io.StringIO(), width=200)
    print_tables(directories, console)
    print_findings(directories, console)
    shown = console.file.getvalue()
    assert shown and "nan" not in shown.lower().split()
    told = []
    assert write_report(directories, Path("page.html"), told.append) == len(directories)
    assert told == [] and ">nan<" not in Path("page.html").read_text(encoding="utf-8")


def half_void(tmp_path):
    """CamVid-like images whose left half has no label."""
    root = trees.camvid(tmp_path)
    for file in root.rglob("*"):
        if file.is_file() and "annot" in file.parent.name:
            with Image.open(file) as labels:
                labels.load()
            labels.paste(11, (0, 0, labels.width // 2, labels.height))
            labels.save(file)
    return root


def test_every_kind_of_record_has_a_folder():
    names = [name for names in EXPERIMENTS.values() for name in names]
    assert len(set(names)) == len(names)
