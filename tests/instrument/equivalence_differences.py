"""Where apmkit deliberately says something else than OpenTelemetry's ASGI middleware.

docs/differences.md argues each of them under a heading of the same name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Seen = dict[str, Any]


class Difference(NamedTuple):
    """Keys of what was seen, as a pattern, and how the two values of such a key relate."""

    keys: str
    relation: Callable[[Any, Any, Seen], bool]
    reason: str

    def explains(self, key: str, theirs: Seen, ours: Seen) -> bool:
        """Tell whether this is why `key` differs."""
        if re.fullmatch(self.keys, key) is None:
            return False
        return self.relation(theirs.get(key), ours.get(key), ours)


def _ours_alone(theirs: Any, ours: Any, _: Seen) -> bool:  # noqa: ANN401 - any application, any value
    return theirs is None and ours is not None


def _handshake(theirs: Any, ours: Any, _: Seen) -> bool:  # noqa: ANN401 - any application, any value
    return ours is not None and (theirs in {None, 200} or str(theirs).startswith("HTTP /"))


DIFFERENCES = {
    "own attributes": Difference(
        r"span apmkit\.http\.time_to_first_byte",
        lambda theirs, ours, _: theirs is None and 0 < ours < 60,
        "what no convention has a name for starts with apmkit",
    ),
    "size on the span": Difference(
        r"span http\.response\.body\.size",
        _ours_alone,
        "the conventions list it as opt-in; the bytes are counted anyway",
    ),
    "size as sent": Difference(
        r"response size .*",
        _ours_alone,
        "bytes are counted as they are sent, so streams and empty bodies count too",
    ),
    "port in the address": Difference(
        r"span server\.address",
        lambda theirs, ours, seen: theirs == f"{ours}:{seen.get('span server.port')}",
        "server.address is an address; the port has an attribute of its own",
    ),
    "no server": Difference(
        r"span server\.(address|port)",
        lambda theirs, ours, _: theirs in {"0.0.0.0", 80} and ours is None,
        "an address that the server did not give is not invented",
    ),
    "route": Difference(
        r"(span|duration|request size|response size) http\.route",
        _ours_alone,
        "the conventions require http.route, on the span and on the metrics",
    ),
    "name by route": Difference(
        r"span name",
        lambda _, ours, seen: ours.split(" ", 1)[1] == seen["span http.route"],
        "the conventions name a span by method and route, so that names stay few",
    ),
    "name without path": Difference(
        r"span name",
        lambda theirs, ours, _: theirs.startswith(f"{ours} /"),
        "without a route the conventions name a span by its method alone",
    ),
    "secrets": Difference(
        r"span (url\.query|http\.request\.header\..*)",
        lambda theirs, ours, _: "REDACTED" in str(ours) and "REDACTED" not in str(theirs),
        "what looks like a secret does not leave the process",
    ),
    "query not UTF-8": Difference(
        r".*",
        lambda theirs, _, seen: (
            theirs in {None, "UnicodeDecodeError"}
            and seen.get("span http.response.status_code") == 200
        ),
        "OpenTelemetry's middleware raises; the request must not fail for it",
    ),
    "default scheme": Difference(
        r".* url\.scheme",
        lambda theirs, ours, _: theirs is None and ours == "http",
        "ASGI says that a missing scheme is http, and the conventions require one",
    ),
    "exception type": Difference(
        r"(span|duration|response size) error\.type",
        lambda theirs, ours, _: theirs is None and ours == "LookupError",
        "the conventions require error.type when a request ended with an exception",
    ),
    "exception of a 500": Difference(
        r"span events",
        lambda theirs, ours, _: theirs == [] and ours == ["exception"],
        "the exception that a framework answers with a 500 belongs to the request's span",
    ),
    "handshake": Difference(
        r"span (name|http\.(request\.method|response\.(status_code|body\.size)))"
        r"|(active|duration|response size) .*",
        _handshake,
        "a WebSocket starts as an HTTP request, which is what the conventions describe",
    ),
}
