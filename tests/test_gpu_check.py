"""make gpu-check, with stand-ins for the GPU and for its steps: order, limits, what is left."""

import json
import sys

import pytest

from benches import gpu_check
from benches.gpu_check import Step, chosen, steps


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A function that runs ``gpu-check`` with these steps; the exit code and the outcomes."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "machine", lambda: {"hardware": "a stand-in"})

    def of(*found, words=()):
        monkeypatch.setattr(gpu_check, "steps", lambda *_: list(found))
        monkeypatch.setattr(sys, "argv", ["gpu-check", str(tmp_path), *words])
        code = gpu_check.main()
        summary = tmp_path / "summary.json"
        done = json.loads(summary.read_text())["steps"] if summary.exists() else []
        return code, [(each["step"], each["result"], each["summary"]) for each in done]

    return of


def script(name, text, limit=30):
    return Step(name, limit, ["-c", text], r"\d+ passed")


def test_a_step_that_fails_or_hangs_does_not_stop_the_next(check, tmp_path):
    hangs = "import time; print('begun', flush=True); time.sleep(60)"
    found = check(
        script("a", "print('3 passed')"),
        script("b", "raise SystemExit('no')"),
        script("c", hangs, limit=2),
        script("d", "print('4 passed')"),
    )
    assert found == (
        1,
        [
            ("a", "passed", "3 passed"),
            ("b", "failed", "no"),
            ("c", "timed out", "begun"),
            ("d", "passed", "4 passed"),
        ],
    )
    assert (tmp_path / "a.log").read_text() == "3 passed\n"


def test_what_was_done_is_on_disk_before_the_next_step(check, tmp_path):
    seen = f"import json; print(len(json.load(open({str(tmp_path / 'summary.json')!r}))['steps']))"
    code, done = check(script("a", "print('1 passed')"), script("b", seen))
    assert code == 0 and done[1] == ("b", "passed", "1")


def test_all_steps_together_have_a_limit(check, monkeypatch):
    monkeypatch.setattr(gpu_check, "SECONDS", 0)
    assert check(script("a", "print('1 passed')")) == (
        1,
        [("a", "timed out", "not begun: 0 s were over")],
    )


def test_steps_are_chosen_by_name_in_their_own_order(check, capsys):
    parts = [script(name, "print('1 passed')") for name in "abc"]
    code, done = check(*parts, words=["--steps", "c, a"])
    assert code == 0 and [name for name, _, _ in done] == ["a", "c"]
    assert check(*parts, words=["--steps", "z"])[0] == 2
    assert "STEPS: expected some of a, b, c, got z" in capsys.readouterr().err


def test_the_steps_fit_and_begin_with_what_would_be_missed_most(tmp_path):
    every = steps("runs", tmp_path, None)
    names = [step.name for step in every]
    assert names[:3] == ["build", "values", "bench"] and names[-1] == "tests"
    assert chosen(every, "") == every
    # Those whose numbers go into the README are done before the time is over, come what may.
    assert sum(step.limit for step in every[:4]) <= gpu_check.SECONDS
    real = steps("runs", tmp_path, tmp_path)
    assert ["cifar10", "--root", str(tmp_path)] == real[3].arguments[-3:]
