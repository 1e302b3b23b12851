"""What can go wrong with the sandbox itself, as against the program in it."""

from __future__ import annotations

from clew.core.errors import ClewError


class SandboxUnavailable(ClewError, OSError):
    """Untrusted programs cannot be isolated on this machine."""


class SandboxBroken(Exception):
    """A sandbox ended or did not answer. It says nothing about the program: the check is unscored."""
