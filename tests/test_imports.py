"""Imports go downwards only (DESIGN.md), `import gpe` is quick, and every public name is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpe

ROOT = Path(__file__).parents[1]

# From top to bottom. A module imports itself and the layers below its own.
LAYERS = (
    {"cli"},
    {"experiments", "report"},
    {"readout"},
    {"ranking", "ablation"},
    {"data", "models", "metrics"},
    {"augshift", "statistics"},
    {"ops", "records"},
    {"errors"},
)
LAYER = {module: depth for depth, modules in enumerate(LAYERS) for module in modules}
ALLOWED = {name: {n for n in LAYER if LAYER[n] > LAYER[name]} | {name} for name in LAYER}
ALLOWED["report"] = {
    "report",
    "statistics",
    "records",
    "errors",
}  # it reads records and runs nothing
ALLOWED["cli"].add("gpe")  # the package's own names, which lead everywhere

# gpe/__init__.py may import everything; setup.py writes gpe/_build.py.
FREE = (ROOT / "gpe" / "__init__.py", ROOT / "gpe" / "_build.py")
FILES = [file for file in sorted((ROOT / "gpe").rglob("*.py")) if file not in FREE]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_go_downwards(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    assert violations(parts, file.read_text()) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    (
        ("gpe/ops/x", "from gpe.models.resnet import resnet18", "ops imports models"),
        ("gpe/ops/x", "def f():\n    import gpe.models", "ops imports models"),
        ("gpe/ops/x", "from gpe import models", "ops imports models"),
        ("gpe/ops/x", "from .. import models", "ops imports models"),
        ("gpe/ops/x", "from ..models import resnet18", "ops imports models"),
        ("gpe/ops/x", "import gpe", "ops imports gpe"),
        ("gpe/ops/x", "from gpe import GAPNet", "ops imports gpe"),
        ("gpe/data/x", "from gpe import models", "data imports models"),
        ("gpe/report/x", "from gpe.experiments import location", "report imports experiments"),
        ("gpe/report/x", "from gpe.data import load", "report imports data"),
        ("gpe/experiments/x", "import gpe.report", "experiments imports report"),
        ("gpe/new", "", "gpe.new: add it to LAYERS"),
        ("gpe/ops/x", "import gpe.new", "gpe.new: add it to LAYERS"),
    ),
)
def test_an_import_upwards_is_found(file, source, complaint):
    found = violations(tuple(file.split("/")), source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("file", "source"),
    (
        ("gpe/ops/x", "from gpe.ops import reference\nfrom gpe import _C, _build, errors"),
        ("gpe/ops/x", "import torch\nfrom math import gcd"),
        ("gpe/data/x", "from .listing import split\nfrom ..errors import InputError"),
        ("gpe/report/__init__", "from . import runs"),
        ("gpe/cli", "from gpe import GAPNet, __version__, experiments, report"),
    ),
)
def test_an_import_downwards_is_fine(file, source):
    assert violations(tuple(file.split("/")), source) == []


def test_import_gpe_leaves_torch_alone():
    """`gpe --help` should not wait for torch."""
    code = "import sys, gpe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_import_gpe_models_leaves_timm_and_torchvision_alone():
    """Only a network that needs them waits for them."""
    code = "import sys, gpe.models; sys.exit(bool({'timm', 'torchvision'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("name", gpe.__all__)
def test_public_names_are_there(name):
    assert callable(getattr(gpe, name))


def violations(parts: tuple[str, ...], source: str) -> list[str]:
    """What is wrong with the imports of a file, given by its path without the ending."""
    here = parts[1]
    unknown = "gpe.{}: add it to LAYERS in tests/test_imports.py"
    if here not in LAYER:
        return [unknown.format(here)]
    found = []
    for line, module in imported(parts, source):
        if module not in (*LAYER, "gpe"):
            found.append(f"line {line}: {unknown.format(module)}")
        elif module not in ALLOWED[here]:
            found.append(f"line {line}: {here} imports {module}")
    return found


def imported(parts: tuple[str, ...], source: str) -> list[tuple[int, str]]:
    """(line, module of gpe) of each import in a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(parts[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, top_module(name)) for name in names if top_module(name)]
    return found


def top_module(name: str) -> str | None:
    """The x of gpe.x, "gpe" for the package and its public names, None for all else."""
    package, module, *_ = [*name.split("."), ""]
    if package != "gpe" or module.startswith("_"):  # gpe._C, gpe._build: built, not written
        return None
    return "gpe" if module in ("", *gpe.__all__) else module
