"""Request and response headers on spans, as OpenTelemetry's standard variables ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS as SANITIZE,
)
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST as REQUEST,
)
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE as RESPONSE,
)
from opentelemetry.util.http import (
    SanitizeValue,
    get_custom_headers,
    normalise_request_header_name,
    normalise_response_header_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apmkit.record.span import Span

    Headers = Iterable[tuple[bytes, bytes]]


class HeaderCapture:
    """Copies the headers that the environment names to a span.

    `active` tells whether it names any.
    """

    def __init__(self) -> None:
        self._request = get_custom_headers(REQUEST)
        self._response = get_custom_headers(RESPONSE)
        self.active = bool(self._request or self._response)
        self._sanitize = SanitizeValue(get_custom_headers(SANITIZE))

    def request(self, span: Span, headers: Headers) -> None:
        """Set `http.request.header.*`."""
        if self._request:
            self._capture(span, headers, self._request, normalise_request_header_name)

    def response(self, span: Span, headers: Headers) -> None:
        """Set `http.response.header.*`."""
        if self._response:
            self._capture(span, headers, self._response, normalise_response_header_name)

    def _capture(
        self, span: Span, headers: Headers, wanted: list[str], normalise: Callable[[str], str]
    ) -> None:
        found: dict[str, str | list[str]] = {}
        for name, value in headers:
            values = found.setdefault(name.decode("latin-1"), [])
            assert isinstance(values, list)  # noqa: S101 - the type above is the library's
            values.append(decoded(value))
        captured = self._sanitize.sanitize_header_values(found, wanted, normalise)
        # Not by `set_attribute`: the span is described once it has ended.
        span.attributes = {**captured, **(span.attributes or {})}


def decoded(value: bytes) -> str:
    """Return a header's text: UTF-8 where it is that, else Latin-1, which is always something."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
