"""One street, drawn from its seed: pixels, their labels, and boxes around people.

Roads seen from a car, with habits: on the left cars park before tall houses, and few people walk,
far away; on the right people walk close by, before low houses and trees. Position is needed to
tell some classes apart. Parking strip and pavement, left and right of the road, have greys and
grain of the same distribution and the same kerb, as the road has: of a patch of either, only its
place tells which it is. An overcast sky is of the same greys too. A rider differs from a
pedestrian by a wheel and by being on the road, mostly on its left. Everything else, such as
light from one side, the bend of the road or the colours, is drawn alike for left and right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from gpe.data.pixels import IGNORE
from gpe.errors import InputError, expect_integer, expect_one_of

CLASSES = (
    *("road", "parking", "pavement", "building", "vegetation", "sky"),
    *("person", "rider", "car"),
)
ROAD, PARKING, PAVEMENT, BUILDING, VEGETATION, SKY, PERSON, RIDER, CAR = range(len(CLASSES))
# RGB by class, after Cityscapes'. Kerbs are to be ignored.
PALETTE = (
    *((128, 64, 128), (250, 170, 160), (244, 35, 232), (70, 70, 70), (107, 142, 35)),
    *((70, 130, 180), (220, 20, 60), (255, 140, 0), (0, 0, 142)),
)
SPLITS = ("train", "val")
_LOTS = 24  # houses and groups of trees along a side
_SMALLEST = 32  # pixels of a side: below, people have no heads
_ASPECT = 0.41  # of people: width over height
_IN_PAIRS = 0.6  # of the pedestrians have another beside them, nearer or farther


class Scene(NamedTuple):
    """One street.

    Attributes:
        image: uint8 ``[H,W,3]``, RGB.
        labels: uint8 ``[H,W]``, places in ``CLASSES``; 255 on the kerbs.
        boxes: int64 ``[n,10]``, the people in CityPersons' form: class (1 pedestrian, 2 rider),
            x, y, width and height of the whole figure, its number, and x, y, width and height of
            what is seen of it (zeros where nothing is). In pixels; a whole figure may reach out
            of the image.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray


def draw(
    index: int, *, split: str = "train", seed: int = 0, height: int = 128, width: int = 256
) -> Scene:
    """Draws one street; the same one for the same arguments. The splits share no street.

    Raises:
        InputError: another split, a negative index or seed, an image smaller than 32×32 pixels.

    Example:
        >>> scene = draw(7, height=64, width=128)
        >>> scene.image.shape, scene.labels.shape, scene.boxes.shape[1]
        ((64, 128, 3), (64, 128), 10)
        >>> CLASSES[scene.labels[40, 2]], CLASSES[scene.labels[-1, 64]]
        ('vegetation', 'road')
    """
    expect_one_of("split", split, SPLITS)
    for name, value, least in (("index", index, 0), ("seed", seed, 0)):
        expect_integer(name, value, least)
    if min(height, width) < _SMALLEST:
        expected = f"expected at least {_SMALLEST}×{_SMALLEST} pixels"
        raise InputError(f"size: {expected}, got {height}×{width}")
    random = np.random.default_rng((seed, SPLITS.index(split), index))
    street = _Street.of(random, height, width)
    image, labels = _background(random, street)
    boxes = _populate(random, street, image, labels)
    return Scene(_expose(random, image), labels, boxes)


Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class _Street:
    """The perspective. Depth is 0 at the horizon and 1 where the bottom row meets the ground."""

    height: int
    width: int
    horizon: float  # of rows
    vanishing: float  # of columns
    # Columns at depth 1: outer edge of the parking strip, kerb, kerb, outer edge of the pavement.
    edges: tuple[float, float, float, float]

    @classmethod
    def of(cls, random: np.random.Generator, height: int, width: int) -> "_Street":
        shares = random.random(6)
        vanishing = width * (0.5 + 0.16 * (shares[0] - 0.5))
        left, right = (width * (0.22 + 0.2 * share) for share in shares[1:3])
        strips = [width * (0.3 + 0.3 * share) for share in shares[3:5]]
        horizon = height * (0.36 + 0.12 * shares[5])
        kerbs = vanishing - left, vanishing + right
        return cls(
            height, width, horizon, vanishing, (kerbs[0] - strips[0], *kerbs, kerbs[1] + strips[1])
        )

    def column(self, edge: float, depth: Number) -> Number:
        """The column at ``depth`` of what is at column ``edge`` at depth 1."""
        return self.vanishing + depth * (edge - self.vanishing)

    def depth(self, row: np.ndarray) -> np.ndarray:
        return np.maximum(row - self.horizon, 0) / (self.height - self.horizon)

    def row(self, depth: Number) -> Number:
        """Inverse of :meth:`depth`."""
        return self.horizon + depth * (self.height - self.horizon)

    def tall(self, label: int, depth: float) -> float:
        """How high someone or something stands at ``depth``, in pixels."""
        return self.height * ((0.34 if label == CAR else 0.8) * depth + 0.03)


def _background(
    random: np.random.Generator, street: _Street
) -> tuple[np.ndarray, np.ndarray]:  # float32 [H,W,3], uint8 [H,W]
    height, width = street.height, street.width
    rows = np.arange(height, dtype=np.float32)[:, None] + 0.5
    labels = np.full((height, width), SKY, np.uint8)
    image = np.empty((height, width, 3), np.float32)
    image[:] = _sky(random, rows, street)[:, None]
    middle = round(street.vanishing)
    for left, part in ((True, slice(middle)), (False, slice(middle, width))):
        columns = np.arange(width, dtype=np.float32)[part] + 0.5
        _houses(random, street, left, rows, columns, image[:, part], labels[:, part])

    ground = slice(int(np.ceil(street.horizon - 0.5)), height)
    depth = street.depth(rows[ground])
    _ground(random, street, depth, image[ground], labels[ground])
    return image, labels


def _ground(
    random: np.random.Generator,
    street: _Street,
    depth: np.ndarray,
    image: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Parking strip, road and pavement, lane markings and kerbs, below the horizon."""
    columns = np.arange(street.width, dtype=np.float32)[None] + 0.5
    edges = [street.column(edge, depth) for edge in street.edges]
    strip = sum((columns >= edge).astype(np.int8) for edge in edges)  # 0 and 4 are outside
    paved = np.logical_and(strip > 0, strip < 4)
    np.copyto(labels, np.array([0, PARKING, ROAD, PAVEMENT, 0], np.uint8)[strip], where=paved)
    greys = (70 + 90 * random.random(5)).astype(np.float32)
    np.copyto(image, greys[strip][..., None], where=paved[..., None])

    dashes = np.floor(3 / np.maximum(depth, 0.05) + random.random()) % 2 == 0
    middle = street.column(sum(street.edges[1:3]) / 2, depth)
    image[dashes & (np.abs(columns - middle) < 0.01 * street.width * depth)] = 215
    for edge in edges[1:3]:
        kerb = np.abs(columns - edge) < 0.3 + 0.012 * street.width * depth
        labels[kerb], image[kerb] = IGNORE, 190


def _sky(random: np.random.Generator, rows: np.ndarray, street: _Street) -> np.ndarray:
    """Blue or overcast, ``[H,3]``; lighter towards the horizon."""
    overcast = random.random() < 0.5
    grey = 70 + 90 * random.random()
    colour = np.array([grey] * 3 if overcast else [90, 140, 205 + 40 * random.random()])
    lighter = np.clip(rows / street.horizon, 0, 1) * (20 if overcast else 60)
    return (colour + lighter).astype(np.float32)


def _houses(
    random: np.random.Generator,
    street: _Street,
    left: bool,
    rows: np.ndarray,  # float32 [H,1]
    columns: np.ndarray,  # float32 [w], of this side of the vanishing point
    image: np.ndarray,  # [H,w,3]
    labels: np.ndarray,  # [H,w]
) -> None:
    """Houses and trees along one side: tall houses on the left, low ones and trees right."""
    outer = street.edges[0 if left else 3]
    # The row stands on the outer edge; nearer than the bottom of the image its depth exceeds 1.
    depth = np.maximum((columns - street.vanishing) / (outer - street.vanishing), 1e-3)
    place = (np.log2(depth) * 1.6 + random.random()).astype(np.float32)  # equally wide lots
    lot = np.clip(np.floor(place).astype(int) + 16, 0, _LOTS - 1)
    heights = random.random(_LOTS) * (0.75 if left else 0.3) + (0.55 if left else 0.18)
    wooded = (random.random(_LOTS) < (0.08 if left else 0.4))[lot]
    rise = np.maximum(heights[lot] * depth, 0.05) * street.height
    crowns = 0.55 + 0.25 * np.abs(np.sin(place * 9)) + 0.15 * random.random(len(columns))
    top = street.horizon - np.where(wooded, rise * crowns, rise)
    foot = street.row(depth)
    inside = (rows >= top.astype(np.float32)) & (rows < foot.astype(np.float32))
    np.copyto(labels, np.where(wooded, VEGETATION, BUILDING).astype(np.uint8), where=inside)

    storey = ((foot - rows) * (7 / (depth * street.height))).astype(np.float32)
    panes = (storey % 1 > 0.45) & (place * 5 % 1 > 0.5) & (storey > 0.6)
    leaves = 0.55 + 0.9 * random.random(inside.shape, dtype=np.float32)
    texture = np.where(wooded, leaves, np.where(panes, np.float32(0.45), np.float32(1)))
    walls = 90 + 120 * random.random((_LOTS, 1)) + 50 * (random.random((_LOTS, 3)) - 0.5)
    colours = np.where(wooded[:, None], (60, 95, 45), walls[lot]).astype(np.float32)
    np.copyto(image, texture[..., None] * colours, where=inside[..., None])


class _Thing(NamedTuple):
    """Someone or something that stands on the street."""

    label: int
    column: float  # of its middle
    depth: float


def _populate(
    random: np.random.Generator, street: _Street, image: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Draws cars and people, the nearest last; the people's boxes."""
    things = sorted(_things(random, street), key=lambda thing: thing.depth)
    owners = np.zeros(labels.shape, np.int16)  # which thing a pixel shows, from 1
    boxes = []
    for number, thing in enumerate(things, 1):
        tall = street.tall(thing.label, thing.depth)
        wide = tall * (1.7 * (0.8 + 0.4 * random.random()) if thing.label == CAR else _ASPECT)
        bottom = round(street.row(thing.depth))
        box = round(thing.column - wide / 2), round(bottom - tall), max(2, round(wide)), round(tall)
        _paint(random, thing.label, box, number, image, labels, owners)
        if thing.label != CAR:
            boxes.append((number, thing.label, *box))

    rows = []
    for number, label, x, y, w, h in boxes:
        y_seen, x_seen = np.nonzero(owners == number)
        seen = [0] * 4
        if len(x_seen):
            left, upper = x_seen.min(), y_seen.min()
            seen = [left, upper, x_seen.max() - left + 1, y_seen.max() - upper + 1]
        # Numbers as Cityscapes has them: 24 is a person, 25 a rider.
        kind = 1 if label == PERSON else 2
        rows.append([kind, x, y, w, h, (23 + kind) * 1000 + number, *seen])
    return np.array(rows, np.int64).reshape(-1, 10)


def _things(random: np.random.Generator, street: _Street) -> Iterator[_Thing]:
    outer_left, left, right, outer_right = street.edges
    # How many on average, what, between which edges, how near.
    habits = (
        (1.8, CAR, outer_left, left, 0.15, 0.8),
        (0.6, PERSON, outer_left, left, 0.1, 0.5),
        (1.5, PERSON, right, outer_right, 0.2, 0.85),
        (0.7, PERSON, right, outer_right, 0.06, 0.25),
        (0.7, CAR, left, right, 0.12, 0.6),
        (0.7, RIDER, left, (left + right) / 2, 0.25, 0.75),
        (0.2, RIDER, (left + right) / 2, right, 0.25, 0.75),
    )
    for mean, label, start, stop, far, near in habits:
        for _ in range(random.poisson(mean)):
            depth = far + (near - far) * random.random()
            edge = start + (stop - start) * (0.2 + 0.6 * random.random())
            thing = _Thing(label, street.column(edge, depth), depth)
            pair = label == PERSON and random.random() < _IN_PAIRS
            for one in (thing, _beside(random, street, thing)) if pair else (thing,):
                if 0 <= one.column < street.width:
                    yield one


def _beside(random: np.random.Generator, street: _Street, thing: _Thing) -> _Thing:
    """Somebody who walks along, of whom a part is hidden, or who hides a part."""
    apart = (0.2 + 0.45 * random.random()) * _ASPECT * street.tall(PERSON, thing.depth)
    side = 1 if random.random() < 0.5 else -1
    depth = thing.depth * (0.97 + 0.06 * random.random())
    return _Thing(PERSON, thing.column + side * apart, depth)


def _paint(
    random: np.random.Generator,
    label: int,
    box: tuple[int, int, int, int],
    number: int,
    image: np.ndarray,
    labels: np.ndarray,
    owners: np.ndarray,
) -> None:
    x, y, w, h = box
    # Height and width of the box run from 0 to 1.
    v = ((np.arange(h) + 0.5) / h)[:, None]
    u = ((np.arange(w) + 0.5) / w)[None]
    shape, colours = (_car if label == CAR else _figure)(random, u, v, label == RIDER)
    rows = slice(max(y, 0), min(y + h, labels.shape[0]))
    columns = slice(max(x, 0), min(x + w, labels.shape[1]))
    cut = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
    shape, colours = shape[cut], colours[cut]
    image[rows, columns][shape] = colours[shape]
    labels[rows, columns][shape] = label
    owners[rows, columns][shape] = number


def _car(
    random: np.random.Generator, u: np.ndarray, v: np.ndarray, _: bool
) -> tuple[np.ndarray, np.ndarray]:
    body = (v > 0.42) & (v < 0.88) & (u >= 0)
    cabin = (v <= 0.42) & (np.abs(u - 0.5) < 0.24 + 0.35 * v)
    wheels = (v >= 0.72) & ((np.abs(u - 0.2) < 0.11) | (np.abs(u - 0.8) < 0.11))
    colours = np.empty((*body.shape, 3), np.float32)
    colours[:] = 40 + 200 * random.random(3)
    colours[cabin & (v > 0.1)] = 45
    colours[wheels] = 25
    return body | cabin | wheels, colours


def _figure(
    random: np.random.Generator, u: np.ndarray, v: np.ndarray, rides: bool
) -> tuple[np.ndarray, np.ndarray]:
    head = ((u - 0.5) / 0.2) ** 2 + ((v - 0.09) / 0.09) ** 2 < 1
    torso = (v > 0.16) & (v < 0.56) & (np.abs(u - 0.5) < 0.34)
    arms = (v > 0.2) & (v < 0.5) & (np.abs(u - 0.5) >= 0.34)  # out to the edges of the box
    stride = 0.06 + 0.12 * random.random()
    legs = (v >= 0.56) & (np.abs(np.abs(u - 0.5) - stride * (v - 0.4) * 2) < 0.13)
    colours = np.empty((*torso.shape, 3), np.float32)
    colours[:] = 30 + 110 * random.random(3)  # trousers
    shirt = 40 + 200 * random.random(3)
    colours[torso], colours[arms] = shirt, 0.75 * shirt
    colours[head] = (np.array([215, 170, 140]) * (0.45 + 0.55 * random.random())).astype(np.float32)
    shape = head | torso | arms | legs
    if rides:
        wheel = (np.abs(u - 0.5) < 0.12) & (v > 0.66)
        colours[wheel] = 20
        shape = shape | wheel
    return shape, colours


def _expose(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, its colour, grain and noise: uint8 ``[H,W,3]``."""
    height, width = image.shape[:2]
    light = (
        0.65 + 0.55 * random.random() + 0.3 * (random.random() - 0.5) * np.linspace(-1, 1, width)
    )
    tint = 1 + 0.12 * (random.random(3) - 0.5)
    # Coarse grain, 4 pixels wide, and fine.
    coarse = random.standard_normal((height // 4 + 1, width // 4 + 1), dtype=np.float32) * 5
    noise = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    noise += random.standard_normal((height, width), dtype=np.float32) * (4 + 6 * random.random())
    lit = image * (light[:, None] * tint).astype(np.float32) + noise[..., None]
    return np.clip(lit, 0, 255, out=lit).astype(np.uint8)
