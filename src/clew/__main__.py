"""`python -m clew`: the same as the command `clew`."""

from __future__ import annotations

import sys

from clew.cli import main

sys.exit(main())
