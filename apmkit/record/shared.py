"""What spans that look alike have in common, so that it is encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import AttributeValue


class Shared:
    """Attributes of many spans, and their name and kind unless the name is empty.

    `encoded` is a place for whoever encodes them.
    """

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes)
        self.encoded: tuple[bytes, bytes] | None = None
