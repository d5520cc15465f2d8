"""What ``gpe rank``, ``gpe ablate`` and the figures share."""

from collections.abc import Sequence
from typing import Annotated, Any

from gpe.cli.options import option, print_runs, telling, values

CHECKPOINT = (
    "A run of gpe segment train, or a file: torchvision's weights or the authors' checkpoint."
)
Modes = Annotated[
    str,
    option("overall, left, right, kernel_flip_mirror, kernel_flip_pair or random; several."),
]
Images = Annotated[int | None, option("At most so many.", show_default="all, as in its tests")]
BatchSize = Annotated[int | None, option("Images a batch.", show_default="as in its tests, or 1")]
Boxes = Annotated[
    str | None,
    option(
        "CityPersons' anno_val.mat, for left and right.",
        show_default="images with people on that side alone, by their labels",
    ),
]
Person = Annotated[str | None, option("The class of people.", show_default="person or pedestrian")]
RandomSeeds = Annotated[int | None, option("Random orders to compare with.", show_default="5")]
Counts = Annotated[
    str | None, option("How many channels to remove.", show_default="all twentieths")
]
Seed = Annotated[int, option("Of the random orders.")]


def parse(options: dict[str, Any]) -> None:
    """Turns the text of several values into these, in place."""
    kinds = {"modes": str, "rankings": str, "regions": str, "counts": int, "size": int}
    for name, kind in kinds.items():
        if options.get(name) is not None:
            options[name] = values(name, options[name], kind)


def run(
    job: str,
    checkpoints: Sequence[str],
    options: dict[str, Any],
    places: dict[str, Any],
    as_json: bool,
) -> None:
    """Does a job with each network, in all processes that torchrun started; one of them prints."""
    from gpe.experiments import targeting
    from gpe.experiments.processes import is_first, processes

    directories = []
    with processes():
        for checkpoint in checkpoints:
            with telling(f"{job}: {checkpoint}"):
                directories.append(targeting.run(job, checkpoint, **options, **places))
        first = is_first()
    if first:
        print_runs(directories, places["out"], as_json)
