"""Settings every test shares."""

from __future__ import annotations

import os

# Before torch is imported: two test processes on two cores must not fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

settings.register_profile("clew", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("clew")
