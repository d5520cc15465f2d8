"""Records of any number of runs, as one HTML page that needs nothing else."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gpe.errors import InputError
from gpe.records import atomic
from gpe.report import (
    ablation,
    atlas,
    augshift,
    classify,
    consistency,
    decode,
    figure5,
    location,
    rank,
    segment,
)
from gpe.report.runs import Run, runs_table

# What a known experiment shows of its runs, as the context of its template.
SECTIONS = {
    "location": location.section,
    "augshift": augshift.section,
    "consistency": consistency.section,
    "segment": segment.section,
    "rank": rank.section,
    "ablate": ablation.section,
    "ablate-classify": classify.section,
    "figure4": ablation.section,
    "figure5": figure5.section,
    "figure6": ablation.section,
    "decode": decode.section,
    "atlas": atlas.section,
}
# Where it is not "<experiment>.html".
_TEMPLATES = dict.fromkeys(("ablate", "figure4", "figure6"), "ablation.html")
_TEMPLATES["ablate-classify"] = "classify.html"


def write_report(directories: Sequence[Path], path: Path) -> None:
    """Write one self-contained HTML page about the runs in ``directories``.

    The page loads nothing from anywhere, needs no scripts, follows the reader's light or
    dark setting, and is written whole or not at all. An experiment without a section of its
    own gets its plain table of runs.

    Args:
        directories: each holds ``record.json``, as :func:`gpe.records.find` returns them;
            pictures are drawn where ``arrays.safetensors`` lies beside it.
        path: the HTML file to write.

    Raises:
        InputError: no directories, one without a sound record, or a ``path`` that is a
            directory.

    Example:
        >>> write_report(records.find(["runs"]), Path("report.html"))  # doctest: +SKIP
    """
    if not directories:
        raise InputError("directories: expected at least one run, got none")
    if path.is_dir():
        raise InputError(f"path: expected a file to write, got the directory {path}")

    by_experiment = defaultdict(list)
    for run in map(Run.load, directories):
        by_experiment[run.record.experiment].append(run)
    experiments = [
        {
            "name": name,
            "template": _TEMPLATES.get(name, f"{name}.html"),
            "section": SECTIONS[name](runs) if name in SECTIONS else None,
            "runs": runs_table(runs),
        }
        for name, runs in sorted(
            by_experiment.items(), key=lambda item: [*SECTIONS, item[0]].index(item[0])
        )
    ]
    with atomic(path) as temporary:
        temporary.write_text(_render(experiments, len(directories)), encoding="utf-8")


def _render(experiments: list[dict], count: int) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html")
    return page.render(experiments=experiments, count=count, today=date.today())
