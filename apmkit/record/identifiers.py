"""Random trace and span identifiers from a generator of our own.

The application may seed or share the module-level generator of `random`; ours is private, seeded
from the operating system, and seeded again in every forked child so that no identifier repeats.
"""

from __future__ import annotations

import os
import random

_generator = random.Random()  # noqa: S311 - identifiers must be unlikely to repeat, not secret

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_generator.seed)

random_bits = _generator.getrandbits
"""`random_bits(128)` is a trace identifier, `random_bits(64)` a span identifier."""
