"""The filter of system calls, run by an interpreter of its own language that is written here from its manual."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from clew.sandbox.inside.system_calls import _CALLS, allowed_calls, filter_program

ALLOW, KILL = "allow", "kill"
X86, ARM = 0xC000003E, 0xC00000B7
HEADERS = {
    1: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    2: Path("/usr/include/asm-generic/unistd.h"),
}


def decide(program: bytes, number: int, first: int = 0, second: int = 0, audit: int = X86) -> str | int:
    """What the kernel would do with a call: allow, kill, or fail with an error number."""
    data = struct.pack("<IIQQQ", number, audit, 0, first, second) + bytes(32)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, register = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        if operation == 0x20:
            (register,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            register &= k
        elif operation == 0x15:
            at += yes if register == k else no
        elif operation == 0x35:
            at += yes if register >= k else no
        elif operation == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(k, k & 0xFFFF)
        else:
            raise AssertionError(f"unknown operation {operation:#x}")


@pytest.fixture(scope="module", params=[False, True], ids=["one process", "several"])
def several(request) -> bool:
    return request.param


def test_what_python_needs_is_allowed_and_the_rest_is_not(several):
    program = filter_program("x86_64", several)
    allowed = set(allowed_calls("x86_64"))
    processes = {57, 58, 59, 322}
    special = {16, 56, 435}
    for number in set(range(0, 470)) - special:
        expected = ALLOW if number in allowed or (several and number in processes) else errno.EPERM
        assert decide(program, number) == expected, number
    # ptrace, mount, unshare, bpf, io_uring_setup, keyctl, socket, memfd_create, shmget, process_vm_readv, setns
    assert not allowed & {101, 165, 272, 321, 425, 250, 41, 319, 29, 310, 308}


def test_threads_but_no_processes(several):
    program = filter_program("x86_64", several)
    thread, fork = 0x3D0F00, 0x1200011
    assert decide(program, 56, thread) == ALLOW
    assert decide(program, 56, fork) == (ALLOW if several else errno.EPERM)
    for namespace in (0x10000000, 0x20000000, 0x20000, 0x40000000, 0x02000000, 0x80):
        assert decide(program, 56, thread | namespace) == errno.EPERM
        assert decide(program, 56, fork | namespace) == errno.EPERM
    assert decide(program, 435) == errno.ENOSYS


def test_other_tables_of_calls_are_closed(several):
    program = filter_program("x86_64", several)
    assert decide(program, 0, audit=0x40000003) == KILL  # 32-bit calls
    assert decide(program, 0x40000000) == errno.ENOSYS
    assert decide(program, 0xFFFFFFFF) == errno.ENOSYS
    assert decide(program, 0, audit=ARM) == KILL


def test_only_harmless_requests_of_devices(several):
    program = filter_program("x86_64", several)
    assert decide(program, 16, second=0x5401) == ALLOW
    for request in (0x5412, 0x541C, 0x5423, 0):
        assert decide(program, 16, second=request) == errno.ENOTTY


@pytest.mark.parametrize("column", HEADERS)
def test_numbers_are_those_of_the_kernel(column):
    if not HEADERS[column].is_file():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[column].read_text()
    pattern = r"#define __NR_(\w+)\s+(\d+)" if column == 1 else r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
    known = {name: int(number) for name, number in re.findall(pattern, text)}
    for entry in _CALLS.split(";"):
        name, number = entry.split()[0], entry.split()[column]
        if number != "-":
            assert known["fstatat" if column == 2 and name == "newfstatat" else name] == int(number), name


def test_a_machine_without_a_table_has_no_filter():
    with pytest.raises(KeyError):
        filter_program("riscv64", False)
