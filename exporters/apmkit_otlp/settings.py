"""What the standard `OTEL_EXPORTER_OTLP_*` variables say, read and checked once for each signal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from apmkit_otlp.tls import Tls, read_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from apmkit.relay.export import Signal

PROTOCOLS = ("http/protobuf", "grpc")
PREFIX = "OTEL_EXPORTER_OTLP_"
DEFAULT_TIMEOUT = 10.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,8}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_SMALLEST_SENSIBLE_TIMEOUT = 0.1


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one signal goes and how.

    Attributes:
        protocol: one of `PROTOCOLS`.
        secure: over TLS.
        host: name or address, without the brackets of IPv6.
        port: the TCP port.
        path: request target of HTTP, query included.
        headers: sent with every request, names in lower case.
        timeout: seconds for one request.
        gzip: compress requests.
        tls: the certificates, where any are set.
    """

    protocol: str
    secure: bool
    host: str
    port: int
    path: str
    headers: Mapping[str, str]
    timeout: float
    gzip: bool
    tls: Tls


def read_destination(
    signal: Signal,
    endpoint: str | None,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> Destination:
    """Return where `signal` goes.

    Args:
        signal: "traces" or "metrics"; `OTEL_EXPORTER_OTLP_TRACES_…` beats `OTEL_EXPORTER_OTLP_…`.
        endpoint: the setting `otlp_endpoint`; it beats `OTEL_EXPORTER_OTLP_ENDPOINT`.
        environ: the environment.
        warn: told what is allowed and hardly meant.

    Raises:
        ValueError: with one sentence that names the variable, what it was and what it may be.
    """
    protocol = _one_of(_variable("PROTOCOL", signal, environ), PROTOCOLS)
    secure, host, port, path = _address(signal, endpoint, environ, grpc=protocol == "grpc")
    return Destination(
        protocol=protocol,
        secure=secure,
        host=host,
        port=port,
        path=path,
        headers=_headers(*_variable("HEADERS", signal, environ)),
        timeout=_timeout(*_variable("TIMEOUT", signal, environ), warn),
        gzip=_one_of(_variable("COMPRESSION", signal, environ), ("none", "gzip")) == "gzip",
        tls=read_tls(
            _variable("CERTIFICATE", signal, environ),
            _variable("CLIENT_CERTIFICATE", signal, environ),
            _variable("CLIENT_KEY", signal, environ),
        ),
    )


def takes_signal(signal: Signal, environ: Mapping[str, str]) -> bool:
    """Whether `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` leaves `signal` to OTLP."""
    chosen = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip()
    return not chosen or "otlp" in {name.strip() for name in chosen.split(",")}


def _variable(suffix: str, signal: Signal, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and value that hold; an empty variable is an unset one."""
    own = f"{PREFIX}{signal.upper()}_{suffix}"
    common = PREFIX + suffix
    name = own if environ.get(own, "").strip() else common
    return name, environ.get(name, "").strip()


def _one_of(variable: tuple[str, str], choices: tuple[str, ...]) -> str:
    name, value = variable
    if not value:
        return choices[0]
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it may be {' or '.join(choices)}")
    return value


def _address(
    signal: Signal, endpoint: str | None, environ: Mapping[str, str], *, grpc: bool
) -> tuple[bool, str, int, str]:
    name, value = _variable("ENDPOINT", signal, environ)
    own = name != f"{PREFIX}ENDPOINT"
    if endpoint is not None and not own:
        name, value = "otlp_endpoint", endpoint.strip()
    elif not value:
        value = "http://localhost:4317" if grpc else "http://localhost:4318"
    if grpc and "://" not in value:
        insecure = _one_of(_variable("INSECURE", signal, environ), ("false", "true"))
        value = f"{'http' if insecure == 'true' else 'https'}://{value}"
    secure, host, port, path = _parts(name, value)
    if grpc:
        return secure, host, port, ""
    if not own:
        path = f"{path.rstrip('/')}/v1/{signal}"
    return secure, host, port, path or "/"


def _parts(name: str, value: str) -> tuple[bool, str, int, str]:
    message = f"{name} is {value!r}; it may be a URL such as http://localhost:4318"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{message} ({error})") from None
    if parts.username is not None or parts.password is not None:
        # The value may hold a password, so the sentence leaves it out.
        raise ValueError(f"{name} holds a user name; credentials go into {PREFIX}HEADERS")
    malformed = (
        parts.scheme not in _DEFAULT_PORTS
        or not parts.hostname
        or port == 0
        or parts.fragment
        or not value.isascii()
        or not value.isprintable()
        or " " in value
    )
    if malformed or not parts.hostname:
        raise ValueError(message)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return (
        parts.scheme == "https",
        parts.hostname,
        _DEFAULT_PORTS[parts.scheme] if port is None else port,
        path,
    )


def _headers(name: str, value: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for number, entry in enumerate(value.split(","), start=1):
        if not entry.strip():
            continue
        key, equals, text = entry.partition("=")
        key, text = key.strip().lower(), unquote(text.strip())
        if not equals or not _HEADER_NAME.fullmatch(key) or _UNPRINTABLE.search(text):
            # Headers carry secrets, so the sentence names the place and not the text.
            raise ValueError(
                f"{name} is malformed in entry {number}; it may be a list such as "
                "key=value,other=value with percent-encoded values"
            )
        headers[key] = text
    return headers


def _timeout(name: str, value: str, warn: Callable[[str], None]) -> float:
    if not value:
        return DEFAULT_TIMEOUT
    if not _MILLISECONDS.fullmatch(value):
        raise ValueError(f"{name} is {value!r}; it may be a positive whole number of milliseconds")
    seconds = int(value) / 1_000
    if seconds < _SMALLEST_SENSIBLE_TIMEOUT:
        warn(f"{name} is {value}, in milliseconds: every export must end within {seconds} s")
    return seconds
