"""What the command line makes of warnings."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("category", "shown"),
    [
        ("UserWarning", "gpe: slower: no kernel\n"),
        ("RuntimeWarning", "<string>:6: RuntimeWarning: slower:\n  no kernel\n"),
    ],
)
def test_a_warning_for_the_user_is_one_plain_line(category, shown):
    code = f"""
import sys, warnings
from gpe import cli
@cli.app.command()
def warns():
    warnings.warn("slower:\\n  no kernel", {category})
sys.argv[1:] = ["warns"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", shown)
