"""OpenTelemetry's names, units and attributes as Prometheus writes them.

The rules are those of OpenTelemetry's "Prometheus and OpenMetrics Compatibility".
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tebibytes",
    "kBy": "kilobytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
}
_PER = {
    "s": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}
_ANNOTATION = re.compile(r"\{[^}]*\}")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9]+")


def metric_name(name: str, unit: str, kind: str) -> tuple[str, str]:
    """Return a metric's name without `_total`, and the unit that the name ends with, if any.

    `http.server.request.duration` in `s` is `http_server_request_duration_seconds`. The name is
    empty if no character of it is allowed.
    """
    base = _NOT_IN_NAME.sub("_", name).strip("_")
    if kind == "counter":
        base = base.removesuffix("_total")
    suffix = _unit(unit, kind)
    if base and suffix and base != suffix and not base.endswith(f"_{suffix}"):
        base = f"{base}_{suffix}"
    if base[:1].isdigit():
        base = f"_{base}"
    return base, suffix if base.endswith(f"_{suffix}") else ""


def _unit(unit: str, kind: str) -> str:
    if unit == "1":
        return "ratio" if kind == "gauge" else ""
    count, _, per = _ANNOTATION.sub("", unit).partition("/")
    words = [_UNITS.get(count, count)]
    if per:
        words += ["per", _PER.get(per, per)]
    return _NOT_IN_NAME.sub("_", "_".join(words)).strip("_:")


def label_name(key: str) -> str:
    """Return an attribute's key as a label name; `__` at the start is Prometheus's own."""
    name = _NOT_IN_LABEL.sub("_", key)
    if name[:1].isdigit() or name.startswith("_"):
        name = f"key_{name.lstrip('_')}"
    # A histogram's buckets have a label of this name.
    return "exported_le" if name == "le" else name or "key_"


def labels(attributes: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return attributes as labels.

    Values whose keys become one label name are joined by `;`, in the order of the keys. An empty
    label is left out, because Prometheus takes it for none.
    """
    found: dict[str, str] = {}
    for key, value in sorted(attributes, key=lambda pair: pair[0]):
        name, text = label_name(key), label_value(value)
        found[name] = f"{found[name]};{text}" if name in found else text
    return {name: text for name, text in found.items() if text}


def label_value(value: object) -> str:
    """Return an attribute's value as text that UTF-8 can hold; lists are JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        value = json.dumps(value, default=str)
    return encodable(value if type(value) is str else str(value))


def encodable(text: str) -> str:
    """Return `text` with what no scraper can read, surrogates and NUL, replaced."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
