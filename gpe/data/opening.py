"""Image files as pixels: upright, in RGB, 8 bits a channel, or refused by name."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin
from torch.utils.data import get_worker_info

from gpe.errors import InputError, expect_integer

Interpolation = Literal["bilinear", "bicubic"]  # both antialiased, as PIL does it

_TELLING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # or TIFF's tags
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    path: str | os.PathLike[str], at_least: int | None = None, *, max_pixels: int | None = None
) -> Image.Image:
    """An image in RGB, upright: turned as its EXIF orientation says.

    Grey and palettes become RGB, CMYK without a colour profile. Transparency is dropped and leaves
    the colours that lie below it, as torchvision does. 16 bits a channel are scaled to 8. Other
    values have no known range and are refused: 32-bit integers and floating point.

    Args:
        path: of its file.
        at_least: a large JPEG may be decoded at a smaller scale (which is faster), with no
            side below this number of pixels; None decodes all of it.
        max_pixels: height times width, at most; Pillow's limit of 178,956,970 where None, against
            files that unpack to more than memory holds. More than that also raises Pillow's own
            limit, for all of the process.

    Raises:
        InputError: a file that cannot be read, with its name.
    """
    with _opened(path, "image", max_pixels) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        tag = orientation(image)
        image.load()
        upright = _rgb(image)
        if tag > 1:
            upright = turned(upright, orientation(image))  # a TIFF was turned as it was loaded
    if tag > 1:
        _say_upright()
    return upright


def open_labels(
    path: str | os.PathLike[str], *, max_pixels: int | None = None
) -> tuple[Image.Image, int]:
    """An image of one channel of 8 bits, whose values are labels, upright, and how it was turned.

    Raises:
        InputError: a file that cannot be read or is of another kind, with its name.
    """
    with _opened(path, "labels", max_pixels) as labels:
        tag = orientation(labels)
        labels.load()
        if labels.mode not in ("L", "P"):
            raise InputError(
                f"data: {path}: expected one channel of 8 bits that holds labels, got {labels.mode}"
            )
        return turned(labels, orientation(labels)), tag


def size_and_orientation(
    path: str | os.PathLike[str], *, max_pixels: int | None = None
) -> tuple[tuple[int, int], int]:
    """Width and height of an upright image, and how it was turned, without decoding it."""
    with _opened(path, "image", max_pixels) as image:
        tag, (width, height) = orientation(image), image.size
        # Pillow turns a TIFF by itself, and gives its upright size.
        swapped = tag >= 5 and image.format != "TIFF"
        return ((height, width) if swapped else (width, height)), tag


def orientation(image: Image.Image) -> int:
    """EXIF's tag, 1 to 8; 1 where there is none, or it cannot be read.

    A PNG's is only looked for in front of its pixels: behind them, it would have to be decoded.
    """
    if not (_TELLING & image.info.keys() or hasattr(image, "tag_v2")):
        return 1
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises almost anything on a damaged tag; the pixels are intact
        return 1
    return tag if tag in _TURNS else 1


def turned(image: Image.Image, tag: int) -> Image.Image:
    """The image turned as EXIF's orientation says."""
    return image.transpose(_TURNS[tag]) if tag in _TURNS else image


def resampling(interpolation: Interpolation) -> Image.Resampling:
    """Pillow's name of it."""
    return Image.Resampling[interpolation.upper()]


def expect_max_pixels(max_pixels: int | None) -> None:
    """Raise an InputError unless it is None or a whole number above 0."""
    if max_pixels is not None:
        expect_integer("max_pixels", max_pixels, 1)


def _say_upright() -> None:
    """Once, and of several workers by the first."""
    worker = get_worker_info()
    if worker is None or worker.id == 0:
        text = "data: images with an EXIF orientation are turned upright, and labels of pixels too"
        warnings.warn(text, stacklevel=3)


@contextmanager
def _opened(
    path: str | os.PathLike[str], what: str, max_pixels: int | None
) -> Iterator[Image.Image]:
    limit = Image.MAX_IMAGE_PIXELS
    if max_pixels is not None and limit is not None and max_pixels > limit:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a regular file")  # a pipe would be waited on for ever
        with Image.open(path) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(
                    f"{image.width}×{image.height} are {image.width * image.height} pixels"
                )
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        most = "Pillow's limit" if max_pixels is None else max_pixels
        raise InputError(
            f"max_pixels: expected images of at most {most}, got {path}: {error}; "
            "a larger max_pixels reads it"
        ) from None
    except Exception as error:  # PIL raises OSError, SyntaxError, struct.error, … by format
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"data: cannot read the {what} {path}: {reason}") from None


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "F" or (mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating point" if mode == "F" else "integers"
        raise ValueError(f"expected 8 or 16 bits a channel, got {kind} of more (mode {mode})")
    if mode == "I" or mode.startswith("I;16"):
        # TIFF alone has 12 bits in 16, and values in which 0 is white, which Pillow leaves so.
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        values = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            values = 255 - values
        return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
