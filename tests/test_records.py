"""What a run leaves behind comes back as it was, or says what is wrong with it."""

import json
import shutil
import subprocess
from dataclasses import replace

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


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b"{}", b'{"experiment": "x"}'])
def test_what_is_no_record_is_named(content, tmp_path):
    (tmp_path / records.RECORD).write_bytes(content)
    with pytest.raises(InputError, match=r"record\.json is not a record"):
        Record.load(tmp_path)


@pytest.mark.parametrize("name", ["experiment", "config", "epochs", "result", "run"])
def test_a_field_of_another_kind_is_named(name, record, tmp_path):
    replace(record, **{name: 7}).save(tmp_path)
    with pytest.raises(InputError, match=rf"record\.json is not a record: {name}: .*got 7"):
        Record.load(tmp_path)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(InputError, match=f"expected {tmp_path}"):
        Record.load(tmp_path)


def test_find_lists_every_run_once(record, tmp_path, monkeypatch):
    """Also where a path is given twice, once relative and once absolute."""
    for name in ("b", "a/deep", "c"):
        record.save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert records.find([tmp_path]) == [tmp_path / name for name in ("a/deep", "b", "c")]
    assert len(records.find([".", tmp_path, "b"])) == 3


def test_find_refuses_paths_without_runs(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=f"runs: expected a directory, got {path}"):
            records.find([path])
    with pytest.raises(InputError, match=r"runs: no record\.json below"):
        records.find([tmp_path])


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
