"""How a rise of perplexity is told, and that every place tells it alike."""

import math

import pytest

from blockviz.cli.evaluate_commands import show_report
from blockviz.session import LiveResult
from blockviz.types.numbers import THIN, plain, relative, rise, rise_between
from blockviz.ui import views


@pytest.mark.parametrize(
    ("nats", "error", "told"),
    [
        # exp(0.378436) = 1.46; 146 % of an error of 0.0321 is 4.69 %.
        (math.log(1.46), 0.0321, "+46.0 ± 4.7 %"),
        (math.log(1.46), 0.0, "+46.0 %"),
        (math.log(1.10), 0.002, "+10.00 ± 0.22 %"),
        (math.log(1.5), 0.5, "+50 ± 75 %"),
        (math.log(1.0000001), 0.001, "0.00 ± 0.10 %"),
        (math.log(0.9), 0.01, "−10.00 ± 0.90 %"),
        (math.log(9.994), 0.0, "+899.4 %"),
        # Ten times and more are a factor, and the error then is one too: exp(0.05) = 1.05.
        (math.log(16_812), 0.05, "× 16 800 (× or ÷ 1.05)"),
        (math.log(16_812), 0.0, "× 16 800"),
        (math.log(10.26), 3.0, "× 10.3 (× or ÷ 20.1)"),
        (math.log(1.1138e15), 1.368, "× 1.11e+15 (× or ÷ 3.93)"),
        (math.log(999.7), 0.0, "× 1 000"),
        (700.0, 0.1, "over × 1e+100"),
        (math.inf, 0.1, "–"),
        (math.nan, 0.1, "–"),
        (0.5, math.nan, "+64.9 %"),
    ],
)
def test_a_rise_is_told_with_its_own_error_and_a_large_one_as_a_factor(nats, error, told):
    assert rise(nats, error).replace(THIN, " ") == told


def test_the_error_of_a_ratio_is_the_spread_of_ratios_whose_logs_have_that_error():
    """Two roads: exp of normal draws, and the first-order error."""
    import numpy as np

    draws = np.exp(np.random.default_rng(0).normal(0.4, 0.01, 400_000))
    share, error = relative(0.4, 0.01)
    assert (share, error) == pytest.approx((draws.mean() - 1, draws.std()), rel=5e-3)


def test_a_perplexity_that_is_no_number_has_no_rise():
    assert rise_between(33.0, math.inf) == rise_between(0.0, 33.0) == "–"
    assert rise_between(20.0, 29.2, 0.0321).replace(THIN, " ") == "+46.0 ± 4.7 %"
    assert rise_between(33.0, math.exp(700)).replace(THIN, " ") == "over × 1e+100"


def test_scoreboard_and_command_line_tell_one_measurement_alike(capsys):
    live = LiveResult(29.2, 20.0, 0.0321, 1016, "boolq, 8 x 128", "bfloat16", "measured")
    shown = views._perplexity(live, is_known=True)["rise"]
    found = {"value": 29.2, "stderr": 1.0, "log_rise": math.log(1.46), "log_rise_stderr": 0.0321,
             "n_tokens": 1016, "data": "boolq"}  # fmt: skip
    row = {"variant": "pruned", "correction": "none", "perplexity": found, "tasks": {},
           "params": {"removed_ratio": 0.1, "stored_ratio": None}}  # fmt: skip
    show_report({"rows": [row], "provenance": {"dtype": "bfloat16"}})
    assert plain(shown) == "+46.0 ± 4.7 %"
    assert plain(shown) in capsys.readouterr().out
