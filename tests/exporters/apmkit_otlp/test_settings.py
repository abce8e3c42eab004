"""How the standard OTLP variables are read."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from apmkit_otlp.settings import read_destination, takes_signal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from apmkit.relay.export import Signal
    from apmkit_otlp.settings import Destination


def read(
    environ: Mapping[str, str] | None = None,
    signal: Signal = "traces",
    endpoint: str | None = None,
    warnings: list[str] | None = None,
) -> Destination:
    variables = {f"OTEL_EXPORTER_OTLP_{key}": value for key, value in (environ or {}).items()}
    warn = pytest.fail if warnings is None else warnings.append
    return read_destination(signal, endpoint, variables, warn)


def address(destination: Destination) -> str:
    scheme = "https" if destination.secure else "http"
    return f"{scheme}://{destination.host}:{destination.port}{destination.path}"


def test_nothing_set_means_a_collector_on_this_machine() -> None:
    found = read()

    assert address(found) == "http://localhost:4318/v1/traces"
    assert (found.protocol, found.timeout, found.gzip, found.headers) == (
        "http/protobuf",
        10.0,
        False,
        {},
    )


@pytest.mark.parametrize(
    ("endpoint", "environ", "expected"),
    [
        (None, {"ENDPOINT": "http://c:4318"}, "http://c:4318/v1/metrics"),
        (None, {"ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/metrics"),
        (None, {"ENDPOINT": "https://c/base/"}, "https://c:443/base/v1/metrics"),
        (None, {"ENDPOINT": "http://[::1]:9"}, "http://::1:9/v1/metrics"),
        (None, {"METRICS_ENDPOINT": "http://c:1/x?y=z"}, "http://c:1/x?y=z"),
        (None, {"METRICS_ENDPOINT": "http://c:1"}, "http://c:1/"),
        (None, {"TRACES_ENDPOINT": "http://c:1/x"}, "http://localhost:4318/v1/metrics"),
        ("http://s:2", {"ENDPOINT": "http://c:1"}, "http://s:2/v1/metrics"),
        ("http://s:2", {"METRICS_ENDPOINT": "http://c:1/x"}, "http://c:1/x"),
        (None, {"ENDPOINT": "  "}, "http://localhost:4318/v1/metrics"),
        (None, {"PROTOCOL": "grpc"}, "http://localhost:4317"),
        (None, {"PROTOCOL": "grpc", "ENDPOINT": "c:4317"}, "https://c:4317"),
        (
            None,
            {"PROTOCOL": "grpc", "ENDPOINT": "c:4317", "INSECURE": "true"},
            "http://c:4317",
        ),
        (None, {"METRICS_PROTOCOL": "grpc", "ENDPOINT": "http://c:1/ignored"}, "http://c:1"),
    ],
)
def test_the_most_specific_endpoint_holds(
    endpoint: str | None, environ: dict[str, str], expected: str
) -> None:
    assert address(read(environ, "metrics", endpoint)) == expected


def test_a_signals_own_variables_beat_the_common_ones() -> None:
    found = read(
        {
            "HEADERS": "a=1",
            "TRACES_HEADERS": "B=%20two%2C,c=3",
            "TIMEOUT": "5000",
            "TRACES_TIMEOUT": "1500",
            "COMPRESSION": "gzip",
            "TRACES_COMPRESSION": "none",
        }
    )

    assert (found.headers, found.timeout, found.gzip) == ({"b": " two,", "c": "3"}, 1.5, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT", "localhost:4318"),
        ("ENDPOINT", "ftp://localhost"),
        ("ENDPOINT", "http://"),
        ("ENDPOINT", "http://c:port"),
        ("ENDPOINT", "http://c:99999"),
        ("ENDPOINT", "http://c:0"),
        ("ENDPOINT", "http://[::1"),
        ("ENDPOINT", "http://c d"),
        ("ENDPOINT", "http://c\r\nHost: evil"),
        ("ENDPOINT", "http://bücher.example"),
        ("TRACES_ENDPOINT", "http://c/#fragment"),
        ("PROTOCOL", "http/json"),
        ("TRACES_PROTOCOL", "GRPC"),
        ("COMPRESSION", "zstd"),
        ("TIMEOUT", "ten"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "-5"),
        ("TIMEOUT", "1.5"),
        ("TIMEOUT", "9" * 30),
        ("CERTIFICATE", "missing.pem"),
        ("TRACES_CLIENT_CERTIFICATE", "missing.pem"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value_and_what_it_may_be(
    name: str, value: str
) -> None:
    with pytest.raises(ValueError, match="may be") as refused:
        read({name: value})

    sentence = str(refused.value)
    assert sentence.startswith(f"OTEL_EXPORTER_OTLP_{name} ")
    assert repr(value) in sentence
    assert "\n" not in sentence


def test_a_malformed_endpoint_setting_is_named_as_the_setting() -> None:
    with pytest.raises(ValueError, match=r"^otlp_endpoint is 'collector'; it may be a URL such as"):
        read(endpoint="collector")


@pytest.mark.parametrize("value", ["good=1,secret", "good=1,se cret=2", "good=1,x=secret%0d%0a"])
def test_a_malformed_header_list_is_refused_without_showing_a_secret(value: str) -> None:
    with pytest.raises(ValueError, match="OTLP_HEADERS is malformed in entry 2; it may") as refused:
        read({"HEADERS": value})

    assert "cret" not in str(refused.value)


def test_a_password_in_an_endpoint_is_refused_without_showing_it() -> None:
    with pytest.raises(
        ValueError, match="credentials go into OTEL_EXPORTER_OTLP_HEADERS"
    ) as refused:
        read({"ENDPOINT": "http://me:hunter2@c"})

    assert "hunter2" not in str(refused.value)


def test_json_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="it may be http/protobuf or grpc"):
        read({"PROTOCOL": "http/json"})


def test_a_timeout_that_looks_like_seconds_is_taken_as_milliseconds_with_a_warning() -> None:
    warnings: list[str] = []

    found = read({"TIMEOUT": "10"}, warnings=warnings)

    assert found.timeout == 0.01
    assert warnings == [
        "OTEL_EXPORTER_OTLP_TIMEOUT is 10, in milliseconds: every export must end within 0.01 s"
    ]


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")

    with pytest.raises(ValueError, match=r"OTLP_CERTIFICATE is .*nonsense.pem.*OpenSSL refuses"):
        read({"CERTIFICATE": str(nonsense)})
    with pytest.raises(ValueError, match=r"CLIENT_CERTIFICATE is .*nonsense.pem.*OpenSSL refuses"):
        read({"CLIENT_CERTIFICATE": str(nonsense)})


def test_a_client_key_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CLIENT_KEY is set.*OTEL_EXPORTER_OTLP_CLIENT_CERT"):
        read({"CLIENT_KEY": str(tmp_path)})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a key with openssl")
def test_an_encrypted_key_is_refused_and_asks_for_no_password(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey rsa:2048 -passout pass:secret -subj /CN=client "
            f"-keyout {shlex.quote(str(key))} -out {shlex.quote(str(certificate))}"
        ),
        check=True,
        capture_output=True,
    )

    with pytest.raises(ValueError, match=r"CLIENT_KEY is .*the key is encrypted"):
        read({"CLIENT_CERTIFICATE": str(certificate), "CLIENT_KEY": str(key)})


@pytest.mark.parametrize(
    ("value", "taken"),
    [("", True), ("otlp", True), ("prometheus, otlp", True), ("none", False), ("console", False)],
)
def test_a_signal_that_another_exporter_has_is_left_alone(value: str, *, taken: bool) -> None:
    assert takes_signal("metrics", {"OTEL_METRICS_EXPORTER": value}) is taken
    assert takes_signal("traces", {"OTEL_METRICS_EXPORTER": value})
