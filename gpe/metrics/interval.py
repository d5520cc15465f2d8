"""How far a share that was counted may be from the true one."""

import math
from statistics import NormalDist

from gpe.errors import InputError


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        share: in [0, 1].
        n: of how many; it need not be whole.

    Returns:
        Both ends, in [0, 1].

    Raises:
        InputError: a share outside [0, 1], or an ``n`` that is not above 0.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22,
        1927.

    Example:
        >>> low, high = wilson_interval(0.5, 100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if not 0 <= share <= 1:
        raise InputError(f"share: expected 0 to 1, got {share}")
    if not n > 0:
        raise InputError(f"n: expected above 0, got {n}")
    z = NormalDist().inv_cdf(0.975)
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    # A share of 0 or 1 is a bound itself, which rounding may leave out.
    return max(0.0, min(low, share)), min(1.0, max(high, share))
