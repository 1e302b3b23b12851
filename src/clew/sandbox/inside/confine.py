"""How the process of a program gives up everything it does not need, before the program's first line."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Mapping

from clew.sandbox.inside.libc import check, libc, void_pointer

NOBODY = 65534
_NEW_MOUNTS, _NEW_IPC, _NEW_PIDS = 0x00020000, 0x08000000, 0x20000000
_NOSUID_NODEV = 2 | 4
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_MIB = 2**20


def hide_memory() -> None:
    """No process of the same user may read the memory of this one."""
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def new_world(files_mib: int) -> None:
    """Mounts, System V objects and (for the children) process numbers of its own; an empty /tmp of `files_mib` MiB."""
    check(libc.unshare(_NEW_MOUNTS | _NEW_IPC | _NEW_PIDS))
    options = f"size={files_mib}m,nr_inodes=4096,mode=1777".encode()
    check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID_NODEV, options))


def become_nobody(switch_user: bool) -> None:
    """Drop all capabilities and groups for good; with `switch_user` become a user that owns nothing."""
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # The kernel knows no more of them.
    check(libc.prctl(_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    if switch_user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, keep = void_pointer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    nothing, keep_too = void_pointer(bytes(24))
    check(libc.capset(header, nothing))
    del keep, keep_too
    no_new_privileges()


def no_new_privileges() -> None:
    """No program that is started from here may have more rights than this process."""
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def set_limits(limits: Mapping[str, int], others: int) -> None:
    """Hard limits of the kernel, from the fields of `clew.sandbox.limits.Limits`.

    `others` are the processes of the sandbox itself that belong to the same user and are counted with the program's.
    """
    for what, most in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_mib"] * _MIB),
        (resource.RLIMIT_NPROC, limits["processes"] + limits["threads"] + others),
        (resource.RLIMIT_FSIZE, limits["files_mib"] * _MIB),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
