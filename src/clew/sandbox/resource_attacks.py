"""Programs that try to use up time, memory, processes, files and output, and sources that try the parser."""

from __future__ import annotations

from clew.sandbox.attack import Attack, script

BOUNDED = "the check lasts longer than its limit, or memory grows beyond it"

TIME: tuple[Attack, ...] = (
    script("sleep", BOUNDED, "time.sleep(600)", lasts=True),
    script("loop for ever", BOUNDED, "while True: pass", lasts=True),
    script("loop for ever inside the interpreter", BOUNDED, "sum(iter(int, 1))", lasts=True),
    script("compute a huge power", BOUNDED, "print(9 ** 9 ** 9)", lasts=True),
    script(
        "ignore every signal",
        BOUNDED,
        "import signal\n"
        "for number in range(1, 65):\n    tries(signal.signal, number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "while True: tries(time.sleep, 9)",
        lasts=True,
    ),
    script("stop itself", BOUNDED, "import signal\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(600)", lasts=True),
    script("hang after closing its streams", BOUNDED, "os.closerange(0, 64)\ntime.sleep(600)", lasts=True),
    script(
        "hang while it ends",
        BOUNDED,
        "import atexit, threading\n"
        "atexit.register(time.sleep, 600)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()",
        lasts=True,
    ),
)

PROCESSES: tuple[Attack, ...] = (
    script(
        "fork bomb",
        "more processes than the limit are made",
        "made = 0\n"
        "for _ in range(5000):\n"
        "    try:\n"
        "        if os.fork() == 0:\n            time.sleep(600)\n"
        "        made += 1\n"
        "    except OSError:\n        break\n"
        "if made > 40: escaped(made)",
    ),
    script(
        "fork bomb that grows",
        BOUNDED,
        "import signal\nstop = time.monotonic() + 600\nwhile time.monotonic() < stop:\n    tries(os.fork)",
        lasts=True,
    ),
    script(
        "thread bomb",
        "more threads than the limit are made",
        "import threading\n"
        "threading.stack_size(65536)\n"
        "made = 0\n"
        "for _ in range(5000):\n"
        "    try:\n        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "    except RuntimeError:\n        break\n"
        "    made += 1\n"
        "if made > 40: escaped(made)\n"
        "os._exit(0)",
    ),
)

MEMORY: tuple[Attack, ...] = (
    script("memory bomb", BOUNDED, "held = []\nwhile True: held.append(bytearray(b'x') * 10**7)"),
    script(
        "memory bomb of many processes",
        BOUNDED,
        "for _ in range(40): tries(os.fork)\n"
        "held = []\n"
        "try:\n    while True: held.append(bytearray(b'x') * 10**7)\n"
        "except MemoryError:\n    time.sleep(600)",
        lasts=True,
    ),
    script(
        "memory that no limit of address space counts",
        "more than a few files of memory, or segments of shared memory, are filled",
        "made = 0\n"
        "for i in range(200):\n"
        "    fd = tries(os.memfd_create, 'x')\n"
        "    if fd is None: break\n"
        "    made += tries(os.write, fd, b'x' * 10**6) or 0\n"
        "for i in range(200):\n"
        "    segment = libc.shmget(i + 1, 10**6, 0o1666)\n"
        "    if segment < 0: break\n"
        "    libc.shmat.restype = ctypes.c_void_p\n"
        "    at = libc.shmat(segment, None, 0)\n"
        "    ctypes.memset(at, 1, 10**6)\n"
        "    libc.shmdt(ctypes.c_void_p(at))\n"
        "    made += 10**6\n"
        "if made > 5 * 10**8: escaped(made)",
    ),
    script(
        "memory in pipes",
        BOUNDED,
        "import fcntl\n"
        "pipes = []\n"
        "while True:\n"
        "    pair = tries(os.pipe)\n"
        "    if pair is None: break\n"
        "    os.set_blocking(pair[1], False)\n"
        "    tries(fcntl.fcntl, pair[1], 1031, 2**20)\n"
        "    tries(os.write, pair[1], b'x' * 2**20)\n"
        "    pipes.append(pair)\n"
        "if len(pipes) > 64: escaped(len(pipes))",
    ),
    script(
        "recurse without end",
        BOUNDED,
        "sys.setrecursionlimit(10**9)\ndef f(x): return f((x, x)) + 1\nf(1)",
        lasts=True,
    ),
    script(
        "recurse without end inside the interpreter",
        BOUNDED,
        "sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
    ),
)

FILES: tuple[Attack, ...] = (
    script(
        "fill the disk",
        "more is written than the limit",
        "written = 0\n"
        "try:\n"
        "    for i in range(200):\n"
        "        with open(f'/tmp/{i}', 'wb', 0) as file: written += file.write(b'x' * 10**6)\n"
        "except OSError:\n    pass\n"
        "if written > 20 * 10**6: escaped(written)",
    ),
    script(
        "one huge file",
        "more is written than the limit",
        "file = open('/tmp/huge', 'wb', 0)\n"
        "for _ in range(200): tries(file.write, b'x' * 10**6)\n"
        "if os.path.getsize('/tmp/huge') > 20 * 10**6: escaped('huge')",
    ),
    script(
        "many empty files",
        "more are made than the limit",
        "made = 0\n"
        "try:\n    for made in range(20000): os.mkdir(f'/tmp/{made}')\n"
        "except OSError:\n    pass\n"
        "if made > 5000: escaped(made)",
    ),
    script(
        "hide space in deleted files",
        "more is written than the limit",
        "held, written = [], 0\n"
        "try:\n"
        "    for i in range(50):\n"
        "        file = open('/tmp/hidden', 'wb', 0)\n"
        "        held.append(file)\n"
        "        os.unlink('/tmp/hidden')\n"
        "        written += file.write(b'x' * 10**6)\n"
        "except OSError:\n    pass\n"
        "if written > 20 * 10**6: escaped(written)",
    ),
)

OUTPUT: tuple[Attack, ...] = (
    script(
        "keep its output open in a message to nobody",
        BOUNDED,
        "a, b = socket.socketpair()\n"
        "socket.send_fds(a, [b'x'], [1, 2, a.fileno(), b.fileno()])\n"
        "socket.send_fds(b, [b'x'], [1, 2, a.fileno(), b.fileno()])\n"
        "os.closerange(0, 64)\nos._exit(0)",
    ),
    script("flood standard output", BOUNDED, "while True: os.write(1, b'x' * 65536)"),
    script("flood standard error", BOUNDED, "while True: os.write(2, b'x\\n' * 32768)"),
    script("write control characters as its last words", BOUNDED, "sys.exit('\\x1b]0;owned\\x07\\x1b[2J' * 99)"),
)

SOURCES: tuple[Attack, ...] = (
    Attack(name="source nested a hundred thousand deep", program="(" * 100_000 + ")" * 100_000, success=BOUNDED),
    Attack(name="source of a hundred thousand operators", program="x = " + "-" * 100_000 + "1", success=BOUNDED),
    Attack(name="source of long additions", program="x = " + "+".join(["1"] * 60_000), success=BOUNDED),
    Attack(name="source that is no UTF-8", program="x = '\ud800\udfff'\nprint(x)", success=BOUNDED),
    Attack(name="source with zero bytes", program="print(1)\0\nprint(2)", success=BOUNDED),
    Attack(name="source of 10 MB", program="x = 1\n" * 1_700_000, success=BOUNDED),
    Attack(name="source in a hostile encoding", program="# coding: utf-7\n+AGEAYgBj-", success=BOUNDED),
)
