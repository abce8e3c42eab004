"""Settings: read once from four places, checked, frozen.

A keyword argument beats a standard `OTEL_*` variable, which beats an `APMKIT_*` variable, which
beats `apmkit.toml`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import socket
import sys
import uuid
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from apmkit import config_values as values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.util.types import AttributeValue

PREFIX = "APMKIT_"
CONFIG_VARIABLE = "APMKIT_CONFIG"
CONFIG_FILE = "apmkit.toml"

# What Kubernetes sets in every pod for a Service whose name begins with "apmkit".
_OF_KUBERNETES = re.compile(
    r"APMKIT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)\w*)?)$"
)

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_LONGEST_SHOWN = 80


class SettingsError(ValueError):
    """A setting that is unknown or is not what it may be; one sentence says which and where."""


class _Rule(NamedTuple):
    """How a setting is read, and what it may be, in words.

    `standard` is its `OTEL_*` variable; `own` tells whether it is set in any other way as well.
    """

    read: Callable[[object], Any]
    may_be: str
    standard: str = ""
    own: bool = True
    secret: bool = False


def _setting(default: object, rule: _Rule) -> Any:  # noqa: ANN401 - a default of any type
    details = {"rule": rule, "may_be": rule.may_be, "standard": rule.standard, "own": rule.own}
    return dataclasses.field(default=default, repr=not rule.secret, metadata=details)


_WORDS = "true or false"
_INTERVAL = _Rule(
    values.milliseconds, "a whole number of milliseconds, more than 0 and at most a day"
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """What an agent is told to do. Made by `Settings.load`, which checks every value.

    The metadata of each field has `may_be`, in words; `standard`, its `OTEL_*` variable or "";
    and `own`, whether keyword arguments, `APMKIT_*` variables and `apmkit.toml` set it.

    Attributes:
        service_name: the name of the service, as backends show it; by default
            "unknown_service:" and the name of the interpreter.
        resource: further attributes of the service; `service.instance.id` is new for every process.
        exporters: names of installed exporters; by default "prometheus", and "otlp" as soon as an
            endpoint is known.
        otlp_endpoint: base URL of an OTLP backend; without it the `OTEL_EXPORTER_OTLP_*` variables
            decide.
        trace_budget: traces to keep in a second; errors and slow ones have as much again.
        slow_after: seconds after which a request counts as slow.
        trust_upstream: whether a caller's trace context is taken up; without it each request starts
            a trace of its own that links to the caller's.
        ops_token: lets those see the agent's own pages who send it as a bearer token.
        ops_networks: clients that see the agent's own pages without a token; none by default where
            ops_token is set, else loopback
            and private addresses.
        metrics_path: where Prometheus scrapes.
        metric_export_interval: seconds between two exports of all metrics.
        disabled: whether nothing is exported.
        traces_sampler: the standard sampler that replaces the trace budget; only the variable
            sets it.
    """

    service_name: str = _setting(
        "unknown_service", _Rule(values.text, "a name, as text", "OTEL_SERVICE_NAME")
    )
    resource: Mapping[str, AttributeValue] = _setting(
        None,
        _Rule(
            values.attributes,
            "a table of texts, numbers and lists of them, in a variable like key=value,other=value",
            "OTEL_RESOURCE_ATTRIBUTES",
        ),
    )
    exporters: tuple[str, ...] = _setting(
        ("prometheus",),
        _Rule(values.names, 'a list of names, in a variable like prometheus,otlp or "none"'),
    )
    otlp_endpoint: str | None = _setting(
        None,
        _Rule(values.endpoint, "a URL such as http://localhost:4318, without user and password"),
    )
    trace_budget: float = _setting(
        100.0, _Rule(values.number, 'a number of traces a second, 0 or more; "inf" keeps all')
    )
    slow_after: float = _setting(
        1.0, _Rule(values.positive, 'a number of seconds, more than 0; "inf" for never')
    )
    trust_upstream: bool = _setting(default=True, rule=_Rule(values.flag, _WORDS))
    ops_token: str | None = _setting(
        None,
        _Rule(
            values.token, f"{values.SHORTEST_TOKEN} or more visible ASCII characters", secret=True
        ),
    )
    ops_networks: tuple[values.Network, ...] = _setting(
        values.LOCAL_NETWORKS,
        _Rule(values.networks, 'a list of networks, in a variable like 10.0.0.0/8,::1 or "none"'),
    )
    metrics_path: str | None = _setting(
        "/metrics", _Rule(values.path, 'a path that starts with "/"; None or "none" for none')
    )
    metric_export_interval: float = _setting(
        60.0,
        _Rule(
            values.interval,
            "a number of seconds, more than 0 and at most a day",
            "OTEL_METRIC_EXPORT_INTERVAL",
        ),
    )
    disabled: bool = _setting(default=False, rule=_Rule(values.flag, _WORDS, "OTEL_SDK_DISABLED"))
    traces_sampler: str | None = _setting(
        None,
        _Rule(values.sampler, " or ".join(values.SAMPLERS), "OTEL_TRACES_SAMPLER", own=False),
    )
    _chosen: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)

    @classmethod
    def load(cls, **given: Any) -> Settings:  # noqa: ANN401 - what each may be is checked here
        """Read keyword arguments, variables and `apmkit.toml`.

        Args:
            given: settings by name; they beat every other place.

        Raises:
            SettingsError: if a setting is unknown, or is not what it may be.

        Example:
            >>> Settings.load(service_name="orders").service_name
            'orders'
        """
        sources = _Sources(given, os.environ)
        found = {name: sources.value(name) for name in _FIELDS}
        chosen = sources.resource()
        if "trace_budget" in given:
            found["traces_sampler"] = None
        elif found["traces_sampler"] is not None:
            sources.check_sampler_argument()
        if found["ops_token"] is not None and found["ops_networks"] is _LOCAL:
            # A proxy that names no client makes everybody local: who sets a token wants it asked.
            found["ops_networks"] = ()
        found["exporters"] = () if found["disabled"] else sources.exporters(found)
        found["resource"] = MappingProxyType({**_process_attributes(), **chosen})
        found["service_name"] = str(found["resource"]["service.name"])
        return cls(**found, _chosen=frozenset(chosen))

    def for_this_process(self) -> Settings:
        """Return the same settings for a forked child: what names the process is made anew."""
        own = {k: v for k, v in _process_attributes().items() if k not in self._chosen}
        return dataclasses.replace(self, resource=MappingProxyType({**self.resource, **own}))


_LOCAL = values.LOCAL_NETWORKS
_FIELDS = {f.name: f for f in dataclasses.fields(Settings) if f.metadata}
_OWN = [name for name, f in _FIELDS.items() if f.metadata["rule"].own]


def _process_attributes() -> dict[str, AttributeValue]:
    try:
        version = metadata.version("apmkit")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        version = "unknown"
    return {
        "service.name": f"unknown_service:{Path(sys.executable or 'python').name}",
        "service.instance.id": uuid.uuid4().hex,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "apmkit",
        "telemetry.sdk.version": version,
        "process.pid": os.getpid(),
        "host.name": socket.gethostname(),
    }


class _Candidate(NamedTuple):
    """A value for a setting, where it came from, and how it is read."""

    setting: str
    origin: str
    value: object
    rule: _Rule

    def result(self) -> Any:  # noqa: ANN401 - each setting has its own type
        try:
            return self.rule.read(self.value)
        except (ValueError, TypeError, OverflowError):
            shown = "something else" if self.rule.secret else _shown(self.value)
            sentence = f"{self.setting} ({self.origin}) is {shown}; it may be {self.rule.may_be}"
            raise SettingsError(sentence) from None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a keyword argument may be any object
        return f"of type {type(value).__name__}"
    if "@" in text:  # a URL may hold a password
        return "something else"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


class _Sources:
    """The four places, asked in the order of their strength."""

    def __init__(self, given: Mapping[str, object], environ: Mapping[str, str]) -> None:
        self._given = given
        self._environ = environ
        self._file_name, self._file = _read_file(environ.get(CONFIG_VARIABLE, ""))
        variables = [PREFIX + name.upper() for name in _OWN] + [CONFIG_VARIABLE]
        _check_names(given, _OWN, "keyword argument")
        own = (n for n in environ if n.startswith(PREFIX) and not _OF_KUBERNETES.match(n))
        _check_names(own, variables, "variable")
        _check_names(self._file, _OWN, f"key of {self._file_name}")

    def value(self, name: str) -> Any:  # noqa: ANN401 - each setting has its own type
        """Return the strongest value, or the default."""
        for candidate in self._candidates(name):
            if candidate is not None:
                return candidate.result()
        return _FIELDS[name].default

    def resource(self) -> dict[str, AttributeValue]:
        """Return the attributes of all places, the strongest winning, with the service's name."""
        merged: dict[str, AttributeValue] = {}
        places = [*zip(self._candidates("resource"), self._candidates("service_name"), strict=True)]
        for attributes, service_name in reversed(places):
            if attributes is not None:
                merged.update(attributes.result())
            if service_name is not None:
                merged["service.name"] = service_name.result()
        return merged

    def exporters(self, found: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of exporters; the standard variables name them for each signal."""
        known = found["otlp_endpoint"] is not None or any(map(self._variable, _ENDPOINTS))
        otlp = ("otlp",) if known else ()
        traces, metrics = map(self._variable, ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"))
        if "exporters" not in self._given and (traces or metrics):
            of_metrics = values.names(metrics) if metrics else ("prometheus", *otlp)
            return tuple(dict.fromkeys([*of_metrics, *(values.names(traces) if traces else otlp)]))
        if any(self._candidates("exporters")):
            names: tuple[str, ...] = found["exporters"]
            return names
        return ("prometheus", *otlp)

    def check_sampler_argument(self) -> None:
        """Refuse a probability that is none; the SDK, which reads it, would only log."""
        value = self._variable("OTEL_TRACES_SAMPLER_ARG")
        if value and self._variable("OTEL_TRACES_SAMPLER").endswith("traceidratio"):
            rule = _Rule(values.probability, "a number from 0 to 1")
            _Candidate("traces_sampler", "variable OTEL_TRACES_SAMPLER_ARG", value, rule).result()

    def _candidates(self, name: str) -> list[_Candidate | None]:
        """Return what each place says, the strongest first."""
        rule: _Rule = _FIELDS[name].metadata["rule"]
        own, standard = PREFIX + name.upper(), rule.standard
        keyword = standard_variable = variable = key = None
        if name in self._given:
            keyword = _Candidate(name, "keyword argument", self._given[name], rule)
        if standard and self._variable(standard):
            of_standard = _INTERVAL if rule.read is values.interval else rule
            text = self._variable(standard)
            standard_variable = _Candidate(name, f"variable {standard}", text, of_standard)
        # An exporter reads the standard variable itself, and lets otlp_endpoint beat it.
        if name == "otlp_endpoint" and self._variable(_ENDPOINTS[0]):
            return [keyword]
        if self._variable(own) or (rule.read is values.path and own in self._environ):
            variable = _Candidate(name, f"variable {own}", self._variable(own), rule)
        if name in self._file:
            key = _Candidate(name, f"key {name} of {self._file_name}", self._file[name], rule)
        return [keyword, standard_variable, variable, key]

    def _variable(self, name: str) -> str:
        """Return a variable's text; an empty one counts as not set, as OpenTelemetry has it."""
        return self._environ.get(name, "").strip()


def _check_names(names: Iterable[str], known: list[str], what: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(known)}"
            raise SettingsError(f"{name} is not a setting ({what}); {hint}")


def _read_file(chosen: str) -> tuple[str, dict[str, Any]]:
    path = Path(chosen or CONFIG_FILE)
    if not chosen and not path.exists():
        return CONFIG_FILE, {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        origin = f"{CONFIG_VARIABLE} is {str(path)!r}, which" if chosen else f"{path}"
        raise SettingsError(f"{origin} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
