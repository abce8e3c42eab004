"""Who may see the agent's own pages."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.config_values import LOCAL_NETWORKS
from apmkit.ops.access import allowed

TOKEN = "correct-horse-battery"


def scope(host: str | None = "203.0.113.9", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"client": None if host is None else (host, 50_000), "headers": list(headers)}


def bearer(token: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "fd00::1",
        "::ffff:127.0.0.1",
    ],
)
def test_loopback_and_private_clients_may_see_it(host: str) -> None:
    assert allowed(scope(host), None, LOCAL_NETWORKS)


@pytest.mark.parametrize("host", ["203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9", "172.32.0.1"])
def test_public_clients_may_not(host: str) -> None:
    assert not allowed(scope(host), None, LOCAL_NETWORKS)


@pytest.mark.parametrize("host", [None, "testclient", "unix:", ""])
def test_a_client_without_an_address_is_local(host: str | None) -> None:
    assert allowed(scope(host), None, LOCAL_NETWORKS)


@pytest.mark.parametrize("host", [None, "testclient", "127.0.0.1"])
def test_without_networks_nobody_is_local(host: str | None) -> None:
    assert not allowed(scope(host), None, ())


def test_a_client_without_client_in_the_scope_is_local() -> None:
    assert allowed({"headers": []}, None, LOCAL_NETWORKS)


@pytest.mark.parametrize(
    "name",
    [
        b"forwarded",
        b"x-forwarded-for",
        b"x-real-ip",
        b"via",
        b"X-Forwarded-For",
        b"cf-connecting-ip",
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", None])
def test_a_forwarded_header_ends_the_trust_in_an_address(name: bytes, host: str | None) -> None:
    assert not allowed(scope(host, (name, b"")), None, LOCAL_NETWORKS)
    assert not allowed(scope(host, (name, b"127.0.0.1")), TOKEN, LOCAL_NETWORKS)


def test_the_token_opens_from_everywhere_also_through_a_proxy() -> None:
    sent = bearer(TOKEN.encode())
    assert allowed(scope("203.0.113.9", sent), TOKEN, LOCAL_NETWORKS)
    assert allowed(scope("127.0.0.1", sent, (b"x-forwarded-for", b"203.0.113.9")), TOKEN, ())


def test_the_scheme_is_read_in_any_case() -> None:
    assert allowed(scope("203.0.113.9", (b"Authorization", b"bearer " + TOKEN.encode())), TOKEN, ())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong-horse-battery",
        b"Bearer " + TOKEN.encode()[:-1],
        b"Bearer " + TOKEN.encode() + b"x",
        b"Basic " + TOKEN.encode(),
        TOKEN.encode(),
        b"Bearer \xff\xfe",
    ],
)
def test_a_wrong_token_opens_nothing(value: bytes) -> None:
    assert not allowed(scope("203.0.113.9", (b"authorization", value)), TOKEN, LOCAL_NETWORKS)


def test_two_authorization_headers_open_nothing() -> None:
    sent = bearer(TOKEN.encode())
    assert not allowed(scope("203.0.113.9", sent, sent), TOKEN, LOCAL_NETWORKS)


def test_without_a_token_set_no_token_opens() -> None:
    assert not allowed(scope("203.0.113.9", bearer(b"")), None, LOCAL_NETWORKS)
    assert not allowed(scope("203.0.113.9", bearer(b"None")), None, LOCAL_NETWORKS)


def test_networks_can_be_narrowed() -> None:
    only = [ip_network("10.1.0.0/16")]
    assert allowed(scope("10.1.2.3"), None, only)
    assert not allowed(scope("127.0.0.1"), None, only)


@pytest.mark.parametrize(
    "malformed",
    [
        {},
        {"headers": None},
        {"headers": [b"x"], "client": None},
        {"headers": [(1, 2)], "client": None},
        {"headers": [], "client": ()},
        {"headers": [], "client": 7},
        {"headers": [], "client": (7, 7)},
        {"headers": [("authorization", "Bearer x")], "client": ("203.0.113.9", 1)},
    ],
)
def test_what_is_malformed_is_refused(malformed: dict[str, Any]) -> None:
    assert not allowed(malformed, TOKEN, LOCAL_NETWORKS)


@given(st.binary(), st.binary(), st.text())
def test_nothing_raises(name: bytes, value: bytes, host: str) -> None:
    headers = ((name, value), (b"authorization", b"Bearer " + value))
    assert allowed(scope(host, *headers), TOKEN, ()) is (value.strip() == TOKEN.encode())
