"""Files on the Hugging Face Hub, ``hf://OWNER/NAME/FILE``, read and written as others are."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpe.errors import InputError, needs
from gpe.records import atomic

HUB = "hf://"


def local(path: str | Path) -> Path:
    """A path as it is; of a file on the Hub, the copy that is fetched once and kept.

    Raises:
        InputError: ``huggingface_hub`` is not installed, or there is no such file to be had.
    """
    if not str(path).startswith(HUB):
        return Path(path)
    repository, name = _parts(str(path))
    with needs(str(path)):
        from huggingface_hub import hf_hub_download
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # the client raises almost anything, on several lines
        raise InputError(f"path: cannot fetch {path}: {_first_line(error)}") from None


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A temporary path that becomes ``path``, here or on the Hub, when the block ends well.

    A repository of one's own that there is not yet is made, private.

    Raises:
        InputError: as :func:`gpe.records.atomic`; or the Hub does not take the file.
    """
    if not str(path).startswith(HUB):
        with atomic(Path(path)) as file:
            yield file
        return
    repository, name = _parts(str(path))
    with needs(str(path)):
        from huggingface_hub import HfApi
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "file")
        yield file
        try:
            api = HfApi()
            api.create_repo(repository, private=True, exist_ok=True)
            api.upload_file(path_or_fileobj=file, path_in_repo=name, repo_id=repository)
        except Exception as error:
            raise InputError(f"path: cannot write {path}: {_first_line(error)}") from None


def _parts(path: str) -> tuple[str, str]:
    owner, _, rest = path.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file):
        raise InputError(f"path: expected {HUB}OWNER/NAME/FILE, got {path}")
    return f"{owner}/{name}", file


def _first_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.strip():.150}"
