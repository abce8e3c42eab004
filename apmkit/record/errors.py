"""How an exception is named and told."""

from __future__ import annotations


def qualified_name(kind: type) -> str:
    """Return the name of a class as error.type has it: with the module, unless it is built in."""
    module = kind.__module__
    return kind.__qualname__ if module in {"builtins", None} else f"{module}.{kind.__qualname__}"


def safe_text(error: BaseException) -> str:
    """Return `str(error)`, also for an exception whose `__str__` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever it raises, the application must not see it
        return f"<{type(error).__name__} without text>"
