"""Wilson's interval against the values of his formula, solved another way."""

import pytest
from scipy.stats import binomtest

from gpe.errors import InputError
from gpe.metrics import wilson_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 50), (1, 7), (33, 100), (250, 250), (9, 10)])
def test_it_is_the_one_of_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("share", "n", "complaint"),
    [(1.5, 3, "share: expected 0 to 1, got 1.5"), (0.5, 0, "n: expected above 0, got 0")],
)
def test_what_is_no_share_is_refused(share, n, complaint):
    with pytest.raises(InputError, match=complaint):
        wilson_interval(share, n)
