"""apmkit: an in-process agent for Python ASGI services."""

from apmkit.agent import Agent, Middleware, instrument
from apmkit.config import SettingsError

__all__ = ["Agent", "Middleware", "SettingsError", "instrument"]
