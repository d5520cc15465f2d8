"""Records of `gpe rank`, `ablate` and `figure4` to `figure6` that no run has made."""

from itertools import pairwise

import torch

from gpe.records import Record, save_arrays

REGIONS = ("full", "left", "centre", "right")
CLASSES = ["road", "sky", "car"]
_CONFIG = {
    "preset": "quick",
    "checkpoint": "runs/a/network.safetensors",
    "network": "deeplabv3",
    "layer": "backbone.layer4",
    "data": "streets",
    "split": "val",
    "size": [64, 128],
    "images": None,
    "batch_size": 4,
    "device": "cpu",
    "precision": "float32",
    "seed": 0,
}


def ablation_run(
    directory,
    experiment="figure4",
    *,
    miou,
    baseline=60.0,
    rankings=("overall",),
    draws=3,
    matched=0,
    grid=None,
    regions=REGIONS,
    channels=128,
    counts=(0, 6, 32, 128),
    step=None,
    paper=None,
    **config,
):
    """What `gpe ablate` leaves behind.

    ``miou(ranking, removal, start, stop, region)`` invents a percentage; a random order is
    called ``random/0`` and so on, one that deviates as Equation 2's does ``matched/0``. ``paper``
    is a list of rows, ``grid`` a function of a ranking, a count and a region.
    """
    removals = [("top", 0, count) for count in counts]
    if step:
        removals += [("range", *ends) for ends in pairwise(range(0, channels + 1, step))]
    names = [*rankings, *(f"random/{draw}" for draw in range(draws))]
    names += [f"matched/{draw}" for draw in range(matched)]
    given = baseline if isinstance(baseline, dict) else dict.fromkeys(regions, baseline)
    rows = [
        {
            "ranking": name,
            "removal": kind,
            "start": start,
            "stop": stop,
            "region": region,
            "miou": given[region] if start == stop else miou(name, kind, start, stop, region),
        }
        for name in names
        for kind, start, stop in removals
        for region in regions
    ]
    more = {"shared": {str(count): count / 2 for count in counts}} if matched else {}
    if grid:
        of_grid = [f"3x3:{cell}" for cell in range(9)]
        more["grid"] = {
            "count": 31,
            "rows": [
                {"ranking": name, "stop": stop, "region": region, "miou": grid(name, stop, region)}
                for name in (*of_grid, *(f"random/{draw}" for draw in range(draws)))
                for stop in (0, 31)
                for region in of_grid
            ],
        }
    options = {"modes": list(rankings), "counts": list(counts), "range_step": step}
    options |= {"regions": list(regions), "random_seeds": draws}
    Record(
        experiment=experiment,
        config=_CONFIG | options | config,
        epochs=[],
        result={
            "rows": rows,
            "baseline": given,
            "channels": channels,
            "classes": CLASSES,
            "images": 40,
            "engine": "incremental",
            "tolerance": 1e-5,
            "rankings": {name: {"images": 38, "top": list(range(20))} for name in rankings},
            "subsets": {"left": 12, "right": 9},
            **more,
        },
        chance=100 / 3,
        paper=paper and {"source": "Figure 4", "rows": paper},
        run={"seconds": 31.0, "hardware": {"cpu": "a <cpu>"}},
    ).save(directory)
    return directory


def fixed(**values):
    """What is left by ranking, ``_`` for the draws: a number, one for each draw or by region."""

    def miou(name, kind, start, stop, region):
        kind = name.partition("/")[0]
        kept = values["_" if kind == "random" else kind]
        if isinstance(kept, dict):
            kept = kept[region]
        return kept[int(name.partition("/")[2])] if isinstance(kept, tuple) else kept

    return miou


def spoil(path, change):
    record = Record.load(path)
    change(record)
    record.save(path)


def figure5_run(directory, *, counts=(0, 8), samples=2, arrays=True, **config):
    """What `gpe figure5` leaves behind: every removal gets one more column of pixels wrong."""
    position = [100.0 - 10 * i for i in range(len(counts))]
    Record(
        experiment="figure5",
        config=_CONFIG | {"counts": list(counts)} | config,
        epochs=[],
        result={
            "counts": list(counts),
            "channels": 128,
            "samples": [f"street_{i}" for i in range(samples)],
            "classes": CLASSES,
            "accuracy": {"overall": position, "random": [value + 0.5 for value in position]},
        },
        chance=100 / 3,
        paper=None,
    ).save(directory)
    if arrays:
        found = {"palette": torch.tensor([[128, 64, 128], [70, 130, 180], [0, 0, 142]]).byte()}
        for i in range(samples):
            labels = torch.arange(4).clamp(max=2).expand(2, 4).contiguous().byte()
            labels[1, 3] = 255
            said = labels.clamp(max=2).expand(len(counts), 2, 4).contiguous()
            for number in range(len(counts)):
                said[number, :, :number] = 2
            found |= {
                f"image{i}": (torch.arange(24) * 10 % 255).byte().view(3, 2, 4),
                f"labels{i}": labels,
                f"overall{i}": said,
                f"random{i}": labels.clamp(max=2).expand(len(counts), 2, 4).contiguous(),
            }
        save_arrays(directory, found)
    return directory


def rank_run(directory, scores, *, width=0.5, arrays=True, images=40, **config):
    """What `gpe rank` leaves behind; ``scores`` by mode, intervals ``width`` to either side.

    A random order has no intervals, and no other has any where ``width`` is None.
    """
    scores = {name: torch.tensor(values, dtype=torch.float64) for name, values in scores.items()}
    orders = {name: values.argsort(descending=True) for name, values in scores.items()}
    found = {}
    for name, values in scores.items():
        found |= {f"scores.{name}": values, f"order.{name}": orders[name]}
        if width is not None and name != "random":
            found |= {f"low.{name}": values - width, f"high.{name}": values + width}
    Record(
        experiment="rank",
        config=_CONFIG | {"modes": list(scores)} | config,
        epochs=[],
        result={
            "channels": len(next(iter(scores.values()))),
            "images": images,
            "rankings": {name: _ranked(found, name, images) for name in scores},
            "subsets": {"left": 12, "right": 9},
        },
        chance=0.0,
        paper=None,
    ).save(directory)
    if arrays:
        save_arrays(directory, found)
    return directory


def _ranked(arrays, name, images):
    top = arrays[f"order.{name}"][:20]
    columns = {end: f"{end}.{name}" for end in ("scores", "low", "high")}
    there = {end: key for end, key in columns.items() if key in arrays}
    shown = {end: arrays[key][top].tolist() for end, key in there.items()}
    return {"images": images, "top": top.tolist()} | shown


def classify_run(
    directory,
    network="net",
    *,
    lost=10.0,
    draws=3,
    matched=None,
    half=2.0,
    counts=(0, 6, 32),
    step=32,
    **config,
):
    """What `gpe ablate --task classify` leaves behind.

    Of 80 %, random orders leave 70, and one percent less or more by the draw; the ranking leaves
    ``lost`` less than that, within ``half`` of which lies the interval over images; and
    ``matched`` less than two orders that deviate alike, where it is given.
    """
    removals = [("top", 0, count) for count in counts]
    removals += [("range", *ends) for ends in pairwise(range(0, 129, step))]

    alike = [] if matched is None else ["matched/0", "matched/1"]

    def accuracy(name, kind, stop):
        if stop == 0:
            return 80.0
        random = 70.0 + int(name[-1]) - 1 if name.startswith("random") else 70.0 - lost
        if name.startswith("matched"):
            random += matched
        return random + (kind == "range")

    rows = [
        {"ranking": name, "removal": kind, "start": start, "stop": stop}
        | {"accuracy": accuracy(name, kind, stop), "low": 0.0, "high": 100.0}
        for name in ("overall", *(f"random/{draw}" for draw in range(draws)), *alike)
        for kind, start, stop in removals
    ]
    ends = {"points": lost, "low": lost - half, "high": lost + half}
    excess = [{"ranking": "overall", "stop": stop} | ends for stop in counts if stop and draws]
    names = {"network": network, "model": f"runs/{network}", "data": "cifar10", "layer": "fc"}
    Record(
        experiment="ablate-classify",
        config=names | {"task": "classify", "image_size": None, "seed": 0} | config,
        epochs=[],
        result={
            "channels": 128,
            "classes": CLASSES,
            "images": 500,
            "rankings": {"overall": {"images": 500, "top": list(range(20))}},
            "rows": rows,
            "excess": excess,
            "beyond_matched": [
                {"stop": stop, "points": matched, "low": matched - half, "high": matched + half}
                for stop in counts
                if stop and alike
            ],
            "shared": {str(stop): stop / 4 for stop in counts},
        },
        chance=100 / 3,
        paper=None,
    ).save(directory)
    return directory
