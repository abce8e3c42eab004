"""Who may see the agent's own pages."""

from __future__ import annotations

import hmac
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Network = IPv4Network | IPv6Network

_SCHEME = b"bearer "
# Behind a local proxy every client looks like loopback; these headers tell that there is one.
_PROXY_HEADERS = frozenset(
    {
        b"cf-connecting-ip",
        b"client-ip",
        b"fastly-client-ip",
        b"forwarded",
        b"forwarded-for",
        b"true-client-ip",
        b"via",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-original-forwarded-for",
        b"x-real-ip",
    }
)


def allowed(scope: Mapping[str, Any], token: str | None, networks: Sequence[Network]) -> bool:
    """Tell whether a request may see the agent's own pages.

    It may if it carries the token, or if it comes from one of the networks and not through a
    proxy. A client without an IP address (a UNIX socket, a test client) counts as local.

    Args:
        scope: the ASGI scope of the request.
        token: the setting `ops_token`.
        networks: the setting `ops_networks`.

    Returns:
        False for whatever is malformed; nothing is raised.

    Example:
        >>> near = [ip_network("127.0.0.0/8")]
        >>> allowed({"client": ("127.0.0.1", 50_000), "headers": []}, None, near)
        True
    """
    try:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        if token is not None and _carries(headers, token.encode()):
            return True
        proxied = any(name in _PROXY_HEADERS for name, _ in headers)
        return not proxied and _is_near(scope.get("client"), networks)
    except Exception:  # noqa: BLE001 - a scope from any server; what cannot be read is refused
        return False


def _carries(headers: list[tuple[bytes, bytes]], token: bytes) -> bool:
    sent = [value for name, value in headers if name == b"authorization"]
    # More than one is not HTTP, and a proxy in front may have checked the other one.
    if len(sent) != 1 or sent[0][: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(sent[0][len(_SCHEME) :].strip(), token)


def _is_near(client: Sequence[Any] | None, networks: Sequence[Network]) -> bool:
    if client is None:
        return bool(networks)
    host = client[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return bool(networks)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
