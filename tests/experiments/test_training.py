"""The training loop, on a trial of paper: what it records, and how it goes on."""

import io
from dataclasses import dataclass

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from gpe.errors import InputError
from gpe.experiments.options import TrainingConfig, option, seed_option
from gpe.experiments.progress import Progress
from gpe.experiments.runs import CHECKPOINT, as_json
from gpe.experiments.training import Tally, fit
from gpe.records import ARRAYS, RECORD, Record, load_arrays

ACCURACIES = (10, 60, 30, 60, 20)  # in percent, of the test after each epoch


@dataclass(frozen=True, kw_only=True)
class PaperConfig(TrainingConfig):
    epochs: int = option("Number of epochs", len(ACCURACIES))
    betas: tuple[float, float] = option("Betas", (0.5, 0.999))
    seed: int = seed_option("Seed")


CONFIG = PaperConfig()


class PaperTrial:
    """Its weight is a sum of draws from torch's global generator; its accuracies are given."""

    images_per_epoch = 20
    num_classes = 2
    device = torch.device("cpu")

    def __init__(self, *, stop=None, nan=None):
        self.weight = torch.zeros(1)
        self.stop, self.nan = stop, nan
        self.trained = []

    def train_epoch(self, epoch):
        self.trained.append(epoch)
        for step in range(2):
            self.weight += torch.rand(1)
            if (epoch, step) == self.stop:
                raise KeyboardInterrupt
            yield tally(hits=5, of=10, nan=(epoch, "train") == self.nan)

    def test(self, epoch):
        tested = tally(hits=ACCURACIES[epoch - 1], of=100, nan=(epoch, "test") == self.nan)
        return tested, {"weight": self.weight}

    def measure(self):
        return {"weight": self.weight.item()}, {"weight": self.weight, "doubled": 2 * self.weight}

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


def tally(*, hits, of, nan=False):
    counted = Tally()
    logits = torch.eye(2)[torch.arange(of).ge(hits).long()] * (float("nan") if nan else 1)
    counted.add(logits, torch.zeros(of).long())
    return counted


def train(directory, trial, *, config=CONFIG):
    torch.seed()  # as in a new process: what was there before must not matter
    record = fit("paper", trial, config, directory, Progress(Console(file=io.StringIO())))
    record.save(directory)  # as run_all does
    return record


def interrupt(directory, *, stop):
    with pytest.raises(KeyboardInterrupt):
        train(directory, PaperTrial(stop=stop))


def outside_run(record):
    return {name: value for name, value in vars(record).items() if name != "run"}


def test_a_tally_is_the_mean_over_all_images_in_batches_of_any_size():
    logits = torch.randn(70, 5, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    target = torch.arange(70) % 5
    counted = Tally()
    for part in torch.arange(70).split(32):
        loss = counted.add(logits[part], target[part])
        assert torch.equal(loss, F.cross_entropy(logits[part].float(), target[part]))
    assert counted.count == 70
    assert counted.loss == pytest.approx(float(F.cross_entropy(logits.double(), target)), rel=1e-6)
    assert counted.accuracy == pytest.approx(100 * (logits.argmax(1) == target).float().mean())


def test_the_loss_of_a_tally_is_one_to_train_on():
    logits = torch.zeros(2, 3, requires_grad=True)
    Tally().add(logits, torch.tensor([0, 1])).backward()
    assert logits.grad.abs().sum() > 0


def test_the_record_keeps_every_epoch_and_says_which_is_best_and_which_is_last(tmp_path):
    """Of two epochs that are as good the first is the best; what was measured last is there too."""
    trial = PaperTrial()
    record = train(tmp_path, trial)
    assert Record.load(tmp_path) == record
    assert [epoch["epoch"] for epoch in record.epochs] == [1, 2, 3, 4, 5]
    assert [epoch["test_accuracy"] for epoch in record.epochs] == pytest.approx(ACCURACIES)
    assert {epoch["train_accuracy"] for epoch in record.epochs} == {50.0}
    assert record.result == {
        "last": {"epoch": 5, "test_accuracy": pytest.approx(20)},
        "best": {"epoch": 2, "test_accuracy": pytest.approx(60)},
        "weight": trial.weight.item(),
    }
    assert torch.equal(load_arrays(tmp_path)["doubled"], 2 * trial.weight)
    assert record.chance == 50.0 and record.config == as_json(CONFIG)


def test_the_record_says_where_when_and_how_fast_it_was_made(tmp_path):
    run = train(tmp_path, PaperTrial()).run
    expected = {"seconds", "images_per_second", "finished", "hardware", "versions", "commit"}
    assert run.keys() == expected | {"processes"}
    assert run["seconds"] > 0 and run["images_per_second"] > 0
    assert {"cpu", "threads", "device"} <= run["hardware"].keys()
    assert {"python", "torch", "torchvision", "gpe"} <= run["versions"].keys()


@pytest.mark.parametrize("stop", [(1, 0), (1, 1), (2, 0), (4, 1), (5, 1)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(stop, tmp_path):
    """Also a network that draws from torch's global generator, as one with dropout does."""
    whole = train(tmp_path / "whole", PaperTrial())
    interrupt(tmp_path / "parts", stop=stop)
    assert not (tmp_path / "parts" / RECORD).exists()

    rest = PaperTrial()
    parts = train(tmp_path / "parts", rest)
    assert rest.trained == list(range(stop[0], 6))
    assert outside_run(parts) == outside_run(whole)
    arrays = [load_arrays(tmp_path / name)["weight"] for name in ("whole", "parts")]
    assert torch.equal(*arrays)


def test_seconds_are_those_of_all_parts(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("gpe.experiments.training.time.perf_counter", lambda: next(clock))
    whole = train(tmp_path / "whole", PaperTrial())
    interrupt(tmp_path / "parts", stop=(4, 0))
    parts = train(tmp_path / "parts", PaperTrial())
    for name in ("seconds", "images_per_second"):
        assert parts.run[name] == pytest.approx(whole.run[name])


def test_interrupted_before_its_record_a_run_trains_nothing_again(tmp_path):
    whole = train(tmp_path, PaperTrial())
    (tmp_path / RECORD).unlink()
    rest = PaperTrial()
    assert outside_run(train(tmp_path, rest)) == outside_run(whole)
    assert rest.trained == []


def test_halves_of_files_that_a_killed_run_left_do_no_harm(tmp_path):
    """They have names of their own: nobody takes them for a checkpoint, an array or a record."""
    whole = train(tmp_path / "whole", PaperTrial())
    interrupt(tmp_path / "parts", stop=(3, 0))
    for name in (CHECKPOINT, ARRAYS, RECORD):
        (tmp_path / "parts" / f".{name}.12345").write_bytes(b"hal")
    parts = train(tmp_path / "parts", PaperTrial())
    assert outside_run(parts) == outside_run(whole)


def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    interrupt(tmp_path, stop=(3, 0))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def half(state, path):
        path.write_bytes(before[: len(before) // 2])
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space"):
            train(tmp_path, PaperTrial())
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    rest = PaperTrial()
    train(tmp_path, rest)
    assert rest.trained == [3, 4, 5]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    interrupt(tmp_path, stop=(3, 0))
    trial = PaperTrial()
    with pytest.raises(InputError, match=r"resume: .*checkpoint\.pt is of another configuration"):
        train(tmp_path, trial, config=PaperConfig(epochs=4))
    assert trial.trained == []


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"not torch's")
    with pytest.raises(InputError, match=r"resume: .*checkpoint\.pt is no checkpoint"):
        train(tmp_path, PaperTrial())
    for foreign in ({"net": {}, "acc": 99.0}, [torch.zeros(1)]):
        torch.save(foreign, tmp_path / CHECKPOINT)
        with pytest.raises(InputError, match=r"resume: .*checkpoint\.pt is of another"):
            train(tmp_path, PaperTrial())


@pytest.mark.parametrize("nan", [(3, "train"), (3, "test")])
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_learning_rate(nan, tmp_path):
    """The last epoch's weights may be the first to be bad: then the test alone tells."""
    with pytest.raises(InputError, match="learning_rate: the loss became nan in epoch 3"):
        train(tmp_path, PaperTrial(nan=nan))
    assert not (tmp_path / RECORD).exists()
    rest = PaperTrial()
    train(tmp_path, rest)
    assert rest.trained == [3, 4, 5]
