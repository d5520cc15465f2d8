"""Imports go downwards only (DESIGN.md), `import gpe` is quick, and every public name is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpe
from gpe.experiments import EXPERIMENTS

ROOT = Path(__file__).parents[1]

# From top to bottom. A module imports itself and the layers below its own.
LAYERS = (
    {"cli"},
    {"experiments"},
    {"report", "readout"},
    {"ranking", "ablation"},
    {"data", "models", "metrics"},
    {"augshift", "statistics"},
    {"ops", "hub"},
    {"records"},
    {"errors", "choices"},
)
LAYER = {module: depth for depth, modules in enumerate(LAYERS) for module in modules}
ALLOWED = {name: {n for n in LAYER if LAYER[n] > LAYER[name]} | {name} for name in LAYER}
ALLOWED["report"] = {"report", "statistics", "records", "errors"}  # it draws and runs nothing
ALLOWED["cli"].add("gpe")  # the package's own names, which lead everywhere
# What of gpe.experiments the configurations and reports of experiments may import: nothing that
# runs, nor torch. A module not named here may be imported by runs alone.
CONFIGS = {"options", "shifts", "canvases", "*.config"}
REPORTS = CONFIGS | {"shift_scores", "*.trials", "*.modes"}

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
        ("gpe/report/x", "from gpe.readout import answer", "report imports readout"),
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


EXPERIMENT_FILES = [
    file.relative_to(ROOT / "gpe" / "experiments")
    for file in FILES
    if file.parent.parent == ROOT / "gpe" / "experiments"
]


@pytest.mark.parametrize("file", EXPERIMENT_FILES, ids=str)
def test_configurations_and_reports_of_experiments_run_nothing(file):
    """A report imports what draws, records and its own configuration; never a run."""
    if file.stem in ("run", "__init__") or runs_something(file):
        return
    parts = ("gpe", "experiments", *file.with_suffix("").parts)
    source = (ROOT / "gpe" / "experiments" / file).read_text()
    allowed = CONFIGS if file.stem == "config" else REPORTS
    own = {each.stem for each in EXPERIMENT_FILES if each.parent == file.parent}
    for line, name in full_names(parts, source):
        of = name.split(".")
        if of[:2] == ["gpe", "experiments"] and len(of) > 2:
            folder = (ROOT / "gpe" / "experiments" / of[2]).is_dir()
            key = f"*.{of[3]}" if folder and len(of) > 3 else of[2]
            ours = folder and of[2] == file.parent.name and len(of) > 3 and of[3] in own - {"run"}
            assert ours or key in allowed, f"{file}:{line} imports {name}"
        elif of[0] == "gpe":
            known = {"choices", "errors", "experiments", "records", "report", "statistics"}
            assert of[1] in known, f"{file}:{line} imports {name}"
        if file.stem == "config":
            assert of[0] != "torch" and of[:2] != ["gpe", "report"], f"{file}:{line} imports {name}"


def runs_something(file):
    """Whether a module belongs to a run: it imports networks, data or kernels, or is run's own."""
    source = (ROOT / "gpe" / "experiments" / file).read_text()
    parts = ("gpe", "experiments", *file.with_suffix("").parts)
    running = {"data", "models", "metrics", "ops", "ranking", "ablation", "readout", "augshift"}
    return file.stem not in ("config", "report", "trials", "findings") and any(
        module in running for _, module in imported(parts, source)
    )


def test_no_import_goes_in_a_circle():
    """Whatever is imported when a module is; what functions import later is no circle."""
    modules = {module_name(file): file for file in [*FILES, ROOT / "gpe" / "__init__.py"]}
    later = {
        name: {
            found
            for _, full in full_names(tuple(name.split(".")), file.read_text(), functions=False)
            for found in [full if full in modules else full.rpartition(".")[0]]
            if found in modules and found not in (name, "gpe")
        }
        for name, file in modules.items()
    }
    while leaves := {name for name, names in later.items() if not names & later.keys()}:
        later = {name: names for name, names in later.items() if name not in leaves}
    assert later == {}


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("folder", EXPERIMENTS)
def test_configurations_and_help_need_no_torch(folder):
    """Help appears at once."""
    code = f"""
import sys
from importlib import import_module
import gpe.cli
config = import_module("gpe.experiments.{folder}.config")
assert "torch" not in sys.modules
for command in config.COMMANDS:
    try:
        gpe.cli.app([*command.name.split(), "--help"], standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code
    assert "torch" not in sys.modules, command.name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


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
    found = [(line, top_module(name)) for line, name in full_names(parts, source)]
    return [(line, module) for line, module in found if module]


def full_names(
    parts: tuple[str, ...], source: str, *, functions: bool = True
) -> list[tuple[int, str]]:
    """(line, full name) of all that a file imports; on request not what its functions do."""
    found = []
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop(0)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not functions and (isinstance(node, ast.FunctionDef | ast.Lambda) or typing):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(parts[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def top_module(name: str) -> str | None:
    """The x of gpe.x, "gpe" for the package and its public names, None for all else."""
    package, module, *_ = [*name.split("."), ""]
    if package != "gpe" or module.startswith("_"):  # gpe._C, gpe._build: built, not written
        return None
    return "gpe" if module in ("", *gpe.__all__) else module
