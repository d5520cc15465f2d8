"""Without the packages of the extra: the public names work, and what is missing is named."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}  # where they are called otherwise
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [
    MODULES.get(name, name)
    for name in (
        requirement.partition(">")[0]
        for requirement in PROJECT["optional-dependencies"]["experiments"]
    )
]
# As if they were not installed, also to whoever only asks (torch, torchmetrics).
BLOCKED = f"""
import sys
from importlib import machinery, metadata

search, version = machinery.PathFinder.find_spec, metadata.version

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {EXTRAS} else search(name, path, target)

def installed(name):
    if {MODULES}.get(name.lower(), name.lower()) in {EXTRAS}:
        raise metadata.PackageNotFoundError(name)
    return version(name)

machinery.PathFinder.find_spec, metadata.version = find_spec, installed
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], cwd=ROOT, capture_output=True, text=True
    )


def test_core_runs_without_the_extra():
    done = run("""
import torch, gpe
for name in gpe.__all__:
    getattr(gpe, name)
images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
canvas = gpe.place_on_grid(images, torch.arange(4), 3, mean=0.5, std=0.25)
backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU())
features, head = backbone(canvas), torch.nn.Linear(8, 10)
features = torch.cat([features, features.flip(3)])
gpe.fused_augshift_loss(features, None, head, torch.zeros(4).long(), weight=1.0).loss.backward()
rankings = gpe.rank_channels(backbone, [canvas], layer="1", modes=("overall", "random"))
assert rankings["overall"].interval.shape == (2, 8)
with gpe.ablated(backbone, "1", rankings["overall"].top(2)):
    backbone(canvas)
shift = gpe.ShiftConsistency(protocol="zeros", max_shift=1, mean=0.5, std=0.25)
network = torch.nn.Sequential(backbone, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
shift.update(network, images)
shift.compute()
gpe.GAPNet(gpe.resnet18(width=8), num_classes=9)(canvas)
gpe.doctor()
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("import gpe.data", "PIL|torchvision|scipy"),
        ("import gpe; gpe.resnet18(blur=True)", "timm"),
        ("from gpe.models import deeplabv3; deeplabv3()", "torchvision"),
        ("from gpe.models import open_model; open_model('resnet18')", "timm"),
        ("from gpe.hub import local; local('hf://me/rankings/a')", "huggingface_hub"),
        (
            "import torch, gpe; gpe.ChannelRanking('random', torch.rand(2).double()).plot()",
            "matplotlib",
        ),
        ("from gpe.statistics import mean_of; mean_of([1.0, 2.0])", "scipy"),
    ],
)
def test_what_is_missing_is_named(code, package):
    done = run(code)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert any(f" needs {p}: pip install 'gpe[experiments]'" in last for p in package.split("|"))


def test_the_command_line_says_so_in_one_line():
    done = run("import runpy; sys.argv[1:] = ['--help']; runpy.run_module('gpe.cli')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpe: the command gpe needs typer: pip install 'gpe[experiments]'\n"
