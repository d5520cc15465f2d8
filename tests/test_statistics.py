"""Intervals and correlations, against printed tables, closed forms and scipy."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, spearmanr

from gpe.errors import InputError
from gpe.statistics import (
    Estimate,
    correlation_interval,
    difference_of,
    interval_about,
    interval_of_mean,
    mean_of,
    rank_correlation,
    times_drawn,
    wilson_interval,
)

# Student's t at 97.5 %, by degrees of freedom: from a printed table.
T = {1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622, 29: 2.0452}


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# Wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 50), (1, 7), (33, 100), (250, 250), (9, 10)])
def test_wilsons_interval_is_the_one_of_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilsons_interval_of_newcombe():
    """Newcombe, Statistics in Medicine 17 (1998), Table I, method 3: 81 of 263 and 15 of 148."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize(
    ("share", "n", "complaint"),
    [
        (1.5, 3, "share: expected 0 to 1, got 1.5"),
        (math.nan, 3, "share: expected 0 to 1, got nan"),
        (0.5, 0, "n: expected above 0, got 0"),
        (0.5, math.nan, "n: expected above 0, got nan"),
    ],
)
def test_what_is_no_share_is_refused(share, n, complaint):
    with pytest.raises(InputError, match=complaint):
        wilson_interval(share, n)


# Student


@pytest.mark.parametrize("freedom", T)
def test_the_interval_of_a_mean_is_students(freedom):
    values = noise(freedom + 1).tolist()
    estimate = mean_of(values)
    half = T[freedom] * np.std(values, ddof=1) / math.sqrt(freedom + 1)
    assert estimate.half == pytest.approx(half, rel=2e-5)
    mean = np.mean(values)
    assert estimate == pytest.approx((mean, mean - half, mean + half), abs=1e-4)


def test_one_value_has_no_interval_and_equal_ones_a_narrow_one():
    assert mean_of([3.0]) == Estimate(3.0, None, None)
    assert mean_of([3.0]).half is None
    assert mean_of([3.0, 3.0]) == Estimate(3.0, 3.0, 3.0)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_a_mean_of_nothing_is_refused(values):
    with pytest.raises(InputError, match="values: expected one or more finite numbers"):
        mean_of(values)


def test_halves_of_independent_intervals_add_up_as_squares():
    assert difference_of(Estimate(5, 2, 8), Estimate(1, -3, 5)) == Estimate(4, -1, 9)
    assert difference_of(Estimate(5), Estimate(1, -3, 5)) == Estimate(4)


# Bootstrap


def test_the_interval_of_a_mean_is_that_of_normal_numbers():
    values = noise(500, 3)
    half = 1.96 * values.std(0) / 500**0.5
    expected = torch.stack([values.mean(0) - half, values.mean(0) + half])
    draws = torch.cat(list(times_drawn(500, 1000))) @ values / 500
    for found in (interval_of_mean(values), interval_about(values.mean(0), draws)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.15 * half.max().item())


def test_columns_come_one_by_one_as_all_at_once():
    values = noise(7, 1001)
    whole = interval_of_mean(values)
    single = torch.cat([interval_of_mean(column[:, None]) for column in values.T[::500]], 1)
    torch.testing.assert_close(whole[:, ::500], single)


@pytest.mark.parametrize("draws", [1, 50, 70])
def test_each_draw_takes_as_many_rows_as_there_are(draws):
    times = torch.cat(list(times_drawn(6, draws)))
    assert times.shape == (draws, 6) and (times.sum(1) == 6).all()


def test_the_interval_is_about_the_estimate_where_draws_are_biased():
    low, high = interval_about(torch.tensor(2.0), 5 + torch.tensor([-1.0, 0.0, 1.0]))
    assert low < 2 < high and high - low < 2


def test_an_interval_of_no_rows_is_refused():
    with pytest.raises(InputError, match=r"values: expected \[n,C\] of one or more rows, got \[0"):
        interval_of_mean(torch.zeros(0, 2))


# Correlation of ranks


def test_spearmans_correlation_of_a_textbook():
    """IQ and hours of television of ten people: 1 - 6 · 194 / (10 · 99)."""
    iq = [106, 86, 100, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 0, 27, 50, 28, 29, 20, 12, 6, 17]
    assert float(rank_correlation(iq, hours)) == pytest.approx(1 - 6 * 194 / 990, abs=1e-12)


def test_correlation_of_ranks_is_that_of_scipy():
    one, other = noise(4, 30), noise(4, 30, seed=1)
    one[0], one[1] = other[0] ** 3, one[1].round()  # the same order, and ties
    expected = [spearmanr(a, b)[0] for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other) == pytest.approx(np.array(expected))
    assert rank_correlation(torch.ones(5), torch.arange(5.0)) == 0


def test_what_has_no_ranks_is_refused():
    with pytest.raises(InputError, match=r"other: expected \[2\] as one, got \[3\]"):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="other: expected finite numbers, got NaN or infinity"):
        rank_correlation([1, 2], [1, math.nan])


def test_the_interval_of_a_correlation_holds_it_and_narrows_with_images():
    truth, widths = torch.linspace(0, 3, 40, dtype=torch.float64), []
    for count in (30, 480):
        times = torch.cat(list(times_drawn(count, 200)))
        values = [truth + noise(count, 40, seed=seed) for seed in (1, 2)]
        means = [value.mean(0) for value in values]
        rho, low, high = correlation_interval(*means, *(times @ v / count for v in values))
        assert -1 <= low < rho < high <= 1
        assert rho == pytest.approx(spearmanr(*means)[0])
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    own = correlation_interval(truth, truth, times @ values[0], times @ values[0])
    assert own == pytest.approx((1, 1, 1))


def test_reports_do_not_wait_for_torch_or_scipy():
    code = "import sys, gpe.statistics; sys.exit(bool({'torch', 'scipy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0
