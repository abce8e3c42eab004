"""The sampling threshold in tracestate, as OpenTelemetry writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from apmkit.record.tracestate import RANDOM_MASK, threshold_of, with_threshold


@pytest.mark.parametrize(
    ("probability", "written"),
    [
        (1.0, "th:0"),
        (0.5, "th:8"),
        (0.25, "th:c"),
        (0.1, "th:e6666666666668"),
        (0.0, "th:ffffffffffffff"),
    ],
)
def test_a_probability_is_written_as_its_rejection_threshold(
    probability: float, written: str
) -> None:
    assert with_threshold(TraceState(), threshold_of(probability)).get("ot") == written


@given(st.floats(0.001, 1.0))
def test_the_share_above_the_threshold_is_the_probability(probability: float) -> None:
    above = 1 - threshold_of(probability) / (RANDOM_MASK + 1)
    assert above == pytest.approx(probability, abs=1e-9)


def test_other_fields_and_members_stay() -> None:
    state = TraceState([("vendor", "x"), ("ot", "rv:abc;th:0")])
    found = with_threshold(state, threshold_of(0.5))
    assert found.to_header() == "ot=th:8;rv:abc,vendor=x"


def test_the_state_that_came_in_is_unchanged() -> None:
    state = TraceState([("ot", "th:0")])
    with_threshold(state, 5)
    assert state.get("ot") == "th:0"
