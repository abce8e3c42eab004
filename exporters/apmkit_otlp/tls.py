"""The certificates of an OTLP connection, checked when the agent starts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

Variable = tuple[str, str]
"""The name of an environment variable and its value, empty if it is not set."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files; None where the system's trust, or no client certificate, is used."""

    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that checks the server's certificate and host name."""
        context = ssl.create_default_context(cafile=self.certificate)
        if self.client_certificate is not None:
            # Without a password function OpenSSL would ask on the terminal for one.
            context.load_cert_chain(self.client_certificate, self.client_key, password=_no_password)
        return context

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return what the files hold: trusted certificates, client key, client certificate."""
        # gRPC takes a key and a certificate apart, even where one file holds both.
        key = self.client_key or self.client_certificate
        return _read(self.certificate), _read(key), _read(self.client_certificate)


def read_tls(certificate: Variable, client_certificate: Variable, client_key: Variable) -> Tls:
    """Return the files that the variables name, proven to be what they should be.

    Raises:
        ValueError: if a file cannot be read or holds no certificate or key.
    """
    if client_key[1] and not client_certificate[1]:
        raise ValueError(
            f"{client_key[0]} is set; it may be set only with its certificate "
            f"({client_certificate[0]})"
        )
    trusted = Tls(certificate=_path(certificate))
    _prove(trusted, certificate)
    whole = Tls(trusted.certificate, _path(client_certificate), _path(client_key))
    _prove(whole, client_key if client_key[1] else client_certificate)
    return whole


def _path(variable: Variable) -> Path | None:
    name, value = variable
    if not value:
        return None
    path = Path(value)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(
            f"{name} is {value!r}, which cannot be read ({error.strerror}); "
            "it may be the path of a PEM file"
        ) from None


def _prove(tls: Tls, variable: Variable) -> None:
    name, value = variable
    if not value:
        return
    try:
        tls.context()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ValueError(
            f"{name} is {value!r}, which OpenSSL refuses ({reason}); "
            "it may be the path of a PEM file"
        ) from None


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _no_password() -> str:
    raise ValueError("the key is encrypted")
