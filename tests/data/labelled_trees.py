"""Small trees in the on-disk forms of segmentation datasets, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


def picture(number, size=(24, 40)):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def camvid(root: Path, counts=(("train", 3), ("val", 2)), size=(24, 40)) -> Path:
    """Image n is of class n everywhere, but for a row that is unlabelled."""
    for split, count in dict(counts).items():
        for number in range(count):
            write(root / "camvid" / split / f"{split}_{number:03}.png", picture(number, size))
            labels = np.full(size, number, np.uint8)
            labels[0] = 11
            write(root / "camvid" / f"{split}annot" / f"{split}_{number:03}.png", labels)
    return root


def cityscapes(root: Path, ids=(7, 11, 24, 33), size=(16, 32)) -> Path:
    """Two images a split, in two cities; each column of pixels has the next of ``ids``."""
    for split in ("train", "val"):
        for city in ("aachen", "ulm"):
            name = f"{city}_000000_00001{len(city) % 10}"
            image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            write(image, picture(len(city), size))
            labels = np.resize(np.array(ids, np.uint8), size)
            folder = root / "gtFine" / split / city
            write(folder / f"{name}_gtFine_labelIds.png", labels)
    return root


def annotations(path: Path, boxes) -> None:
    """Boxes ``[n,10]`` by id in CityPersons' form."""
    cells = np.empty((1, len(boxes)), object)
    for place, (name, people) in enumerate(boxes.items()):
        city = name.partition("_")[0]
        cells[0, place] = {"cityname": city, "im_name": f"{name}_leftImg8bit.png", "bbs": people}
    savemat(path, {f"{path.stem}_aligned": cells})


def voc(root: Path, sizes=((20, 30), (24, 18))) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    names = [f"2007_00000{number}" for number in range(len(sizes))]
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        write(base / "JPEGImages" / f"{name}.jpg", picture(number, size))
        labels = Image.fromarray(np.full(size, 15, np.uint8), mode="P")
        labels.putpalette([0] * 768)
        labels.paste(255, (0, 0, 5, 1))
        (base / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        labels.save(base / "SegmentationClass" / f"{name}.png")
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root
