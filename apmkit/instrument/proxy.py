"""A stand-in that behaves as the object it wraps, for clients that cannot be changed in place."""

# ruff: noqa: ANN401 - what a client takes and returns passes through

from __future__ import annotations

import copy
from typing import Any


class Proxy:
    """Passes every attribute to `__wrapped__`, and says that it is of its class.

    `isinstance(proxy, type_of_wrapped)` holds; functions written in C that ask for the very type
    need `proxy.__wrapped__`.
    """

    __slots__ = ("__weakref__", "__wrapped__")

    __wrapped__: Any

    def __init__(self, wrapped: object) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)

    @property  # type: ignore[misc]  # a read-only property in place of object's
    def __class__(self) -> type:
        """The class of the wrapped object."""
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        """Return what the proxy does not have itself."""
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set the attribute of the wrapped object."""
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete the attribute of the wrapped object."""
        delattr(self.__wrapped__, name)

    def __dir__(self) -> list[str]:
        """Return the names of the wrapped object."""
        return dir(self.__wrapped__)

    def __repr__(self) -> str:
        """Return what the wrapped object says of itself."""
        return repr(self.__wrapped__)

    def __eq__(self, other: object) -> bool:
        """Compare the wrapped objects."""
        result: bool = self.__wrapped__ == unwrapped(other)
        return result

    def __hash__(self) -> int:
        """Return the hash of the wrapped object."""
        return hash(self.__wrapped__)

    def __copy__(self) -> Any:
        """Return a copy of the wrapped object, which is not recorded."""
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a deep copy of the wrapped object, which is not recorded."""
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the wrapped object."""
        return self.__wrapped__.__reduce_ex__(protocol)


def is_proxy(client: object) -> bool:
    """Tell whether `client` is a proxy; `isinstance` cannot be asked for its type."""
    return issubclass(type(client), Proxy)


def unwrapped(client: Any) -> Any:
    """Return what a proxy wraps, and anything else as it is."""
    return client.__wrapped__ if is_proxy(client) else client
