"""Builds, tests and times gpe on a machine with an NVIDIA GPU, with the Python and torch there.

``make gpu-check OUT=folder`` needs no virtual environment and no network. Each step leaves
``folder/<step>.log``; ``folder/summary.json`` says what came of them, on what machine. A step that
fails does not stop the next. Exit code: 0 all passed, 1 a step failed, 2 no GPU.
"""

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

from gpe.records import environment

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 570  # for all steps together
OPS = ["-m", "pytest", "-q", "tests/ops", "-k", "cuda-compiled and not test_compile"]
# With memory from torch's cache, a kernel that writes past its tensor would go unseen.
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
    out = Path(sys.argv[1]).resolve()
    if not torch.cuda.is_available():
        print("gpu-check: needs an NVIDIA GPU that torch can use, found none", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as runs:
        outcomes = [run(step, out, deadline) for step in steps(runs, out)]
    summary = {"steps": [asdict(outcome) for outcome in outcomes], **machine()}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(outcomes))
    return 0 if all(outcome.result in ("passed", "skipped") for outcome in outcomes) else 1


def steps(runs: str, out: Path) -> list[Step]:
    location = "-m gpe.cli location --network gapnet,permutenet --grid 3 --data digits"
    location += " --preset quick --device cuda --json --out"
    augshift = "-m gpe.cli augshift --method baseline,augshift --data digits --epochs 3"
    augshift += " --preset fast --device cuda --json --out"
    build = ["setup.py", "build_ext", "--inplace"]
    bench = ["-m", "benches", "--device", "cuda", "--save", str(out)]
    return [
        Step("build", 240, build, r"gpe: .*", variables={"GPE_CUDA": "1"}),
        Step("location", 60, [*location.split(), runs], r"epoch (\d+)/\1 .*?test [\d.]+ %"),
        Step("augshift", 90, [*augshift.split(), runs], r"epoch (\d+)/\1 .*?test [\d.]+ %"),
        Step("tests", 300, ["-m", "pytest", "-q"]),
        Step("bench", 200, bench, r"\d+ races.*"),
        Step("memcheck", 120, OPS, r"ERROR SUMMARY.*", "memcheck", UNCACHED),
        Step("racecheck", 120, OPS, r"RACECHECK SUMMARY.*", "racecheck"),
    ]


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
