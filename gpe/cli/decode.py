"""``gpe decode``."""

from itertools import product
from pathlib import Path
from typing import Annotated

from gpe.cli.options import choose_device, option, print_runs, telling, values


def command(
    model: Annotated[
        str,
        option(
            "Classifiers of torchvision or timm, resnet18 or timm/resnet50.a1_in1k; or directories "
            "that gpe location, augshift or segment train left."
        ),
    ] = "resnet18",
    grid: Annotated[str, option("Cells along each side of the canvas.")] = "3,5,7",
    weights: Annotated[
        str, option("pretrained; random, the control; or a file of a library network's weights.")
    ] = "pretrained",
    layer: Annotated[
        str, option("depth: every stage; last: the last feature map; or names of layers.")
    ] = "depth",
    readout: Annotated[
        str, option("gapnet, permutenet, or fixed: one permutation for all, a control.")
    ] = "gapnet,permutenet,fixed",
    data: Annotated[str, option("digits, cifar10, cifar100, or a folder of images.")] = "digits",
    image_size: Annotated[int, option("Height and width of a cell in pixels.")] = 32,
    train_images: Annotated[int, option("At most so many to train readouts on.")] = 1600,
    test_images: Annotated[int, option("At most so many that readouts never see.")] = 400,
    epochs: Annotated[int, option("Passes of a readout over its latents.")] = 60,
    batch_size: Annotated[int, option("Latents a step.")] = 48,
    learning_rate: Annotated[float, option("Of AdamW, the cycle's largest.")] = 0.01,
    weight_decay: Annotated[float, option("Of AdamW.")] = 0.01,
    canvases: Annotated[int, option("Canvases through the network at a time.")] = 32,
    seed: Annotated[str, option("Of images, cells, random weights and readouts.")] = "0",
    device: Annotated[str, option("auto, cpu, cuda or cuda:N.")] = "auto",
    root: Annotated[Path, option("Directory of CIFAR's files.")] = Path("data"),
    download: Annotated[bool, option("Fetch CIFAR into --root.", "--download")] = False,
    out: Annotated[Path, option("Directory of the records.")] = Path("runs"),
    force: Annotated[bool, option("Run finished ones again.", "--force")] = False,
    as_json: Annotated[
        bool, option("Print the record alone; a list of several.", "--json")
    ] = False,
) -> None:
    """Read from a frozen network where on a canvas an image lies (Figure S1).

    --model, --weights, --grid and --seed take several values, separated by commas: every
    combination is read. --layer and --readout take several for each.
    """
    from gpe.experiments.decode import run
    from gpe.experiments.decode_config import DecodeConfig

    # Grids change fastest: a network is opened once for all of them.
    several = product(
        values("seed", seed, int),
        values("model", model),
        values("weights", weights),
        values("grid", grid, int),
    )
    configs = [
        DecodeConfig(
            model=network,
            weights=chosen,
            grid_size=cells,
            layers=values("layer", layer),
            readouts=values("readout", readout),
            data=data,
            image_size=image_size,
            train_images=train_images,
            test_images=test_images,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            canvases=canvases,
            device=choose_device(device),
            seed=number,
        )
        for number, network, chosen, cells in several
    ]
    with telling(model) as tell:
        directories = run(
            list(dict.fromkeys(configs)),
            out,
            root=root,
            download=download,
            force=force,
            tell=tell,
        )
    print_runs(directories, out, as_json)
