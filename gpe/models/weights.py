"""What is wrong with weights that do not fit a network, in one line."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from gpe.errors import InputError


def expect_fit(
    expected: str, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> None:
    """Raise an InputError, beginning with what was ``expected``, unless all three are empty."""
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        found = "; ".join(f"{first(names)} {what}" for what, names in problems.items() if names)
        raise InputError(f"{expected}, got another network: {found}")


def misshapen(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Those of ``weights`` that have another shape than the ``expected`` of that name."""
    return [
        f"{name} {list(weights[name].shape)} where {list(value.shape)} is due"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]


def first(names: Iterable[Any]) -> str:
    """The first three ``names``, and how many more there are."""
    names = list(map(str, names))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
