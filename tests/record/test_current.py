"""Blocks and functions as spans."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import StatusCode

from apmkit.record.faults import Faults
from apmkit.record.metrics import Metrics
from apmkit.record.sampling import BudgetSampler
from apmkit.record.tracer import Tracer, TracerProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from apmkit.record.current import CurrentSpan
    from apmkit.record.span import Span
    from apmkit.record.trace import Trace


class Kept:
    """A sink that remembers spans by name."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def keep(self, trace: Trace, root: Span | None, *, open_until: int = 0) -> None:  # noqa: ARG002 - the protocol's
        self.spans += [*trace, root]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracer(kept: Kept) -> Tracer:
    provider = TracerProvider(BudgetSampler(float("inf")), kept, Faults(Metrics()))
    return provider.get_tracer("tests")


def current() -> trace.Span:
    return trace.get_current_span()


def test_a_block_is_a_span_and_the_parent_comes_back(tracer: Tracer) -> None:
    before = current()
    with tracer.start_as_current_span("outer") as outer:
        assert current() is outer
        with tracer.start_as_current_span("inner") as inner:
            assert current() is inner
            assert inner.parent is outer
        assert current() is outer
    assert current() is before
    assert not outer.is_recording()


def test_what_else_the_context_holds_is_there_inside_the_block(tracer: Tracer) -> None:
    token = context.attach(baggage.set_baggage("user", "ann"))
    try:
        with tracer.start_as_current_span("block"):
            assert baggage.get_baggage("user") == "ann"
    finally:
        context.detach(token)


def test_an_async_block_is_a_span(tracer: Tracer) -> None:
    async def main() -> None:
        async with tracer.start_as_current_span("block") as span:
            await asyncio.sleep(0)
            assert current() is span
        assert not span.is_recording()

    asyncio.run(main())


def test_tasks_do_not_see_each_others_spans(tracer: Tracer, kept: Kept) -> None:
    async def work(name: str) -> None:
        async with tracer.start_as_current_span(name) as span:
            for _ in range(5):
                await asyncio.sleep(0)
                assert current() is span

    async def main() -> None:
        async with tracer.start_as_current_span("root"):
            await asyncio.gather(work("a"), work("b"))

    asyncio.run(main())
    (root,) = kept.named("root")
    assert kept.named("a")[0].parent is kept.named("b")[0].parent is root


def test_an_exception_passes_and_is_recorded(tracer: Tracer) -> None:
    with pytest.raises(ValueError, match="no"), tracer.start_as_current_span("block") as span:
        raise ValueError("no")
    assert span.status is StatusCode.ERROR
    assert span.description == "ValueError: no"
    assert [event.name for event in span.events or ()] == ["exception"]


def test_recording_and_status_can_be_switched_off(tracer: Tracer) -> None:
    block = tracer.start_as_current_span(
        "block", record_exception=False, set_status_on_exception=False, end_on_exit=False
    )
    with pytest.raises(ValueError, match="no"), block as span:
        raise ValueError("no")
    assert span.status is StatusCode.UNSET
    assert span.events is None
    assert span.is_recording()


@pytest.mark.parametrize("leaving", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_leaving_is_not_failing(leaving: type[BaseException], tracer: Tracer) -> None:
    with pytest.raises(leaving), tracer.start_as_current_span("block") as span:
        raise leaving
    assert span.status is StatusCode.UNSET
    assert not span.is_recording()


def test_each_call_of_a_decorated_function_is_a_span(tracer: Tracer, kept: Kept) -> None:
    @tracer.start_as_current_span("priced")
    def price(items: int, *, each: int = 2) -> int:
        """Tell the price."""
        return items * each

    assert (price(3), price(3, each=3)) == (6, 9)
    assert len(kept.named("priced")) == 2
    assert price.__doc__ == "Tell the price."
    assert price.__name__ == "price"


def test_each_call_of_a_decorated_coroutine_function_is_a_span(tracer: Tracer, kept: Kept) -> None:
    @tracer.start_as_current_span("fetched")
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        if number == 2:
            raise ValueError("two")
        return number

    async def main() -> tuple[object, ...]:
        return await asyncio.gather(fetch(1), fetch(2), fetch(3), return_exceptions=True)

    assert inspect.iscoroutinefunction(fetch)
    one, two, three = asyncio.run(main())
    assert (one, three) == (1, 3)
    assert isinstance(two, ValueError)
    statuses = [span.status for span in kept.named("fetched")]
    assert sorted(status.name for status in statuses) == ["ERROR", "UNSET", "UNSET"]


def test_a_decorated_function_may_call_itself(tracer: Tracer, kept: Kept) -> None:
    @tracer.start_as_current_span("deep")
    def depth(rest: int) -> int:
        return 1 + depth(rest - 1) if rest else 0

    assert depth(3) == 3
    spans = kept.named("deep")
    assert len(spans) == 4
    assert sum(span.parent is None for span in spans) == 1


def test_a_generator_closed_in_another_context_leaves_that_context_alone(tracer: Tracer) -> None:
    def numbers(block: CurrentSpan) -> Iterator[int]:
        with block:
            yield 1

    before = current()
    generator = numbers(tracer.start_as_current_span("stream"))
    asyncio.run(_step(generator))
    with tracer.start_as_current_span("elsewhere") as elsewhere:
        generator.close()  # type: ignore[attr-defined]  # an iterator that is a generator
        assert current() is elsewhere
    assert current() is before


async def _step(generator: Iterator[int]) -> None:
    assert next(generator) == 1


def test_an_abandoned_async_generator_ends_its_span(tracer: Tracer, kept: Kept) -> None:
    async def stream() -> AsyncIterator[int]:
        async with tracer.start_as_current_span("stream"):
            for number in range(10):
                yield number

    async def main() -> None:
        async for _ in stream():
            break

    asyncio.run(main())
    (span,) = kept.named("stream")
    assert span.status is StatusCode.UNSET
