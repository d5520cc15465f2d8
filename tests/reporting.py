"""What the tests of the report share: a page that was read, and records that no run has made."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import torch
from PIL import Image

from gpe.experiments.reports import write_report
from gpe.records import RECORD, Record, save_arrays
from gpe.report.runs import Run

CLASSES = ["cat", "dog", "frog"]


def find(paths):
    """The directories at or below some that hold a record."""
    return sorted(record.parent for path in paths for record in path.rglob(RECORD))


def report(directory):
    page = directory / "report.html"
    write_report(find([directory]), page)
    return page.read_text(encoding="utf-8")


def runs_of(*directories):
    return [Run.load(directory) for directory in directories]


class Page(HTMLParser):
    """Text of every table as rows of cells, text by tag, and all (tag, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.texts, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        while self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] = " ".join(f"{self.tables[-1][-1][-1]} {data}".split())

    def count(self, tag, **wanted):
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return sum(kind == tag and wanted.items() <= has.items() for kind, has in self.tags)

    def row(self, label):
        """The cells behind the row of Table 1 that begins with ``label``."""
        return next(row[1:] for row in self.tables[0] if row[0].startswith(label))


def pixels(source):
    """The picture at a ``data:`` address."""
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)))


def augshift_run(
    directory,
    method="augshift",
    *,
    consistency=75.0,
    accuracy=58.0,
    best=60.0,
    shifts=(1, 8),
    paper=None,
    probabilities=None,
    **config,
):
    """A finished run of two epochs, the first the better; one percent is lost by each pixel.

    ``consistency`` is that of 8 pixels, two percent on each side of it its interval, and the
    shifted images are named rightly by half of it. ``paper`` is accuracy and consistency.
    """
    two = method in ("wide-crops", "augshift", "blurpool-augshift")
    defaults = {
        "method": method,
        "network": "resnet18",
        "width": 16,
        "data": "cifar10",
        "split": "test",
        "image_size": 4,
        "preset": "quick",
        "equal_compute": True,
        "crop_shift": 8 if two else 4,
        "weight": 1.0 if method.endswith("augshift") else 0.0,
        "shifts": list(shifts),
        "protocol": "zeros",
        "passes": 3,
        "seed": 0,
    }
    epochs = [
        {"epoch": 1, "test_loss": 0.5, "test_accuracy": best},
        {"epoch": 2, "test_loss": 0.7, "test_accuracy": accuracy},
    ]
    rows = [(shift, consistency + 8 - shift) for shift in shifts]
    Record(
        experiment="augshift",
        config=defaults | config,
        epochs=epochs,
        result={
            "last": {"epoch": 2, "test_accuracy": accuracy},
            "best": {"epoch": 1, "test_accuracy": best},
            "consistency": [_row(shift, value) for shift, value in rows],
            "classes": CLASSES,
        },
        chance=100 / 3,
        paper=paper
        and {
            "source": "Table 2",
            "value": paper[0],
            "protocol": "not stated",
            "consistency": {"8": paper[1]},
        },
        run={"seconds": 31.0, "images_per_second": 800.0, "hardware": {"cpu": "a <cpu>"}},
    ).save(directory)
    if probabilities is not None:
        probabilities = torch.tensor(probabilities)
        count, steps, _ = probabilities.shape
        arrays = {
            "images": (torch.arange(count * 48) % 255 + 1).byte().view(count, 3, 4, 4),
            "labels": torch.arange(count) % 3,
            "shifts": torch.arange(steps) - steps // 2,
            "probabilities": probabilities,
        }
        save_arrays(directory, arrays)
    return directory


def consistency_run(directory, model="resnet18", *, consistency=90.0, accuracy=70.0, **config):
    """What ``gpe consistency`` leaves behind, for shifts of 8 and 32 pixels."""
    defaults = {
        "model": model,
        "weights": "V1",
        "data": "photos",
        "protocol": "crop",
        "shifts": [8, 32],
        "passes": 1,
        "seed": 0,
    }
    Record(
        experiment="consistency",
        config=defaults | config,
        epochs=[],
        result={
            "consistency": [_row(8, consistency), _row(32, consistency - 10)],
            "accuracy": accuracy,
            "classes": CLASSES,
        },
        chance=100 / 3,
        paper=None,
        run={"seconds": 31.0},
    ).save(directory)
    return directory


def _row(shift, value):
    interval = {"low": value - 2, "high": value + 2}
    return {"shift": shift, "consistency": value, **interval, "pairs": 9, "accuracy": value / 2}
