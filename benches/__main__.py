"""Runs every bench, ``python -m benches``, or those named, on each device there is or on one.

``--save FOLDER`` also writes the numbers, with hardware, versions and commit, to
``FOLDER/<bench>-<device>.json``.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from benches.harness import print_race
from gpe.records import atomic, environment

BENCHES = sorted(file.stem for file in Path(__file__).parent.glob("bench_*.py"))
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benches", description="Times kernels beside rivals.")
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=", ".join(BENCHES))
    parser.add_argument("--device", choices=DEVICES, help="one of those that are there")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="also write the numbers there")
    arguments = parser.parse_args()
    if unknown := set(arguments.benches) - set(BENCHES):
        parser.error(f"no bench named {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")

    console = Console()
    for device in [arguments.device] if arguments.device else DEVICES:
        for bench in arguments.benches or BENCHES:
            races = []
            for race in import_module(f"benches.{bench}").races(device):
                print_race(race, console)
                races.append({"title": race.title, "rounds": race.rounds, "rows": race.rows()})
            console.print(f"{len(races)} races of {bench} on {device}")
            if arguments.save:
                record = environment(torch.device(device)) | {"races": races}
                with atomic(arguments.save / f"{bench}-{device}.json") as path:
                    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
