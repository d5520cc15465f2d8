"""What a run leaves behind comes back as it was, or says what is wrong with it."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpe import records
from gpe.errors import InputError
from gpe.records import Record


@pytest.fixture
def record():
    return Record(
        experiment="location",
        config={"network": "gapnet", "seed": 0},
        epochs=[{"epoch": 1, "test_accuracy": 99.5}],
        result={"best": {"epoch": 1, "test_accuracy": 99.5}},
        chance=100 / 9,
        paper=None,
        run={"seconds": 1.5},
    )


def test_a_record_comes_back_equal(record, tmp_path):
    record.save(tmp_path / "new" / "folder")
    assert Record.load(tmp_path / "new" / "folder") == record


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe\x00", b"[]", b"{}", b"3", b"null", b'{"experiment": "x"}'),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900),
        *(b'{"experiment": "\xff"}', b"1" * 5000, b'"a\nb"'),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_record_is_named(content, tmp_path):
    (tmp_path / records.RECORD).write_bytes(content)
    with pytest.raises(InputError, match=r"record\.json is not a record"):
        Record.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["paper", "chance", "experiment", "config", "epochs", "result", "run"]
)
def test_a_field_of_another_kind_is_named(name, record, tmp_path):
    replace(record, **{name: [7]}).save(tmp_path)
    with pytest.raises(InputError, match=rf"record\.json is not a record: {name}: .*got .7"):
        Record.load(tmp_path)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(InputError, match=f"expected {tmp_path}"):
        Record.load(tmp_path)


def test_every_run_is_loaded_once(record, tmp_path, monkeypatch):
    """Also where a path is given twice, once relative and once absolute."""
    for seed, name in enumerate(("b", "a/deep", "c")):
        replace(record, config={"seed": seed}).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    found, notes = records.load_all([tmp_path])
    assert list(found) == [tmp_path / name for name in ("a/deep", "b", "c")]
    again, notes_again = records.load_all([".", tmp_path, "b"])
    assert len(again) == 3
    assert notes == notes_again == []


def test_paths_without_runs_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=f"runs: expected a directory, got {path}"):
            records.load_all([path])
    with pytest.raises(InputError, match=r"runs: no record\.json below"):
        records.load_all([tmp_path])


@dataclass
class Options:
    sizes: tuple[int, ...] = (3, 5)
    data: Path = Path("images")


def test_a_record_is_made_of_a_config_and_what_was_measured(tmp_path):
    result = {
        "miou": {"left": math.nan, "right": np.float32(0.5)},
        "counts": torch.tensor([1, 2]),
        "by_shift": {8: torch.tensor(91.5)},
    }
    made = Record.of(
        *("segment", Options(), result),
        chance=25,
        seconds=1.5,
        epochs=[{"epoch": 1, "test_accuracy": math.nan}],
        run={"images_per_second": 7.0},
    )
    assert made.config == {"sizes": [3, 5], "data": "images"}
    assert made.result == {
        "miou": {"left": None, "right": 0.5},
        "counts": [1, 2],
        "by_shift": {"8": 91.5},
    }
    assert made.epochs == [{"epoch": 1, "test_accuracy": None}]
    assert made.run["seconds"] == 1.5 and made.run["images_per_second"] == 7.0
    assert made.run["processes"] == 1 and made.run["hardware"]["device"] == "cpu"
    assert made.run["finished"].endswith("+00:00")
    made.save(tmp_path)
    assert Record.load(tmp_path) == made


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("config", {"lr": math.nan}, r"config\.lr: expected a finite number, got nan"),
        ("paper", {"value": math.nan}, r"paper\.value: expected a finite number, got nan"),
        ("chance", math.inf, "chance: expected a finite number, got inf"),
        ("result", {"rows": [{"miou": -math.inf}]}, r"result\.rows\[0\]\.miou: .*got -inf"),
        ("result", {"of": {1, 2}}, r"result\.of: expected what JSON can hold, got set"),
        ("result", {"of": {1: 2, "1": 3}}, r"result\.of: expected names, each once"),
    ],
)
def test_what_json_cannot_hold_is_named_and_nothing_is_written(
    name, value, complaint, record, tmp_path
):
    with pytest.raises(InputError, match=complaint):
        replace(record, **{name: value}).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nan_that_was_written_before_is_a_missing_result(record, tmp_path):
    """Python's JSON is not strict by itself: records of segmentation had NaN."""
    text = json.dumps(vars(record) | {"result": {"left": math.nan}})
    (tmp_path / records.RECORD).write_text(text)
    assert Record.load(tmp_path).result == {"left": None}
    for name, value in (("config", {"lr": math.nan}), ("result", {"left": math.inf})):
        (tmp_path / records.RECORD).write_text(json.dumps(vars(record) | {name: value}))
        with pytest.raises(InputError, match=rf"not a record: {name}\.l.*: expected a finite"):
            Record.load(tmp_path)


def test_complaints_are_one_line(tmp_path):
    (tmp_path / records.RECORD).write_text('{"a\\nb": 1}')
    with pytest.raises(InputError) as raised:
        Record.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    for name in (records.RECORD, records.ARRAYS):
        os.mkfifo(tmp_path / name)
    (tmp_path / "a" / records.RECORD).mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "a"):
        with pytest.raises(InputError, match=r"record\.json is not a record: expected a file"):
            Record.load(directory)
    with pytest.raises(InputError, match=r"arrays\.safetensors is damaged: expected a file"):
        records.load_arrays(tmp_path)


def test_no_links_are_followed_and_it_is_told_what_cannot_be_read(record, tmp_path, monkeypatch):
    record.save(tmp_path / "a")
    for name in ("loop", "other"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert list(records.load_all([tmp_path])[0]) == [tmp_path / "a"]
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, notes = records.load_all([tmp_path])
    assert list(found) == [tmp_path / "a"]
    assert notes == [f"{tmp_path / 'closed'} is left out: Permission denied"]


def test_one_bad_record_blocks_no_other(record, tmp_path):
    record.save(tmp_path / "a")
    replace(record, config={"seed": 1}).save(tmp_path / "b")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / records.RECORD).write_text("{")
    found, notes = records.load_all([tmp_path])
    assert list(found) == [tmp_path / "a", tmp_path / "b"]
    assert len(notes) == 1 and "bad/record.json is not a record" in notes[0]
    with pytest.raises(InputError, match=r"no record\.json that can be read: .*bad/record\.json"):
        records.load_all([tmp_path / "bad"])


def test_a_file_may_hold_several_records(record, tmp_path):
    record.save(tmp_path / "a")
    (tmp_path / "a" / "ranking.json").write_text("{}")  # belongs to the run
    others = [asdict(replace(record, config={"seed": seed})) for seed in (1, 2)]
    bad = {"experiment": "location", "config": 3}
    for name, content in (
        ("one", {"runs": [asdict(replace(record, config={"seed": 3}))]}),
        ("several", {"title": "two, and one that is none", "runs": [*others, bad]}),
        ("networks", {"networks": []}),
        ("runs", {"runs": [{"seed": 1}]}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "text.json").write_text("{")
    found, notes = records.load_all([tmp_path])
    several = tmp_path / "several.json"
    assert list(found) == [tmp_path / "one.json", several / "1", several / "2", tmp_path / "a"]
    assert [found[several / n].config["seed"] for n in "12"] == [1, 2]
    assert len(notes) == 2 and notes[0].startswith(f"{several / '3'} is not a record: ")
    left_out = "networks.json, runs.json, text.json left out, no record in it"
    assert notes[1] == f"{tmp_path}: {left_out}"


def test_a_copy_counts_once(record, tmp_path):
    """Also one that another machine made, to the bit; not one with another result."""
    record.save(tmp_path / "a")
    replace(record, run={"seconds": 2}).save(tmp_path / "copy")
    replace(record, result={"best": {"epoch": 2}}).save(tmp_path / "other")
    found, notes = records.load_all([tmp_path])
    assert list(found) == [tmp_path / "a", tmp_path / "other"]
    assert notes == [f"{tmp_path / 'copy'} is a copy of {tmp_path / 'a'} and counts once"]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "\udcff"], ids=ascii)
def test_the_name_of_a_directory_fits_a_file_system(letter, tmp_path):
    names = {records.directory_name(Options((n,)), "rank", letter * 400) for n in range(3)}
    assert len(names) == 3
    for name in names:
        assert len(os.fsencode(name)) <= 255
        (tmp_path / name).mkdir()
    assert records.directory_name(Options((1,), data="b"), "a", "b").startswith("a-b-")


def test_a_file_with_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("é" * 127)
    with records.atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_what_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with (
            pytest.raises(InputError, match=f"cannot write {path}: [A-Z][a-z ]+$"),
            records.atomic(path) as temporary,
        ):
            temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("torchs", [False, True], ids=["bytes", "torch.save"])
def test_a_full_disk_is_named_with_the_file(torchs, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError) as raised, records.atomic(path):
        if torchs:
            torch.save(torch.zeros(100), "/dev/full")
        Path("/dev/full").write_bytes(b"x")
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert path.read_text() == "old"


def test_reading_a_record_takes_no_torch():
    code = "import sys, gpe.records; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0


def test_arrays_come_back_equal(tmp_path):
    """Also those that share memory (targets are locations) or lie strided in it."""
    numbers = torch.arange(6)
    arrays = {
        "locations": numbers,
        "targets": numbers,
        "strided": numbers.view(2, 3).t(),
        "canvases": torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
    }
    records.save_arrays(tmp_path, arrays)
    loaded = records.load_arrays(tmp_path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert torch.equal(loaded[name], array)


def test_absent_arrays_are_none_and_damaged_ones_are_named(tmp_path):
    assert records.load_arrays(tmp_path) == {}
    (tmp_path / records.ARRAYS).write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"arrays\.safetensors is damaged"):
        records.load_arrays(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), records.atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_environment_is_plain_data_about_this_machine():
    environment = records.environment(torch.device("cpu"))
    assert json.loads(json.dumps(environment)) == environment
    assert environment["hardware"]["device"] == "cpu"
    assert environment["hardware"]["cpu"]
    assert environment["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("own", [True, False], ids=["gpe's checkout", "another project's"])
def test_the_commit_is_that_of_gpe(own, tmp_path, monkeypatch):
    """gpe in an environment inside another project must not report that project's commit."""
    package = tmp_path / ("gpe" if own else ".venv/site-packages/gpe")
    package.mkdir(parents=True)
    (package / "records.py").write_text("# gpe")
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit():
        return records.environment(torch.device("cpu"))["commit"]

    git("init")
    assert commit() is None
    git("add", ".")
    git("commit", "-m", "first")
    assert commit() == (git("rev-parse", "--short", "HEAD") if own else None)
    (package / "records.py").write_text("# changed")
    assert commit() == (git("rev-parse", "--short", "HEAD") + "+" if own else None)
