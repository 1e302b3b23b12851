"""Every attack that the sandbox must withstand; `clew.sandbox.siege` runs them."""

from __future__ import annotations

from clew.sandbox import machine_attacks, resource_attacks, verdict_attacks
from clew.sandbox.attack import Attack

ATTACKS: tuple[Attack, ...] = (
    *machine_attacks.NETWORK,
    *machine_attacks.READING,
    *machine_attacks.WRITING,
    *machine_attacks.KERNEL,
    *machine_attacks.PROCESSES,
    *resource_attacks.TIME,
    *resource_attacks.PROCESSES,
    *resource_attacks.MEMORY,
    *resource_attacks.FILES,
    *resource_attacks.OUTPUT,
    *resource_attacks.SOURCES,
    *verdict_attacks.OBJECTS,
    *verdict_attacks.EXITS,
    *verdict_attacks.CHECKER,
    *verdict_attacks.ANSWERS,
    *verdict_attacks.CHANNEL,
)
