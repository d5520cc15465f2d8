"""Builds, tests and times gpe on a machine with an NVIDIA GPU, with the Python and torch there.

``make gpu-check OUT=folder`` needs no virtual environment and no network. The steps come in the
order of their worth, in ten minutes together; each leaves ``folder/<step>.log``, and
``folder/summary.json`` says after each what came of them, on what machine. A step that fails does
not stop the next. ``STEPS=build,values`` runs these alone; ``IMAGES=folder``, with CIFAR-10 as
``gpe location --root`` reads it, is for Tables 1 and 2 on real images. Exit code: 0 all passed, 1 a
step failed, 2 no GPU or no such step.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import torch

from gpe.records import atomic, environment

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 570  # for all steps together
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
# Each op's values over dtypes and layouts, by every implementation on the GPU.
VALUES = "(test_values or test_kernels_give_the_bits or test_logits_of_any_dtype_and_layout)"
# With memory from torch's cache, a kernel that writes past its tensor would go unseen.
WITH_CUDA = {"GPE_CUDA": "1"}
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@dataclass(frozen=True)
class Step:
    """Python with ``arguments``; ``closing`` finds what of its log goes into the summary."""

    name: str
    limit: int  # seconds
    arguments: list[str]
    closing: str = r"\d+ (?:passed|failed|skipped|error|deselected).* in [\d.]+s"
    tool: str | None = None  # of compute-sanitizer, to run it under
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    step: str
    result: str  # passed, failed, timed out or skipped
    seconds: float
    summary: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu-check")
    parser.add_argument("out", type=Path, help="folder of logs and numbers")
    parser.add_argument("--steps", default="", help="those to run, separated by commas; all")
    parser.add_argument("--images", type=Path, help="folder with CIFAR-10")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if not torch.cuda.is_available():
        print("gpu-check: needs an NVIDIA GPU that torch can use, found none", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SECONDS
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as runs:
        every = steps(runs, out, arguments.images)
        try:
            wanted = chosen(every, arguments.steps)
        except ValueError as error:
            print(f"gpu-check: {error}", file=sys.stderr)
            return 2
        for step in wanted:
            outcomes.append(run(step, out, deadline))
            summary = {"steps": [asdict(outcome) for outcome in outcomes], **machine()}
            with atomic(out / "summary.json") as path:
                path.write_text(json.dumps(summary, indent=2) + "\n")
    print(table(outcomes))
    return 0 if all(outcome.result in ("passed", "skipped") for outcome in outcomes) else 1


def steps(runs: str, out: Path, images: Path | None) -> list[Step]:
    """All there are, those first whose results would be missed most."""
    values = [*PYTEST, "tests/ops", "-k"]
    one_each = f"cuda-compiled and dtype0 and {VALUES}"  # float32
    data = ["--data", "digits"]
    if images is not None:
        data = ["--data", "cifar10", "--root", str(images.resolve())]
    train = ["--device", "cuda", "--out", runs, *data]
    location = "location --preset quick --network gapnet,permutenet --grid 3,5,7"
    augshift = "augshift --preset fast --method baseline,augshift"
    command, trained = ["-m", "gpe.cli"], r"epoch (\d+)/\1 .*?test [\d.]+ %"
    return [
        Step("build", 240, ["setup.py", "build_ext", "--inplace"], r"gpe: .*", None, WITH_CUDA),
        Step("values", 90, [*values, f"cuda and {VALUES}"]),
        Step("bench", 150, benches(out)),
        Step("table1", 90, [*command, *location.split(), *train], trained),
        Step("table2", 90, [*command, *augshift.split(), *train], trained),
        Step("memcheck", 60, [*values, one_each], r"ERROR SUMMARY.*", "memcheck", UNCACHED),
        Step("racecheck", 60, [*values, one_each], r"RACECHECK SUMMARY.*", "racecheck"),
        Step("tests", 300, [*PYTEST, "-k", "cuda", "tests"]),
    ]


def benches(out: Path) -> list[str]:
    """Their numbers are printed and saved without pytest-benchmark too."""
    command = [*PYTEST, "benches", "--device", "cuda", "--save", str(out)]
    if importlib.util.find_spec("pytest_benchmark"):
        return [*command, "--benchmark-json", str(out / "benchmark.json")]
    print("gpu-check: pytest-benchmark is not installed, the benches run without it")
    return command


def chosen(every: list[Step], names: str) -> list[Step]:
    """Those of the steps with these names, separated by commas, in their own order; all of none."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [step.name for step in every]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"STEPS: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return [step for step in every if not wanted or step.name in wanted]


def run(step: Step, out: Path, deadline: float) -> Outcome:
    """Runs a step, at most until the deadline, with its output in ``out/<step>.log``."""
    command = [sys.executable, *step.arguments]
    if step.tool:
        sanitizer = find_sanitizer()
        if sanitizer is None:
            return Outcome(step.name, "skipped", 0.0, "compute-sanitizer is not installed")
        options = ["--error-exitcode", "9", "--target-processes", "application-only"]
        command = [sanitizer, "--tool", step.tool, *options, *command]
    start = time.monotonic()
    limit = min(step.limit, deadline - start)
    if limit <= 0:
        return Outcome(step.name, "timed out", 0.0, f"not begun: {SECONDS} s were over")
    print(f"gpu-check: {step.name}, at most {limit:.0f} s", flush=True)
    log = out / f"{step.name}.log"
    with log.open("w") as file:
        result = wait(command, limit, file, step.variables)
    text = log.read_text(errors="replace")
    return Outcome(step.name, result, round(time.monotonic() - start, 1), closing(step, text))


def wait(command: list[str], limit: float, log: TextIO, variables: dict[str, str]) -> str:
    """The result of a command, which is ended with all that it started when its time is over."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return "passed" if process.wait(limit) == 0 else "failed"
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def closing(step: Step, log: str) -> str:
    """What the step's pattern finds in the log, or else its last line."""
    found = [match.group() for match in re.finditer(step.closing, log)]
    lines = [line for line in log.splitlines() if line.strip()] or ["no output"]
    return "; ".join(found or [lines[-1].strip()])


def find_sanitizer() -> str | None:
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    path = os.pathsep.join(f"{home}/bin" for home in homes if home)
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=path)


def machine() -> dict:
    """Hardware, versions and commit."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    about = environment(torch.device("cuda"))
    about["versions"]["cuda"] = torch.version.cuda
    with suppress(OSError):
        driver = subprocess.run(query, capture_output=True, text=True).stdout
        about["versions"]["driver"] = driver.split("\n")[0]
    return about


def table(outcomes: list[Outcome]) -> str:
    rows = [("step", "result", "seconds", "")]
    rows += [(o.step, o.result, f"{o.seconds:.1f}", o.summary) for o in outcomes]
    return "\n".join(f"{a:<10} {b:<9} {c:>7}  {d:.100}".rstrip() for a, b, c, d in rows)


if __name__ == "__main__":
    sys.exit(main())
