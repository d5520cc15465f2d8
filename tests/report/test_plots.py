"""Drawings follow the colours of the page and are the same each time."""

import re

import numpy as np

from gpe.report.plots import BandLine, Line, by_shift, curves, drawing, png
from tests.reporting import pixels


def line(points, colour="blue"):
    return Line(points, marked=max(points), colour=colour, width=1.0, dashes="")


def test_every_colour_is_one_of_the_page_s():
    figure = curves([line({1: 10.0, 2: 90.0}), line({1: 5.0}, "red")], percent=True, chance=10.0)
    assert figure.startswith("<svg") and "var(--blue)" in figure and "var(--red)" in figure
    assert not re.search(r"#0000\d\d", figure)


def test_the_same_numbers_make_the_same_figure():
    one, again = (curves([line({1: 1.0, 2: 0.5})], percent=False) for _ in range(2))
    assert one == again


def test_one_epoch_and_one_shift_are_drawn():
    assert "<svg" in curves([line({1: 50.0})], percent=True)
    band = BandLine({8.0: (50.0, 40.0, 60.0)}, paper={8.0: 70.0}, colour="teal", dashes="")
    assert "var(--teal)" in by_shift([band])


def test_pictures_are_their_pixels():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(pixels(png(image)), image)


def test_what_a_drawing_shows_is_said_and_escaped():
    svg = drawing("<rect/>", box="0 0 2 2", alt='"><b>', style="maps")
    assert svg == (
        '<svg class="maps" viewBox="0 0 2 2" role="img" aria-label="&quot;&gt;&lt;b&gt;">'
        "<rect/></svg>"
    )
