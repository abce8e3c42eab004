"""What a setting may be.

Each reader takes text (from a variable) or a value (a keyword argument, TOML), returns the setting,
and raises ValueError or TypeError for anything that the setting may not be; who asks makes the
sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib import metadata
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

Network = IPv4Network | IPv6Network

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
LOCAL_NETWORKS: tuple[Network, ...] = (
    ip_network("127.0.0.0/8"),
    ip_network("::1/128"),
    ip_network("10.0.0.0/8"),
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("fc00::/7"),
)
SHORTEST_TOKEN = 16

_DAY = 86_400.0
_PATH = re.compile(r"/[!-~]*")
_VISIBLE = re.compile(r"[!-~]+")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,15}")
_SCALARS = (str, bool, int, float)
_SAMPLER_PLUGINS = "opentelemetry_traces_sampler"


def text(value: object) -> str:
    """Text that is more than blanks."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def flag(value: object) -> bool:
    """A yes or no: `true` or `false`."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    word = text(value).lower()
    if word not in words:
        raise ValueError
    return words[word]


def number(value: object) -> float:
    """A number of 0 or more, infinity included."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError
    found = float(value)
    if math.isnan(found) or found < 0:
        raise ValueError
    return found


def positive(value: object) -> float:
    """A number above 0, infinity included."""
    found = number(value)
    if not found:
        raise ValueError
    return found


def interval(value: object) -> float:
    """Seconds, up to a day."""
    found = positive(value)
    if found > _DAY:
        raise ValueError
    return found


def milliseconds(value: object) -> float:
    """Milliseconds in a variable, as seconds."""
    if not isinstance(value, str) or not _WHOLE_NUMBER.fullmatch(value.strip()):
        raise ValueError
    return interval(int(value) / 1_000)


def _items(value: object) -> list[Any]:
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",") if name.strip()]
        return [] if names == ["none"] else names
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return list(value)


def names(value: object) -> tuple[str, ...]:
    """Names, each once."""
    return tuple(dict.fromkeys(text(name) for name in _items(value) if name != "none"))


def networks(value: object) -> tuple[Network, ...]:
    """IP networks."""
    return tuple(
        item if isinstance(item, (IPv4Network, IPv6Network)) else ip_network(text(item))
        for item in _items(value)
    )


def path(value: object) -> str | None:
    """A path of URLs, or None."""
    if value is None or value in ("", "none"):
        return None
    if not isinstance(value, str) or not _PATH.fullmatch(value) or set(value) & set("?#"):
        raise ValueError
    return value


def endpoint(value: object) -> str | None:
    """The base URL of a backend, or None."""
    if value is None:
        return None
    url = text(value)
    parts = urlsplit(url)
    complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    if not complete or not _VISIBLE.fullmatch(url) or parts.fragment or "@" in parts.netloc:
        raise ValueError
    return url


def token(value: object) -> str | None:
    """A secret that fits into a header and is not guessed, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) < SHORTEST_TOKEN or not _VISIBLE.fullmatch(value):
        raise ValueError
    return value


def attributes(value: object) -> dict[str, AttributeValue]:
    """Attributes of the resource; in a variable as `OTEL_RESOURCE_ATTRIBUTES` has them."""
    if isinstance(value, str):
        value = dict(_pair(item) for item in value.split(",") if item.strip())
    if not isinstance(value, Mapping):
        raise TypeError
    return {text(key): _attribute(item) for key, item in value.items()}


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ValueError
    return unquote(key.strip(), errors="strict"), unquote(value.strip(), errors="strict")


def _attribute(value: object) -> AttributeValue:
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, _SCALARS) for item in value):
        return tuple(value)
    raise TypeError


def sampler(value: object) -> str:
    """The name of a sampler of OpenTelemetry's SDK, or of one that is installed."""
    name = text(value).lower()
    if name not in SAMPLERS and not metadata.entry_points(group=_SAMPLER_PLUGINS, name=name):
        raise ValueError
    return name


def probability(value: object) -> float:
    """A number from 0 to 1."""
    found = number(value)
    if found > 1:
        raise ValueError
    return found
