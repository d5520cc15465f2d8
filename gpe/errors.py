"""The one exception that wrong input raises, everywhere in gpe, and checks of plain values."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real


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


def expect_integer(argument: str, value: int, least: int, most: int = 2**63 - 1) -> int:
    """``value`` as an int, numpy's among them; an InputError unless it is ``least`` to ``most``."""
    if is_integer(value) and least <= value <= most:
        return int(value)
    bounds = f"at most {most}" if is_integer(value) and value > most else f"at least {least}"
    raise InputError(f"{argument}: expected an integer of {bounds}, got {shown(value)}")


def expect_number(argument: str, value: float, least: float = -math.inf) -> float:
    """``value`` as a float, numpy's too; an InputError unless finite and ``least`` or more."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and number >= least:
            return number
    bounds = "" if least == -math.inf else f" of at least {least:g}"
    raise InputError(f"{argument}: expected a finite number{bounds}, got {shown(value)}")


def expect_bool(argument: str, value: object) -> bool:
    """``value`` as a bool, numpy's and 0 and 1 among them; an InputError unless it is one."""
    if type(value).__name__ in ("bool", "bool_") or (is_integer(value) and value in (0, 1)):
        return bool(value)
    raise InputError(f"{argument}: expected True or False, got {shown(value)}")


def is_integer(value: object) -> bool:
    """Whether ``value`` is an int or one of numpy's; booleans are not."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def plain(argument: str, value):
    """What an array or a tensor holds, as Python's lists and numbers; anything else as it is."""
    if isinstance(value, (list, tuple)) or not hasattr(value, "tolist"):
        return value
    try:
        return value.tolist()
    except Exception:  # of a stranger's
        raise InputError(f"{argument}: expected numbers, got {shown(value)}") from None


def shown(value: object) -> str:
    """A value for a message, whatever it is: short, and on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a stranger's repr() may raise anything, and some integers are too long
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


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
