"""The one exception that wrong input raises, everywhere in gpe, and three common checks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


def expect_integer(argument: str, value: int, least: int) -> None:
    """Raise an InputError unless ``value`` is an integer of ``least`` or more."""
    if not isinstance(value, int) or value < least:
        raise InputError(f"{argument}: expected an integer of at least {least}, got {value!r}")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Raise an InputError that names the extra where a block imports what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install 'gpe[{extra}]'") from None
