"""Which format and encoding a scraper wants, by HTTP's rules.

prometheus-client's own negotiation overlooks qualities and raises on a malformed version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header puts OpenMetrics 1.0 no lower than the text format."""
    openmetrics = text = 0.0
    for value, parameters, quality in _preferences(accept):
        if value == "text/plain":
            text = max(text, quality)
        elif value == "application/openmetrics-text" and (
            parameters.get("version", "") in _OPENMETRICS_VERSIONS
        ):
            openmetrics = max(openmetrics, quality)
    return openmetrics > 0 and openmetrics >= text


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    return any(
        value == "gzip" and quality > 0 for value, _, quality in _preferences(accept_encoding)
    )


def _preferences(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for element in header.split(","):
        value, *rest = (part.strip().lower() for part in element.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip(): text.strip(' "') for key, _, text in pairs}
        try:
            quality = float(parameters.get("q", 1))
        except ValueError:
            quality = 0.0
        yield value, parameters, quality
