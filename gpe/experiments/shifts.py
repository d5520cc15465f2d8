"""What experiments with images that move know of the shifts. Nothing here imports torch."""

from collections.abc import Sequence

from gpe.errors import InputError

PROTOCOL_HELP = "What shifts in: zeros, reflect, circular, or crop: the image's own border"
PAPER_SHIFTS = (8, 16)  # of Table 2: the first to be reported


def expect_room(shifts: Sequence[int], protocol: str, *, image_size: int, resize_size: int) -> None:
    """Raise an InputError unless a protocol has pixels for all of ``shifts``.

    Args:
        shifts: in pixels.
        protocol: what shifts in.
        image_size: of what the network sees, the centre of an image of ``resize_size``.
    """
    if resize_size < image_size:
        raise InputError(
            f"resize_size: expected at least image_size, {image_size}, got {resize_size}"
        )
    reach = {
        "crop": (resize_size - image_size) // 2,
        "reflect": image_size - 1,
        "circular": image_size,
    }
    largest = reach.get(protocol, max(shifts))
    if max(shifts) > largest:
        raise InputError(
            f"shifts: expected at most {largest} pixels with protocol {protocol}, got {max(shifts)}"
        )
