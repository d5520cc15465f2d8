"""README and site: code blocks run, commands parse, links lead somewhere, every name is there."""

import re
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

import gpe
import gpe.cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MADE = ROOT / "docs" / "reference" / "commands.md"  # when the site is built
SITE = sorted({*(ROOT / "docs").rglob("*.md")} - {MADE})
PAGES = [README, *SITE]
SHOWN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md"]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    """The number of the line before each block of code in a language, and the block."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(.*)\n((?s:.*?))^\1```$", text, re.M):
        if found[2] == language:
            yield text.count("\n", 0, found.start()) + 1, textwrap.dedent(found[3])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page, "python"))], ids=name_of
)
def test_code_runs(page, tmp_path, monkeypatch, local_hub):
    """All blocks of a page, one after the other, as a reader would."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.manual_seed(0)
    names = {}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * line + code, page, "exec"), names)


def commands():
    for page in SHOWN:
        for line, block in blocks(page, ""):
            if not re.match("(gpe|make|pip|python|torchrun|[A-Z_]+=.*) ", block):
                continue  # what a command prints, and the like
            for command in re.split("[;&\n]+", re.sub(r" *\\\n *| *#.*", " ", block)):
                if command.strip():
                    yield pytest.param(command.split(), id=f"{name_of(page)}:{line} {command}")


@pytest.mark.parametrize("words", [*commands()])
def test_command_is_one(words, monkeypatch):
    """Commands of gpe take these options and values; others name what there is."""
    while "=" in words[0]:  # environment
        words = words[1:]
    if words[0] == "torchrun":
        words = words[words.index("gpe") :]
    if words[0] == "gpe":
        expect_command(words[1:], monkeypatch)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[:2] == ["python", "-m"]:
        file = ROOT / words[2].replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists()
    else:
        assert words[:2] == ["pip", "install"]


def expect_command(words, monkeypatch):
    """That it parses, and that its configurations can be made."""
    configs = []

    def configured(folder, command, given, places, extra, as_json):
        configs.extend(command.config.several(**given, **extra, **command.fixed))

    monkeypatch.setattr(gpe.cli, "_run", configured)
    if words[0] in ("report", "demo"):  # they have no configuration
        words = [*words, "--help"]
    gpe.cli.app(words, standalone_mode=False)
    assert configs or words[-1] == "--help" or words == ["info"]


def anchors(page):
    """Of its headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.*)", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() or file == MADE, f"{name_of(page)}: there is no {target}"
        if anchor:
            # Pages that show a file of the repository have its headings.
            shown = re.findall(r"^```\{include\} (\S+)", file.read_text(encoding="utf-8"), re.M)
            files = [file, *(file.parent / other for other in shown)]
            known = {anchor for each in files for anchor in anchors(each)}
            assert anchor in known, f"{name_of(page)}: there is no {target}"


def test_every_public_name_is_in_the_reference():
    reference = "".join(page.read_text() for page in SITE if page.parent.name == "reference")
    found = re.findall(r"^\.\. auto\w+:: gpe\.(\w+)$", reference, re.M)
    assert sorted(found) == sorted(gpe.__all__)


def test_the_version_is_said_alike():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert gpe.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200
