"""Which traces are kept: over simulated seconds, without a clock that runs."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from apmkit.record import clock
from apmkit.record.sampling import BudgetSampler, StandardHead
from apmkit.record.tracestate import RANDOM_MASK

SECOND = 1_000_000_000


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(clock, "now", fake)
    return fake


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test must repeat


def run_second(sampler: BudgetSampler, second: int, rate: int, ids: random.Random) -> list[int]:
    start = second * SECOND
    kept = []
    for number in range(rate):
        trace_id = ids.getrandbits(128)
        if sampler.head(trace_id, start + number * SECOND // rate):
            kept.append(trace_id)
    return kept


def test_every_second_stays_within_the_budget_at_8000_a_second() -> None:
    sampler, ids = BudgetSampler(100), seeded(1)
    kept = [len(run_second(sampler, second, 8_000, ids)) for second in range(1, 21)]
    assert max(kept) <= 100
    assert sum(kept[1:]) / 19 > 85


def test_the_budget_holds_through_a_burst() -> None:
    sampler, ids = BudgetSampler(50), seeded(2)
    rates = [10, 10, 5_000, 5_000, 10, 10, 3_000]
    kept = [len(run_second(sampler, n, rate, ids)) for n, rate in enumerate(rates, start=1)]
    assert max(kept) <= 50


def test_everything_is_kept_while_there_is_room() -> None:
    sampler, ids = BudgetSampler(100), seeded(3)
    assert [len(run_second(sampler, second, 60, ids)) for second in range(1, 6)] == [60] * 5


def test_after_a_burst_everything_is_kept_again() -> None:
    sampler, ids = BudgetSampler(100), seeded(4)
    run_second(sampler, 1, 8_000, ids)
    for second in range(2, 16):
        run_second(sampler, second, 20, ids)
    assert sampler.threshold == 0
    assert len(run_second(sampler, 16, 20, ids)) == 20


def test_the_head_decides_by_trace_identifier() -> None:
    sampler, ids = BudgetSampler(100), seeded(5)
    run_second(sampler, 1, 8_000, ids)
    assert sampler.head(RANDOM_MASK, 2 * SECOND)
    threshold = sampler.threshold
    assert threshold
    for _ in range(50):
        trace_id = ids.getrandbits(128)
        assert sampler.head(trace_id, 2 * SECOND) is ((trace_id & RANDOM_MASK) >= threshold)
        assert sampler.threshold == threshold


def test_two_services_at_the_same_rate_keep_the_same_traces() -> None:
    one, other = BudgetSampler(100), BudgetSampler(100)
    for sampler in (one, other):
        run_second(sampler, 1, 2_000, seeded(6))
    ids = seeded(7)
    traces = [ids.getrandbits(128) for _ in range(1_000)]
    decisions = [[sampler.head(trace, 2 * SECOND) for trace in traces] for sampler in (one, other)]
    assert decisions[0] == decisions[1]
    assert 0 < sum(decisions[0]) <= 100


def test_an_infinite_budget_keeps_all_and_zero_none(time: Time) -> None:
    every, none, ids = BudgetSampler(float("inf")), BudgetSampler(0), seeded(8)
    assert len(run_second(every, 1, 5_000, ids)) == 5_000
    assert len(run_second(every, 2, 5_000, ids)) == 5_000
    assert run_second(none, 1, 5_000, ids) == []
    assert every.tail(error=True, slow=False)
    assert not none.tail(error=True, slow=True)
    time.now += 60 * SECOND
    assert not none.tail(error=True, slow=True)


def test_a_budget_below_one_is_saved_up() -> None:
    sampler, ids = BudgetSampler(0.25), seeded(9)
    kept = sum(len(run_second(sampler, second, 1, ids)) for second in range(1, 401))
    assert 50 <= kept <= 101


def test_errors_and_slow_traces_have_a_budget_of_their_own(time: Time) -> None:
    sampler, ids = BudgetSampler(10), seeded(10)
    assert len(run_second(sampler, 1, 1_000, ids)) == 10
    kept = [sampler.tail(error=number % 2 == 0, slow=number % 2 == 1) for number in range(50)]
    assert sum(kept) == 10
    assert kept[:10] == [True] * 10
    time.now += SECOND
    assert sampler.tail(error=True, slow=False)


def test_the_budget_of_errors_comes_back_where_upstream_decides_on_every_trace(time: Time) -> None:
    sampler = BudgetSampler(3)
    for _ in range(5):
        assert sum(sampler.tail(error=True, slow=False) for _ in range(10)) == 3
        time.now += SECOND


def test_an_errors_budget_below_one_is_saved_up(time: Time) -> None:
    sampler = BudgetSampler(0.5)
    assert sampler.tail(error=True, slow=False)
    assert not sampler.tail(error=True, slow=False)
    time.now += SECOND
    assert not sampler.tail(error=True, slow=False)
    time.now += SECOND
    assert sampler.tail(error=True, slow=False)


def test_what_is_neither_error_nor_slow_is_not_kept_at_the_tail() -> None:
    assert not BudgetSampler(float("inf")).tail(error=False, slow=False)


def parent(trace_id: int, *, sampled: bool) -> SpanContext:
    return SpanContext(trace_id, 7, is_remote=True, trace_flags=TraceFlags(int(sampled)))


def test_a_standard_sampler_decides_alone() -> None:
    assert StandardHead(ALWAYS_ON).head(1, 0)
    assert not StandardHead(ALWAYS_OFF).head(1, 0)
    assert not StandardHead(ALWAYS_ON).tail(error=True, slow=True)
    half = StandardHead(TraceIdRatioBased(0.5))
    assert half.head(1, 0)
    assert not half.head(2**64 - 1, 0)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_parent_based_sampler_follows_the_parent(sampled: bool) -> None:  # noqa: FBT001 - a case
    sampler = StandardHead(ParentBased(ALWAYS_ON))
    assert sampler.decide(parent(5, sampled=sampled), 5, "GET", SpanKind.SERVER) is sampled
