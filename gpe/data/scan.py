"""What a folder holds: the entries that a person put there, links that lead back left out."""

import os
import re
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from gpe.errors import InputError

# Written by file systems, editors and network drives, beside all names that begin with a dot.
_SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found"),
    *("$recycle.bin", "recycler", "system volume information", "network trash folder"),
    *("temporary items", "@eadir", "@tmp", "@synoeastream", "@synoresource", "@recycle"),
    *("@recently-snapshot", "@sharebin", "#recycle", "#snapshot", "__pycache__"),
}
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
Key = tuple[int, int]  # of a folder, by whatever path it is reached


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, without hidden and system entries.

    Raises:
        InputError: a folder that cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            shown = [entry for entry in found if not _is_system(entry.name)]
    except OSError as error:
        raise InputError(f"data: cannot read the folder {folder}: {error.strerror}") from None
    return sorted(shown, key=lambda entry: entry.name)


def folders(folder: str | Path) -> list[str]:
    """Names of the folders in a folder, and of links to some; but not to itself or one above."""
    found = [entry for entry in entries(folder) if _is(os.path.isdir, entry)]
    above = keys_above(folder) if any(entry.is_symlink() for entry in found) else frozenset()
    return [entry.name for entry in found if not entry.is_symlink() or key(entry.path) not in above]


def dangling(folder: str | Path) -> list[str]:
    """Names of links in a folder that lead nowhere and are not called as images are."""
    links = [entry for entry in entries(folder) if entry.is_symlink() and not _is_image(entry)]
    return [entry.name for entry in links if not os.path.exists(entry.path)]


def images(folder: str | Path, *, deep: bool = False, skip: Set[Key] = frozenset()) -> list[str]:
    """Paths of the image files in a folder.

    Links are followed, but not to what is no regular file (a pipe would be waited on for ever).
    A link that leads nowhere is listed, so that whoever reads it says so.

    Args:
        folder: whose.
        deep: with those of the folders inside, each of them once, whatever links lead to it.
        skip: keys of folders that are not entered, as those above are not.
    """
    seen = set(skip)
    if deep:
        seen |= keys_above(folder)
    return _images(folder, deep, seen)


def in_order(names: Sequence[str]) -> list[str]:
    """Classes in the order of their labels: by number where all names are numbers, else by name.

    Example:
        >>> in_order(["10", "9", "007"]), in_order(["b10", "b9"])
        (['007', '9', '10'], ['b10', 'b9'])
    """
    if all(re.fullmatch("[0-9]+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def splits(folder: str | Path) -> list[tuple[str, Path]]:
    """Folders that are called as a split is, in any case, with its name here: train, test, val."""
    found = [(_SPLITS.get(name.lower(), ""), Path(folder, name)) for name in folders(folder)]
    order = ("train", "test", "val")
    return sorted((each for each in found if each[0]), key=lambda each: order.index(each[0]))


def split_folder(folder: Path, split: str) -> Path:
    """The folder of a split, by any of its names; ``folder / split`` where there is none.

    Raises:
        InputError: two of them.
    """
    if not folder.is_dir():
        return folder / split
    found = [path for name, path in splits(folder) if name == split]
    expect_single(found)
    return found[0] if found else folder / split


def expect_single(paths: Sequence[Path]) -> None:
    """Raise an InputError where a split has two folders."""
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise InputError(f"data: expected one folder a split in {paths[0].parent}, got {names}")


def key(folder: str | Path) -> Key:
    """What tells a folder from all others."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def keys_above(folder: str | Path) -> set[Key]:
    """The keys of a folder and of all that it lies in."""
    path = Path(folder).resolve()
    return {key(each) for each in (path, *path.parents)}


def _images(folder: str | Path, deep: bool, seen: set[Key]) -> list[str]:
    files, inner = [], []
    for entry in entries(folder):
        if _is(os.path.isdir, entry):
            inner.append(entry.path)
        elif _is_image(entry):
            files.append(entry.path)
    for path in inner if deep else ():
        if (here := key(path)) not in seen:
            seen.add(here)
            files += _images(path, deep, seen)
    return files


def _is(kind: Callable[[str], bool], entry: os.DirEntry[str]) -> bool:
    """``os.path.isdir`` or ``isfile``, whatever a link does; a system call for links alone."""
    if entry.is_symlink():
        return kind(entry.path)
    return entry.is_dir() if kind is os.path.isdir else entry.is_file()


def _is_image(entry: os.DirEntry[str]) -> bool:
    named_so = entry.name.lower().endswith(IMG_EXTENSIONS)
    return named_so and (_is(os.path.isfile, entry) or not os.path.exists(entry.path))


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM
