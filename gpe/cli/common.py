"""Options that several commands have, each under its name: ``device: common.Device = "auto"``.

A help text here has to be right for all of them.
"""

from pathlib import Path
from typing import Annotated

from gpe.cli.options import option, preset_option

# How a command runs, and where.
Device = Annotated[str, option("auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, option("fp32 or bf16.")]
Compile = Annotated[bool, option("Compile the network.", "--compile")]
Workers = Annotated[int | None, option("Processes that read images.", show_default="one a core")]
Root = Annotated[Path, option("Directory of the dataset's files.")]
Download = Annotated[bool, option("Fetch CIFAR into --root.", "--download")]
Out = Annotated[Path, option("Directory of the runs.")]
Resume = Annotated[bool, option("Go on where it was interrupted.", "--resume")]
Force = Annotated[bool, option("Run again what was finished before.", "--force")]
AsJson = Annotated[bool, option("Print the record alone, or a list of several.", "--json")]

# Images in the cells of a canvas.
Grid = Annotated[str, option("Cells along each side of the canvas; several.")]
CellData = Annotated[str, option("digits, cifar10, cifar100, or a folder of images.")]
CellSize = Annotated[int, option("Height and width of a cell in pixels.")]
CellRoot = Annotated[Path, option("Directory of CIFAR's files.")]
Canvases = Annotated[int, option("Canvases through the network at a time.")]

# Networks that are looked at as they are.
NETWORKS = (
    "Classifiers of torchvision or timm, resnet18 or timm/resnet50.a1_in1k; or directories that "
    "gpe location, augshift or segment train left."
)
Weights = Annotated[
    str, option("pretrained; random, the control; or a file of a library network's weights.")
]
Images = Annotated[int | None, option("At most so many.", show_default="all")]

# Training; without them the preset decides.
PresetPrecision = Annotated[str | None, preset_option("fp32 or bf16.")]
Width = Annotated[int | None, preset_option("Channels of the first stage.")]
TrainImages = Annotated[int | None, preset_option("Images to train on.")]
TestImages = Annotated[int | None, preset_option("Images of a test.")]
TestBatchSize = Annotated[int | None, preset_option("Test images a batch.")]

# Classifiers of images that move.
ClassData = Annotated[
    str, option("digits, cifar10, cifar100, imagenet, or a folder of images by class.")
]
ClassRoot = Annotated[Path, option("Directory of CIFAR's or ImageNet's files.")]
Protocol = Annotated[
    str, option("What shifts in: zeros, reflect, circular, or crop: the image's own border.")
]

# Trained networks that name the class of each pixel.
PixelData = Annotated[
    str | None,
    option("streets, camvid, cityscapes or voc.", show_default="what it was trained on"),
]
Split = Annotated[str | None, option("train, val or test.", show_default="val")]
Size = Annotated[
    str | None, option("Resize images to HEIGHT,WIDTH.", show_default="as it was trained")
]
OutputStride = Annotated[
    int | None, option("Of a file's network: 8 or 16.", show_default="what the file is known for")
]
