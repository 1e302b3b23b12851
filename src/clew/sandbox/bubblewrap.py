"""The walls: a process with nothing but a Python interpreter, made by bubblewrap.

No network, no host name, no other processes, no home, no /etc, no /proc, no environment; a read-only system of which
installed Python packages are hidden (a data set of tests may be among them); an empty /tmp.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import clew
from clew.sandbox.errors import SandboxUnavailable
from clew.sandbox.inside.confine import NOBODY

INSTALL = "install bubblewrap (`apt-get install bubblewrap`, `dnf install bubblewrap`, `apk add bubblewrap`, ...)"
DANGEROUS = "dangerously_without_isolation"
_HOME = "/opt/clew"
"""Where the files of clew that a sandbox needs are seen in it."""
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_PACKAGES = tuple(f"{way}{name}-packages" for way in ("", "*/", "*/*/", "*/*/*/") for name in ("site", "dist"))
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_WARDEN = "from clew.sandbox.inside.warden import main; import sys; main(sys.argv[1:])"
# Capabilities inside the sandbox's own user namespace: to make new worlds, to become nobody, to end what runs.
_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL")
MACHINES = ("x86_64", "aarch64")


def find_bubblewrap() -> str:
    """Path of `bwrap`; raises `SandboxUnavailable` where untrusted programs cannot be isolated."""
    advice = f"{INSTALL}, or, where everything may be lost, set {DANGEROUS}"
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        given = f"this machine is {sys.platform} on {platform.machine()}"
        raise SandboxUnavailable(given, f"Linux on {' or '.join(MACHINES)}", f"run it there, or set {DANGEROUS}")
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable("the program bwrap is not on the PATH", "bubblewrap 0.5 or newer", advice)
    return found


def interpreter() -> Path:
    """The Python that runs inside: that of this process, without its virtual environment."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (getattr(sys, "_base_executable", ""), Path(sys.base_prefix, "bin", name), sys.executable):
        if path and Path(path).is_file():
            return Path(path).resolve()
    accepted = "the interpreter that this process runs in"
    raise SandboxUnavailable("Python was not found on the disk", accepted, "run clew with an installed Python")


def start_isolated(warden: Sequence[str], descriptor: int) -> subprocess.Popen[bytes]:
    """Start the warden behind walls with one descriptor beside its standard ones; the caller waits for it.

    As root a user namespace with two users is made: one that builds worlds, and nobody, whom programs run as. (To the
    kernel, root outside is root inside, whom no limit on processes binds.) Otherwise programs run as the present
    user without any capability.
    """
    bwrap, root, walls = find_bubblewrap(), os.geteuid() == 0, _walls()
    info_read, info_write = os.pipe()
    block_read, block_write = os.pipe()
    extra = ["--info-fd", str(info_write), "--userns-block-fd", str(block_read)] if root else []
    user = "0" if root else str(NOBODY)
    command = [bwrap, *walls, "--uid", user, "--gid", user, *extra, *warden]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(descriptor, info_write, block_read) if root else (descriptor,),
            env={},
            cwd="/",
        )
    finally:
        os.close(info_write)
        os.close(block_read)
    with os.fdopen(info_read, "rb") as info:
        if root:
            _map_users(info.read())
    os.close(block_write)
    return process


def warden_command(descriptor: int, layers: Sequence[str]) -> list[str]:
    """How the warden is started: without site packages, user packages and the current directory."""
    return [str(interpreter()), "-S", "-s", "-P", "-c", _WARDEN, str(descriptor), *layers]


def start_dangerously(warden: Sequence[str], descriptor: int, directory: str) -> subprocess.Popen[bytes]:
    """Start the warden without any walls."""
    return subprocess.Popen(
        warden,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(descriptor,),
        env={"PYTHONPATH": str(_package().parent), "PYTHONHASHSEED": "0"},
        cwd=directory,
    )


def _walls() -> list[str]:
    arguments = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    arguments += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox"]
    arguments += ["--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        arguments += ["--cap-add", capability]
    arguments += ["--clearenv", "--setenv", "PYTHONPATH", _HOME, "--setenv", "PYTHONHASHSEED", "0"]
    arguments += ["--setenv", "PYTHONDONTWRITEBYTECODE", "1"]
    arguments += _ways_to([Path("/etc/x"), Path(_HOME, "clew", "sandbox", "inside")])
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", *_system()]
    package = _package()
    for part in ("__init__.py", "sandbox/__init__.py", "sandbox/inside"):
        arguments += ["--ro-bind", str(package / part), f"{_HOME}/clew/{part}"]
    arguments += ["--size", "65536", "--tmpfs", "/dev"]
    for device in _DEVICES:
        arguments += ["--dev-bind", device, device]
    # What is mounted over it by each keeper is what programs write to.
    arguments += ["--size", "65536", "--tmpfs", "/tmp"]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]


def _system() -> list[str]:
    """Shared libraries, the interpreter and its standard library at their own paths, packages beside it hidden."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    links = [path for path in _LIBRARIES if os.path.islink(path)]
    trees = {Path(path) for path in _LIBRARIES if os.path.isdir(path) and path not in links}
    # Where libraries of this machine have a directory of their own, other programs in /usr/lib stay outside.
    trees = {tree / multiarch if (tree / multiarch).is_dir() else tree for tree in trees}
    executable, base = interpreter(), Path(sys.base_prefix).resolve()
    trees |= {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    trees |= {base / "lib"} if base != Path("/usr") else set()
    arguments = _ways_to([*trees, *map(Path, links), executable])
    for tree in sorted(trees):  # A tree before what lies in it.
        arguments += ["--ro-bind", str(tree), str(tree)]
    for tree in sorted(trees):
        for packages in sorted(packages for pattern in _PACKAGES for packages in tree.glob(pattern)):
            arguments += ["--size", "4096", "--tmpfs", str(packages), "--remount-ro", str(packages)]
    for link in links:
        arguments += ["--symlink", os.readlink(link), link]
    return [*arguments, "--ro-bind", str(executable), str(executable)]


def _ways_to(paths: Sequence[Path]) -> list[str]:
    """The directories above `paths`, passable for nobody, whatever they are outside."""
    arguments: list[str] = []
    for parent in sorted({parent for path in paths for parent in path.parents if parent != Path("/")}):
        arguments += ["--perms", "0755", "--dir", str(parent)]
    return arguments


def _package() -> Path:
    (path,) = clew.__path__
    return Path(path).resolve()


def _map_users(info: bytes) -> None:
    """Tell the kernel who root and nobody of the sandbox are outside: themselves."""
    with suppress(ValueError, KeyError, OSError):  # If bwrap failed, its own words say more.
        told: dict[str, Any] = json.loads(info)
        for what in ("uid_map", "gid_map"):
            Path(f"/proc/{told['child-pid']}/{what}").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n", encoding="ascii")
