"""`python -m apmkit` is the command `apmkit`."""

from __future__ import annotations

import sys

from apmkit.cli import main

sys.exit(main())
