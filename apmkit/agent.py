"""The agent: composes the parts, starts and stops them, and is what an application talks to."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import trace as trace_api

from apmkit.config import Settings
from apmkit.instrument.asgi import Instrumented
from apmkit.instrument.calls import CacheCall, DatabaseCall
from apmkit.instrument.runtime import observe_process
from apmkit.instrument.server import ServerInstrumentation
from apmkit.instrument.wrap import wrap
from apmkit.ops.endpoints import guarded, taken
from apmkit.pipeline import Pipeline
from apmkit.record.faults import Faults
from apmkit.record.metrics import DEFAULT_BOUNDARIES, Metrics
from apmkit.record.sampling import BudgetSampler, Sampler, StandardHead
from apmkit.record.tracer import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.util.types import AttributeValue

    from apmkit.instrument.asgi_types import Application, Receive, Scope, Send
    from apmkit.record.current import CurrentSpan
    from apmkit.record.metrics import Counter, Gauge, Histogram
    from apmkit.relay.export import Exporter

ClientType = TypeVar("ClientType")
FunctionType = TypeVar("FunctionType", bound="Callable[..., Any]")


class Agent:
    """Records what an application does and delivers it.

    Nothing runs until the first request, `start`, or the application's lifespan start.

    Args:
        exporters: names of installed exporters, or objects with their methods; default
            "prometheus", and "otlp" as soon as an endpoint is known.
        settings: see `apmkit.config.Settings`; each is also a variable `APMKIT_…` and a key of
            `apmkit.toml`.

    Raises:
        SettingsError: if a setting is unknown, or is not what it may be.

    Example:
        >>> agent = Agent(service_name="orders", exporters=[])
        >>> with agent.span("price basket", items=3) as span:
        ...     span.set_attribute("basket.value", 42.5)
    """

    def __init__(
        self,
        *,
        exporters: str | Sequence[str | Exporter] | None = None,
        **settings: Any,  # noqa: ANN401 - checked by Settings, which names what it refuses
    ) -> None:
        if isinstance(exporters, str):
            exporters = [name.strip() for name in exporters.split(",")]
        if exporters is not None:
            settings["exporters"] = [name for name in exporters if isinstance(name, str)]
        self.settings = Settings.load(**settings)
        self.metrics = Metrics()
        observe_process(self.metrics)
        self._faults = Faults(self.metrics)
        given = [exporter for exporter in exporters or () if not isinstance(exporter, str)]
        self._pipeline = Pipeline(self.settings, given, self.metrics, self._faults)
        self.tracer_provider = TracerProvider(
            _sampler(self.settings), self._pipeline.relay, self._faults, self.settings.slow_after
        )
        self._pipeline.watch(self.tracer_provider)
        self.tracer = self.tracer_provider.get_tracer("apmkit.application")
        self._lock = threading.RLock()
        self._applications: list[Callable[[], Any]] = []
        self.server = ServerInstrumentation(
            self.tracer_provider,
            self.metrics,
            {
                path: guarded(endpoint, self.settings)
                for path, endpoint in self._pipeline.endpoints().items()
            },
            trust_upstream=self.settings.trust_upstream,
            start=self.start,
            stop=functools.partial(self.stop, 2.0),
        )
        unset = isinstance(trace_api.get_tracer_provider(), trace_api.ProxyTracerProvider)
        if unset and not self.settings.disabled:
            trace_api.set_tracer_provider(self.tracer_provider)
        atexit.register(_stop_at_exit, weakref.ref(self))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=functools.partial(_after_fork, weakref.ref(self)))

    # What is recorded

    def asgi(self, app: Application) -> Application:
        """Return an ASGI application that records each request of `app`.

        Args:
            app: an ASGI 3 or ASGI 2 application.
        """
        if self.settings.disabled:
            return app
        self._applications.append(weakref.ref(app) if _weak(app) else lambda: app)
        return Instrumented(app, self.server)

    def wrap(self, client: ClientType, *, name: str | None = None) -> ClientType:
        """Return a database or cache client whose calls are recorded.

        Args:
            client: a PEP 249 connection, an aiosqlite connection, a redis client, a cachetools
                cache, or any object with get, set and delete. A second call changes nothing.
            name: of the cache, for the label `cache.name`.

        Raises:
            TypeError: if the agent does not know how to wrap such an object.
        """
        if self.settings.disabled:
            return client
        wrapped: ClientType = wrap(client, self.tracer_provider, self.metrics, name=name)
        return wrapped

    def db_call(self, system: str, *, statement: str | None = None, **details: Any) -> DatabaseCall:  # noqa: ANN401
        """Record a block as a database call, for a client without a wrapper.

        Args:
            system: `db.system.name`, "postgresql" for instance.
            statement: what is executed; literals are masked.
            details: see `apmkit.instrument.calls.DatabaseCall`.
        """
        return DatabaseCall(
            self.tracer_provider, self.metrics, system, statement=statement, **details
        )

    def cache_call(self, cache: str, operation: str, **details: Any) -> CacheCall:  # noqa: ANN401
        """Record a block as a cache operation; set `call.hit` in it for a lookup.

        Args:
            cache: the cache's name or system, "redis" for instance.
            operation: "GET" for instance.
            details: see `apmkit.instrument.calls.CacheCall`.
        """
        return CacheCall(self.tracer_provider, self.metrics, cache, operation, **details)

    def span(self, name: str, /, **attributes: AttributeValue) -> CurrentSpan:
        """Record a block, with `with` or `async with`, as a span under the current one."""
        return self.tracer.start_as_current_span(name, attributes=attributes)

    def traced(self, function: FunctionType) -> FunctionType:
        """Decorate a plain or async function so that each call of it is a span."""
        name = f"{function.__module__}.{function.__qualname__}"
        return self.tracer.start_as_current_span(name)(function)

    def record(
        self, name: str, value: float, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        """Count `value` into the histogram `name`; attributes become labels."""
        try:
            self.metrics.histogram(name).observe(value, attributes)
        except Exception as error:  # noqa: BLE001 - the agent never raises into the application
            self._faults.internal("record", error)

    def counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        """Return the counter of this name."""
        return self.metrics.counter(name, unit, description)

    def gauge(self, name: str, unit: str = "", description: str = "") -> Gauge:
        """Return the gauge of this name."""
        return self.metrics.gauge(name, unit, description)

    def histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        boundaries: Sequence[float] = DEFAULT_BOUNDARIES,
    ) -> Histogram:
        """Return the histogram of this name, with these bucket boundaries."""
        return self.metrics.histogram(name, unit, description, boundaries)

    # Its life

    def start(self) -> None:
        """Start the agent's threads, if they do not run. The first request does it too."""
        with self._lock:
            if self.server.running or self.settings.disabled:
                return
            self.server.running = True
            for reference in self._applications:
                try:
                    self._yield_paths(reference())
                except Exception as error:  # noqa: BLE001, PERF203 - routes of any application
                    self._faults.internal("paths", error)
            self._pipeline.start()

    def flush(self, timeout: float = 5.0) -> bool:
        """Deliver what is pending, within `timeout` seconds; return whether all is delivered."""
        return self._pipeline.flush(timeout)

    def stop(self, timeout: float = 2.0) -> None:
        """Deliver what is pending within `timeout` seconds and end the threads."""
        with self._lock:
            if self.server.running:
                self.server.running = False
                self._pipeline.stop(timeout)

    def stats(self) -> dict[str, Any]:
        """Return the agent's own accounts.

        Returns:
            For each exporter of traces `created`, `delivered`, `rejected`, `dropped` by reason,
            and `pending`, in spans; created is the sum of the others. Under "open_requests" the
            number of requests in flight.
        """
        return {
            "exporters": self._pipeline.accounts(),
            "open_requests": len(self.tracer_provider.open),
        }

    def _yield_paths(self, app: Any) -> None:  # noqa: ANN401 - any ASGI application
        for path in taken(app, self.server.endpoints):
            del self.server.endpoints[path]
            self._faults.warn(
                f"path.{path}",
                f"the application has a route {path!r} of its own, which wins; set another path"
                " (metrics_path) to see the agent's",
            )

    def renew_after_fork(self) -> None:
        """Make a forked child's agent its own: no threads, locks or spans of the parent."""
        self._lock = threading.RLock()
        self.server.running = False
        self.metrics.reset()
        self.tracer_provider.open.clear()
        self.tracer_provider.unsampled = self.tracer_provider.over_limit = 0
        self._pipeline.renew_after_fork()
        self.tracer_provider.sink = self._pipeline.relay


class Middleware(Instrumented):
    """The Starlette convention: `app.add_middleware(apmkit.Middleware, agent=agent)`.

    Middleware added this way runs inside Starlette's own error handler, so that a request whose
    handler raises has the exception's name but no status; `apmkit.instrument` sees both.
    """

    def __init__(self, app: Application, agent: Agent) -> None:
        super().__init__(app, agent.server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application once, recorded."""
        # Only the scope tells which application this is; the server's lifespan comes first.
        _silence_fastapi(scope.get("app"))
        await super().__call__(scope, receive, send)


def instrument(
    app: Any,  # noqa: ANN401 - FastAPI or Starlette, neither of which is a dependency
    *,
    exporters: str | Sequence[str | Exporter] | None = None,
    **settings: Any,  # noqa: ANN401 - checked by Settings, which names what it refuses
) -> Agent:
    """Instrument a FastAPI or Starlette application in place.

    Args:
        app: the application; for any other ASGI application use `Agent.asgi`.
        exporters: as for `Agent`.
        settings: as for `Agent`.

    Returns:
        The agent. Calling it a second time on the same application returns the same one.

    Raises:
        SettingsError: if a setting is unknown, or is not what it may be.
        TypeError: if `app` is neither FastAPI nor Starlette.

    Example:
        >>> from starlette.applications import Starlette
        >>> agent = instrument(Starlette(), service_name="orders")
    """
    if not hasattr(app, "build_middleware_stack"):
        message = (
            f"instrument() takes a FastAPI or Starlette application, not {type(app).__name__};"
            " for any other ASGI application: app = apmkit.Agent(...).asgi(app)"
        )
        raise TypeError(message)
    known: Agent | None = getattr(app, "_apmkit_agent", None)
    if known is not None:
        _warn_if_other(known, Settings.load(**settings), settings)
        return known
    agent = Agent(exporters=exporters, **settings)
    if agent.settings.disabled:
        return agent
    app._apmkit_agent = agent  # noqa: SLF001 - our own mark on somebody else's object
    agent._applications.append(weakref.ref(app))  # noqa: SLF001 - same module
    _silence_fastapi(app)
    build = app.build_middleware_stack
    # Around Starlette's whole stack, its error handler included, so that the 500 it sends is seen.
    app.build_middleware_stack = lambda: Instrumented(build(), agent.server)
    if app.middleware_stack is not None:
        app.middleware_stack = Instrumented(app.middleware_stack, agent.server)
    return agent


def _warn_if_other(agent: Agent, asked: Settings, names: Iterable[str]) -> None:
    for name in names:
        if getattr(asked, name) != getattr(agent.settings, name):
            agent._faults.warn(  # noqa: SLF001 - same module
                "instrument", f"instrument() was called again with another {name}; the first holds"
            )


def _silence_fastapi(app: object) -> None:
    # FastAPI's own tracing starts outside its middleware as soon as there is a tracer provider:
    # the same request would be a second span, and we would stand back for it.
    telemetry = getattr(app, "_telemetry", None)
    if isinstance(telemetry, dict):
        telemetry["tracing"] = False


def _sampler(settings: Settings) -> Sampler:
    if settings.traces_sampler is None:
        return BudgetSampler(settings.trace_budget)
    # Reads OTEL_TRACES_SAMPLER and its argument in their standard meaning.
    from opentelemetry.sdk.trace.sampling import _get_from_env_or_default

    return StandardHead(_get_from_env_or_default())


def _weak(app: object) -> bool:
    try:
        weakref.ref(app)
    except TypeError:
        return False
    return True


def _stop_at_exit(reference: weakref.ref[Agent]) -> None:
    agent = reference()
    if agent is not None:
        agent.stop(2.0)


def _after_fork(reference: weakref.ref[Agent]) -> None:
    agent = reference()
    if agent is not None:
        agent.renew_after_fork()
