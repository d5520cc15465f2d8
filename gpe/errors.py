"""The one exception that wrong input raises, everywhere in gpe, and common checks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral


class InputError(ValueError):
    """An argument, file or option is not what was expected.

    The message names the argument, what was expected and what came. The
    command line prints it without a traceback and exits with 2.
    """


def expect_one_of(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raise an InputError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{argument}: expected one of {', '.join(choices)}, got {value!r}")


def expect_at_least_one(argument: str, value: int) -> None:
    """Raise an InputError unless ``value`` is 1 or more."""
    if value < 1:
        raise InputError(f"{argument}: expected at least 1, got {value}")


def expect_integer(argument: str, value: int, least: int) -> int:
    """``value`` as an int; an InputError unless it is an integer of ``least`` or more.

    NumPy's integers are some.
    """
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"{argument}: expected an integer of at least {least}, got {value!r}")
    return int(value)


@contextmanager
def needs(what: str, extra: str = "experiments") -> Iterator[None]:
    """Around imports of packages that ``gpe`` itself does not bring, but one of its extras does.

    Args:
        what: whatever needs them.
        extra: of ``pyproject.toml``.

    Raises:
        InputError: one is not installed; it says which, and how to install the extra.

    Example:
        >>> with needs("blur=True"):
        ...     import no_such_package
        Traceback (most recent call last):
        gpe.errors.InputError: blur=True needs no_such_package: pip install 'gpe[experiments]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "gpe"):
            raise
        raise InputError(f"{what} needs {package}: pip install 'gpe[{extra}]'") from None
