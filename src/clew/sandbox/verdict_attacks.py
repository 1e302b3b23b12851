"""Programs that try to be judged right without knowing the answer."""

from __future__ import annotations

from clew.sandbox.attack import Attack, forgery

_LIAR = """
class Liar(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 7
"""
_VERDICTS = "[b'P1\\n', b'P\\n', b'passed\\n', b'{\"v\": true}\\n', b'C[]\\n', b'F\\n', b'P1']"
_EVERYWHERE = f"""
import os
def forge():
    for fd in range(64):
        for line in {_VERDICTS}:
            try: os.write(fd, line)
            except OSError: pass
"""

OBJECTS: tuple[Attack, ...] = (
    forgery("an object that equals everything", _LIAR + "def answer(x): return Liar(3)"),
    forgery(
        "an object of no known type that equals everything",
        "class Any:\n    def __eq__(self, other): return True\ndef answer(x): return Any()",
    ),
    forgery(
        "an object that lies about its class",
        "class Any:\n    __class__ = int\n    def __eq__(self, other): return True\n    def __index__(self): return 3\n"
        "    __int__ = __index__\ndef answer(x): return Any()",
    ),
    forgery("a list whose elements equal everything", _LIAR + "def answer(x): return [Liar(3)]",
            tests="assert answer(7) == [@SECRET@]"),
    forgery("a text that contains everything", "class T(str):\n    def __contains__(self, x): return True\n"
            "    def __eq__(self, x): return True\n    __hash__ = str.__hash__\ndef answer(x): return T('a')",
            tests="assert '@SECRET@' in answer(7)"),
    forgery("a dictionary that holds everything", "class D(dict):\n    def __missing__(self, k): return self\n"
            "    def __eq__(self, x): return True\ndef answer(x): return D()", tests="assert answer(7)[0] == @SECRET@"),
    forgery("not a number", "def answer(x): return float('nan')", tests="assert abs(answer(7) - @SECRET@) < 1e-6"),
    forgery("an iterator without end", "import itertools\ndef answer(x): return itertools.count()", lasts=True),
    forgery("a list that holds itself", "def answer(x):\n    a = []\n    a.append(a)\n    return a"),
    forgery("a value that doubles at every level",
            "def answer(x):\n    a = [1]\n    for _ in range(90): a = [a, a]\n    return a"),
    forgery("an object with a pickle that runs",
            "class P:\n    def __reduce__(self): return (exec, ('raise SystemExit(0)',))\ndef answer(x): return P()"),
)  # fmt: skip

EXITS: tuple[Attack, ...] = (
    forgery("exit at once", "import sys\nsys.exit(0)"),
    forgery("exit at once without cleaning up", "import os\nos._exit(0)"),
    forgery("exit inside the call", "import sys\ndef answer(x): sys.exit(0)"),
    forgery("exit inside the call without cleaning up", "import os\ndef answer(x): os._exit(0)"),
    forgery("end itself by a signal", "import os\ndef answer(x): os.kill(os.getpid(), 9); os.abort()"),
    forgery("quit by the names of the shell", "raise SystemExit"),
    forgery("exit and speak while ending", _EVERYWHERE + "import atexit\natexit.register(forge)\nraise SystemExit(0)"),
    forgery("interrupt", "def answer(x): raise KeyboardInterrupt"),
    forgery("end a loop of the tests early", "def answer(x): raise StopIteration",
            tests="for value in map(answer, [7]): assert value == @SECRET@"),
    forgery("end all() of the tests early", "def answer(x): raise StopIteration",
            tests="assert all(map(lambda x: answer(x) == @SECRET@, [7]))"),
    forgery("end a loop with an exception that only has the name",
            "class StopIteration(Exception): pass\ndef answer(x): raise StopIteration('x')",
            tests="for value in map(answer, [7]): assert value == @SECRET@"),
    forgery("end a loop of the tests early, asynchronously", "def answer(x): raise StopAsyncIteration",
            tests="for value in map(answer, [7]): assert value == @SECRET@"),
    forgery("close a generator of the tests", "def answer(x): raise GeneratorExit",
            tests="assert all(answer(x) == @SECRET@ for x in [7])"),
    forgery("an exception that cannot be printed",
            "class E(Exception):\n    def __str__(self): raise SystemExit(0)\ndef answer(x): raise E"),
)  # fmt: skip

CHECKER: tuple[Attack, ...] = (
    forgery("write verdicts to every descriptor", _EVERYWHERE + "forge()\ndef answer(x): forge()"),
    forgery("write verdicts from a thread",
            _EVERYWHERE + "import threading\ndef run():\n    for _ in range(200): forge()\n"
            "threading.Thread(target=run, daemon=True).start()\ndef answer(x):\n    import time; time.sleep(0.2)"),
    forgery("replace the functions that speak",
            _EVERYWHERE + "import sys, json\n"
            "json.dumps = lambda *a, **k: 'P1'\n"
            "for module in list(sys.modules.values()):\n"
            "    for name in ('_write_all', 'encode', 'run_tests', 'check', 'send'):\n"
            "        if hasattr(module, name): setattr(module, name, lambda *a, **k: forge())\n"
            "def answer(x): return 1"),
    forgery("replace built-in functions",
            "import builtins\n"
            "for name in ('len', 'all', 'any', 'abs', 'isinstance', 'type', 'repr', 'sorted', 'round', 'compile'):\n"
            "    setattr(builtins, name, lambda *a, **k: True)\n"
            "builtins.AssertionError = builtins.Exception = type('E', (BaseException,), {})\n"
            "def answer(x): return True"),
    forgery("replace what tests import",
            "import sys, math, unittest, types\n"
            "math.isclose = lambda *a, **k: True\n"
            "unittest.TestCase.assertEqual = lambda *a: None\n"
            "sys.modules['math'] = sys.modules['numpy'] = types.ModuleType('math')\n"
            "sys.modules['math'].isclose = lambda *a, **k: True\n"
            "def answer(x): return 1",
            tests="import math\nassert math.isclose(answer(7), @SECRET@)"),
    forgery("name its own tests", "def check(f): pass\n__name__ = 'tests'\ndef answer(x): return None",
            tests="def check(f): assert f(7) == @SECRET@\ncheck(answer)"),
    forgery("replace the function's module and switch assertions off",
            "import sys\nsys.flags = None\n__debug__ if True else 0\nsys.modules['tests'] = sys.modules['__main__']\n"
            "def answer(x): return 1"),
    forgery("trace everything",
            "import sys\ndef spy(frame, event, argument):\n    frame.f_locals.update(passed=True)\n    return spy\n"
            "sys.settrace(spy)\nsys.setprofile(spy)\ndef answer(x): return 1"),
)  # fmt: skip

_FOUND = "import re\ndef found(text): return [int(n) for n in re.findall('== ([0-9]{15,})', text)]\n"

ANSWERS: tuple[Attack, ...] = (
    forgery("read the answer in the frames",
            _FOUND + "import sys\ndef answer(x):\n    frame = sys._getframe()\n    while frame:\n"
            "        for held in (*frame.f_locals.values(), *frame.f_code.co_consts):\n"
            "            if type(held) is int and held > 2**60: return held\n"
            "            if type(held) in (str, dict, list, bytes) and found(str(held)): return found(str(held))[0]\n"
            "        frame = frame.f_back"),
    forgery("read the answer in all objects",
            _FOUND + "import gc\ndef answer(x):\n    gc.unfreeze()\n    for held in gc.get_objects():\n"
            "        for part in gc.get_referents(held):\n"
            "            if type(part) is int and 2**61 <= part < 2**62: return part\n"
            "            if type(part) in (str, bytes) and found(str(part)): return found(str(part))[0]"),
    forgery("read the answer in its memory",
            "import ctypes, re, sys\ndef answer(x):\n    for base in (id(sys), id(answer), id([])):\n"
            "        data = ctypes.string_at(base & ~0xffff, 0x10000)\n"
            "        found = re.search(rb'== ([0-9]{15,})', data)\n"
            "        if found: return int(found[1])"),
    forgery("ask for the answer",
            "import os\ndef answer(x):\n    for fd in range(64):\n"
            "        try:\n            os.set_blocking(fd, False)\n            print(os.read(fd, 9999))\n"
            "        except OSError: pass"),
    forgery("read the answer in files",
            _FOUND + "import os\ndef answer(x):\n    for top, _, files in os.walk('/tmp'):\n"
            "        for name in files:\n            for n in found(open(top + '/' + name).read()): return n"),
)  # fmt: skip

_SAY = """
import os
def say(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
"""

CHANNEL: tuple[Attack, ...] = (
    forgery("a deep answer", _SAY + "def answer(x): say(b'[' * 60000 + b'\\n')"),
    forgery("an answer deep enough to be read",
            _SAY + "def answer(x): say(b'{\"v\":' + b'[' * 900 + b']' * 900 + b'}\\n')"),
    forgery("an answer without an end", _SAY + "def answer(x):\n    while True: say(b'x' * 65536)"),
    forgery("a huge number", "def answer(x): return 1 << 3_000_000", tests="assert str(answer(7)) == '@SECRET@'"),
    forgery("a number of a million digits",
            _SAY + "def answer(x): say(b'{\"v\": ' + b'9' * 400000 + b'}\\n')"),
    forgery("an answer of unknown form",
            _SAY + "def answer(x): say(b'{\"v\": {\"x\": {\"i\": \"__import__\"}}}\\n')"),
    forgery("an answer with two keys", _SAY + "def answer(x): say(b'{\"v\": 1, \"e\": [\"StopIteration\", \"\"]}\\n')"),
    forgery("two answers in one", _SAY + "def answer(x): say(b'{\"v\": 1}\\nP1\\n{\"v\": 2}\\n')"),
    forgery("an exception of a kind that is none", _SAY + "def answer(x): say(b'{\"e\": [\"exit\", \"0\"]}\\n')"),
    forgery("bytes that are no text", _SAY + "def answer(x): say(b'\\xff\\xfe\\x00\\n')"),
    forgery("hang inside the call", "import time\ndef answer(x): time.sleep(600)", lasts=True),
    forgery("stop reading", "import os, time\nos.closerange(0, 64)\ntime.sleep(600)", lasts=True),
)  # fmt: skip
