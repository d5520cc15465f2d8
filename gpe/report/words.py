"""Numbers and lists in sentences."""

from collections.abc import Sequence

from gpe.statistics import Estimate


def listing(items: Sequence[str]) -> str:
    """``"a, b and c"``."""
    *init, last = items
    return f"{', '.join(init)} and {last}" if init else last


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number(value: float | None) -> str:
    """With one decimal; a dash where there is none."""
    return "-" if value is None else f"{value:.1f}".replace("-", "−")


def percent(value: float) -> str:
    return f"{value:.1f}\u00a0%"


def random_shifts(shift: int) -> str:
    return f"two random shifts of at most {shift} px"


def compared(difference: Estimate, seeds: int) -> str:
    """A difference in points as what can be said of it: more, less, or not told apart."""
    mean, ends = difference.value, difference.ends
    points = f"{abs(mean):.1f} points {'more' if mean > 0 else 'less'}"
    if ends is None:
        return f"{points}, from one seed each"
    low, high = ends
    if low <= 0 <= high:
        interval = f"95\u00a0% interval {signed(low)} to {signed(high)}"
        return f"{seeds} seeds cannot tell them apart ({signed(mean)} points, {interval})"
    near, far = sorted((abs(low), abs(high)))
    return f"{points} (95\u00a0% interval {near:.1f} to {far:.1f}, {seeds} seeds)"


def signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def spans(counts: Sequence[int], chosen: Sequence[bool]) -> str:
    """``"6, 18 to 30 and 42"``: those chosen, neighbours as one."""
    spans, start = [], None
    for number, one, following in zip(counts, chosen, [*chosen[1:], False], strict=True):
        start = number if one and start is None else start
        if one and not following:
            spans.append(f"{start}" if start == number else f"{start} to {number}")
            start = None
    return listing(spans)
