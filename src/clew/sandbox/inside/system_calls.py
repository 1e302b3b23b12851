"""A filter of system calls: what a Python program needs is allowed, everything else fails with "not permitted".

Numbers are those of the kernel's tables (`asm/unistd_64.h`, `asm-generic/unistd.h`). Programs for other machines
than x86-64 and arm64 are not run at all.
"""

from __future__ import annotations

import errno
import platform
import struct
from functools import cache
from typing import NamedTuple

from clew.sandbox.inside.libc import check, libc, void_pointer

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 0, 4, 16, 24
_X32 = 0x40000000
"""Numbers from here on are calls of a second table of x86-64, which nothing needs."""
_CLONE_THREAD = 0x00010000
_NAMESPACES = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000 | 0x80
"""CLONE_NEW* of cgroup, uts, ipc, user, pid, net, mount and time."""
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Is it a terminal, its size, bytes waiting, (non-)blocking, close on exec: not TIOCSTI, which types for others."""


_CALLS = """
read 0 63; write 1 64; open 2 -; close 3 57; stat 4 -; fstat 5 80; lstat 6 -; poll 7 -; lseek 8 62; mmap 9 222;
mprotect 10 226; munmap 11 215; brk 12 214; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139;
pread64 17 67; pwrite64 18 68; readv 19 65; writev 20 66; access 21 -; pipe 22 -; select 23 -;
sched_yield 24 124; mremap 25 216; msync 26 227; mincore 27 232; madvise 28 233; dup 32 23; dup2 33 -;
pause 34 -; nanosleep 35 101; getitimer 36 102; alarm 37 -; setitimer 38 103; getpid 39 172; sendfile 40 71;
sendto 44 206; recvfrom 45 207; sendmsg 46 211; recvmsg 47 212; shutdown 48 210; getsockname 51 204;
socketpair 53 199; setsockopt 54 208; getsockopt 55 209; exit 60 93; wait4 61 260; kill 62 129; uname 63 160;
fcntl 72 25; flock 73 32; fsync 74 82; fdatasync 75 83; truncate 76 45; ftruncate 77 46; getcwd 79 17;
chdir 80 49; fchdir 81 50; rename 82 -; mkdir 83 -; rmdir 84 -; creat 85 -; link 86 -; unlink 87 -;
symlink 88 -; readlink 89 -; chmod 90 -; fchmod 91 52; umask 95 166; gettimeofday 96 169; getrlimit 97 163;
getrusage 98 165; sysinfo 99 179; times 100 153; getuid 102 174; getgid 104 176; geteuid 107 175;
getegid 108 177; getppid 110 173; getpgrp 111 -; getgroups 115 158; getresuid 118 148; getresgid 120 150;
getpgid 121 155; getsid 124 156; rt_sigpending 127 136; rt_sigtimedwait 128 137; rt_sigsuspend 130 133;
sigaltstack 131 132; utime 132 -; statfs 137 43; fstatfs 138 44; getpriority 140 141; arch_prctl 158 -;
gettid 186 178; tkill 200 130; futex 202 98; sched_getaffinity 204 123; epoll_create 213 -; getdents64 217 61;
set_tid_address 218 96; restart_syscall 219 128; fadvise64 221 223; clock_gettime 228 113; clock_getres 229 114;
clock_nanosleep 230 115; exit_group 231 94; epoll_wait 232 -; epoll_ctl 233 21; tgkill 234 131; utimes 235 -;
waitid 247 95; openat 257 56; mkdirat 258 34; newfstatat 262 79; unlinkat 263 35; renameat 264 38;
linkat 265 37; symlinkat 266 36; readlinkat 267 78; fchmodat 268 53; faccessat 269 48; pselect6 270 72;
ppoll 271 73; set_robust_list 273 99; get_robust_list 274 100; utimensat 280 88; epoll_pwait 281 22;
fallocate 285 47; eventfd2 290 19; epoll_create1 291 20; dup3 292 24; pipe2 293 59; preadv 295 69;
pwritev 296 70; prlimit64 302 261; getcpu 309 168; renameat2 316 276; getrandom 318 278; membarrier 324 283;
copy_file_range 326 285; statx 332 291; rseq 334 293; close_range 436 436; faccessat2 439 439
"""
"""What is allowed: name, number on x86-64, number on arm64 (- where it has none)."""
_CLONE3 = 435


class _Machine(NamedTuple):
    column: int
    """Of `_CALLS`."""
    audit: int
    """Name of the architecture in the filter's data."""
    clone: int
    ioctl: int
    new_processes: tuple[int, ...]
    """fork, vfork, execve, execveat: allowed where a program may have several processes."""


_MACHINES = {
    "x86_64": _Machine(1, 0xC000003E, 56, 16, (57, 58, 59, 322)),
    "aarch64": _Machine(2, 0xC00000B7, 220, 29, (221, 281)),
}


def allowed_calls(machine: str) -> tuple[int, ...]:
    """Numbers of the calls that are allowed whatever their arguments."""
    column = _MACHINES[machine].column
    numbers = (entry.split()[column] for entry in _CALLS.split(";"))
    return tuple(int(number) for number in numbers if number != "-")


@cache
def filter_program(machine: str, several_processes: bool) -> bytes:
    """The filter as instructions of classic BPF, 8 bytes each; raises `KeyError` for a machine without a table."""
    numbers = _MACHINES[machine]
    allowed = allowed_calls(machine) + (numbers.new_processes if several_processes else ())
    not_permitted, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, numbers.audit), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER_AT), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, unknown)]
    # The C library then falls back to clone, whose flags a filter can read.
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, unknown)]
    for number in allowed:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    ioctls = [instruction for i in _IOCTLS for instruction in ((_EQUAL, 0, 1, i), (_RETURN, 0, 0, _ALLOW))]
    ioctls = [(_LOAD, 0, 0, _SECOND_ARGUMENT_AT), *ioctls, (_RETURN, 0, 0, _ERRNO | errno.ENOTTY)]
    code += [(_EQUAL, 0, len(ioctls), numbers.ioctl), *ioctls]
    code += [(_EQUAL, 1, 0, numbers.clone), (_RETURN, 0, 0, not_permitted)]
    code += [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_AND, 0, 0, _NAMESPACES), (_EQUAL, 1, 0, 0)]
    code += [(_RETURN, 0, 0, not_permitted)]
    if not several_processes:
        code += [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_AND, 0, 0, _CLONE_THREAD), (_EQUAL, 0, 1, 0)]
        code += [(_RETURN, 0, 0, not_permitted)]
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def filter_system_calls(several_processes: bool) -> None:
    """Filter the calls of this process, its threads and its children, for good; raises `OSError` if that fails."""
    program = filter_program(platform.machine(), several_processes=several_processes)
    pointer, keep = void_pointer(program)
    described, keep_too = void_pointer(struct.pack("@HP", len(program) // 8, pointer.value or 0))
    check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described.value or 0, 0, 0))
    del keep, keep_too
