"""The command `clew`: find the verb, parse its options, call its recipe, turn errors into messages.

A verb is a module of `clew.recipes` that holds a frozen dataclass `CONFIG` (its fields are the options), a string
`EXAMPLES` and a function `main(config) -> int`. Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import io
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clew import __version__
from clew.core.errors import ClewError, InvalidValue, UnknownName, UsageError


class Verb(NamedTuple):
    """What the overview says of a verb, and the recipe that it calls."""

    module: str
    part: str
    says: str


VERBS: dict[str, Verb] = {
    "speedrun": Verb(
        "clew.recipes.speedrun", "the whole loop", "from random weights to a model that reasons, in minutes"
    ),
    "pretrain": Verb("clew.recipes.pretrain", "initialise", "a policy that knows the world of its tasks"),
    "sft": Verb("clew.recipes.sft", "initialise", "fine-tune it on traces that show reasoning behaviours"),
    "verify": Verb("clew.recipes.verify", "reward", "judge one answer: right, wrong or unscored"),
    "reward train": Verb("clew.recipes.reward_train", "reward", "a reward model of any kind, learnt and measured"),
    "reward label": Verb(
        "clew.recipes.reward_label", "reward", "labels of the steps of solutions, for process rewards"
    ),
    "reward inverse": Verb("clew.recipes.inverse_rl", "reward", "a reward learnt from demonstrations alone"),
    "reward eval": Verb("clew.recipes.reward_eval", "reward", "how good a reward model is on held-out problems"),
    "distill": Verb("clew.recipes.distill", "learn", "clone what search, best-of-N or a teacher found"),
    "dpo": Verb("clew.recipes.dpo", "learn", "preferences: of a search's trees, of a file, or of its own samples"),
    "rl": Verb("clew.recipes.rl", "learn", "group-relative policy gradient over verified samples"),
    "data": Verb("clew.recipes.data", "learn", "what a run found, as training data: SFT, DPO, KTO, steps, targets"),
    "loop": Verb("clew.recipes.loop", "learn", "search, learn from it, search again; or clone first, then reinforce"),
    "eval": Verb("clew.recipes.evaluate", "search and measure", "pass@k, votes and search on held-out problems"),
    "search": Verb("clew.recipes.search", "search and measure", "any strategy and guide, within a budget"),
    "solve": Verb("clew.recipes.solve", "search and measure", "pose one problem and watch the model think"),
    "tree": Verb("clew.recipes.tree", "look", "open the trees of a search as a page"),
    "report": Verb("clew.recipes.report", "look", "write the HTML report of a run again"),
    "doctor": Verb("clew.recipes.doctor", "look", "check that this machine can run clew"),
    "compare": Verb("clew.recipes.compare", "search and measure", "strategies against each other: accuracy for tokens"),
    "plan": Verb("clew.recipes.plan", "search and measure", "which strategy for which difficulty and budget"),
    "bench": Verb("clew.recipes.bench", "look", "measure speed, search trees and reward models"),
}
_OVERVIEW_EXAMPLES = (
    ("clew speedrun --out runs/first", "the whole loop on two cores, no download"),
    ("clew solve --checkpoint runs/first", "think about a problem of your own"),
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_DISK = re.compile(r"no space left|disk is full|os error 28", re.IGNORECASE)
_OPTION = re.compile(r"^\W*(?:-\w, )?(--[a-z0-9][\w.-]*)", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `clew` with `argv` (None: the process's own) and return its exit status: 0 done, 1 failed, 2 wrong use."""
    arguments = _with_whole_verb(list(sys.argv[1:] if argv is None else argv))
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_went_away()
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except ClewError as error:
        return _complain(error)
    except Exception as error:
        # A full disk shows as OSError, sqlite3, safetensors or torch errors; the rest are bugs and keep theirs.
        friendly = _friendly(error)
        if friendly is None:
            raise
        return _complain(friendly)
    return status


def overview() -> str:
    """What `clew --help` prints: the verbs by the part of the recipe they serve, and two examples."""
    lines = [
        f"clew {__version__}: initialise, reward, search, learn, search again; and measure how it scales.",
        "",
        _bold("usage") + ": clew VERB [OPTIONS]      clew VERB --help      clew --version",
    ]
    for part in dict.fromkeys(verb.part for verb in VERBS.values()):
        lines += ["", _bold(part)]
        lines += [f"  {name:<12} {verb.says}" for name, verb in VERBS.items() if verb.part == part]
    lines += ["", _bold("examples")]
    lines += [f"  {command:<36} {says}" for command, says in _OVERVIEW_EXAMPLES]
    return "\n".join(lines)


def help_of(name: str) -> str:
    """What `clew NAME --help` prints."""
    module = importlib.import_module(VERBS[name].module)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        _tyro(name, module.CONFIG, ["--help"])
    examples = textwrap.indent(textwrap.dedent(module.EXAMPLES).strip(), "  ")
    usage = "\n".join(line.rstrip() for line in shown.getvalue().rstrip().splitlines())
    return f"{usage}\n\n--config FILE.toml reads options from a file.\n\n{_bold('examples')}\n{examples}"


def options_of(name: str) -> list[str]:
    """Every option that `clew NAME` accepts, as it is typed."""
    return list(dict.fromkeys(_OPTION.findall(help_of(name).partition("--config FILE")[0])))


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The configuration that `clew NAME ARGUMENTS` gives. Raises `UsageError`."""
    module = importlib.import_module(VERBS[name].module)
    arguments = _with_file(name, list(arguments))
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config, unknown = _tyro(name, module.CONFIG, arguments)
    except SystemExit:
        # A mistyped option makes a required one missing: say what was mistyped, not what is missing.
        _refuse_unknown(name, arguments)
        raise _usage_error(name, complaint.getvalue()) from None
    if unknown:
        _refuse_unknown(name, unknown)
        accepted = "each option with its values: " + ", ".join(options_of(name))
        raise UsageError(f"clew {name} has no use for {unknown[0]!r}", accepted, f"quote it, or see clew {name} --help")
    return config


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help" | "help"]:
            print(overview())
            return 0
        case ["--version" | "-V"]:
            print(f"clew {__version__}")
            return 0
        case ["help", name] if name in VERBS:
            print(help_of(name))
            return 0
        case [name, *rest] if name in VERBS:
            if "--help" in rest or "-h" in rest:
                print(help_of(name))
                return 0
            config = parse(name, rest)
            return _run(name, config, arguments)
        case ["help", name, *rest] | [name, *rest] if second := _second_words(name):
            if not rest or rest[0] in ("-h", "--help"):
                print("\n".join(f"clew {name} {word:<8} {VERBS[f'{name} {word}'].says}" for word in second))
                return 0
            raise UnknownName(f"word after clew {name}", rest[0], second)
        case [name, *_] if name.startswith("-"):
            raise UnknownName("option of clew", name, ("--help", "--version"))
        case ["help", name, *_] | [name, *_]:
            raise UnknownName("verb", name, VERBS)
    raise AssertionError(arguments)


def _run(name: str, config: Any, arguments: Sequence[str]) -> int:
    """The recipe of verb `name` on `config`; in as many processes as it asks for, or as one of them."""
    recipe: Callable[[Any], int] = importlib.import_module(VERBS[name].module).main
    if not hasattr(config, "ranks"):
        return recipe(config)
    from clew.scale.launch import in_ranks

    return in_ranks(recipe, config, arguments)


def _with_whole_verb(arguments: list[str]) -> list[str]:
    """`arguments` with a verb of two words as one of them: `reward train`."""
    at = int(arguments[:1] == ["help"])
    whole = " ".join(arguments[at : at + 2])
    return [*arguments[:at], whole, *arguments[at + 2 :]] if whole in VERBS else arguments


def _second_words(name: str) -> list[str]:
    """The words that may follow `name` where it alone is no verb."""
    return [second for first, _, second in (verb.partition(" ") for verb in VERBS) if second and first == name]


def _tyro(name: str, config: type, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    import tyro

    pairs = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(config, prog=f"clew {name}", args=arguments, config=pairs, return_unknown_args=True)


def _refuse_unknown(name: str, arguments: Sequence[str]) -> None:
    """Raise for the first of `arguments` that looks like an option and is none."""
    known = options_of(name)
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if re.fullmatch(r"--[a-z][\w.-]*", option, re.IGNORECASE) and option not in known:
            raise UnknownName(f"option of clew {name}", option, known)


def _usage_error(name: str, complaint: str) -> UsageError:
    """tyro's framed complaint as the three parts: its title and first paragraph, then the option's help if shown."""
    paragraphs: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip("│╭╮╰╯─ ")
        if text:
            paragraphs[-1].append(text)
        elif "──" in line:
            paragraphs.append([])
    first, *rest = [p for p in paragraphs if p] or [[f"clew {name} was not understood"]]
    given = f"{first[0]}: {' '.join(first[1:])}" if len(first) > 1 else first[0]
    about = [line for p in rest for line in p if "help" not in line]
    return UsageError(given, " ".join(about) or "the options that its help lists", f"see clew {name} --help")


def _with_file(name: str, arguments: list[str]) -> list[str]:
    """`arguments` with `--config FILE` replaced by the file's own settings, in front so that the others win."""
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option != "--config":
            continue
        taken = 1 if equals else 2
        if not equals:
            if i + 1 == len(arguments):
                raise UsageError("--config without a file", "a TOML file of options", f"clew {name} --config FILE.toml")
            value = arguments[i + 1]
        return [*_read_toml(name, Path(value)), *arguments[:i], *arguments[i + taken :]]
    return arguments


def _read_toml(name: str, path: Path) -> list[str]:
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        advice = "check the path and the syntax"
        raise InvalidValue("--config", str(path), f"a readable TOML file ({error})", advice) from None
    known = options_of(name)
    arguments: list[str] = []
    for key, value in _flatten(table):
        option = "--" + key.replace("_", "-")
        if option not in known:
            raise UnknownName(f"key of {path}", key, (o.removeprefix("--").replace("-", "_") for o in known))
        if isinstance(value, bool):
            arguments += [option] if value else []
        else:
            arguments += [option, *map(str, value if isinstance(value, list) else [value])]
    return arguments


def _flatten(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


def _complain(error: ClewError) -> int:
    print(f"clew: {error}", file=sys.stderr)
    return error.exit_status


def _interrupted(arguments: Sequence[str]) -> int:
    options = _quiet_options(arguments[0]) if arguments and arguments[0] in VERBS else []
    print("\nclew: interrupted", file=sys.stderr)
    if "--resume" in options:
        print("  kept: every stage that had finished, with its checkpoint, in the run directory", file=sys.stderr)
        print("  what to do: give the same command with --resume to go on from there", file=sys.stderr)
    else:
        print("  kept: nothing was half-written", file=sys.stderr)
        how = " with --overwrite" if "--overwrite" in options and "--overwrite" not in arguments else ""
        print(f"  what to do: give the same command again{how}", file=sys.stderr)
    return 128 + signal.SIGINT


def _quiet_options(name: str) -> list[str]:
    fields = dataclasses.fields(importlib.import_module(VERBS[name].module).CONFIG)
    return ["--" + field.name.replace("_", "-") for field in fields]


def _reader_went_away() -> int:
    """Whoever read our output has closed it (`clew --help | head -1`): be quiet, also while the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _friendly(error: Exception) -> ClewError | None:
    """`error` as a message for the user, if it is one that a user can cause."""
    where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
    if getattr(error, "errno", None) in _FULL or _FULL_DISK.search(str(error)):
        advice = "free some space, or point --out at another disk; then give the same command with --resume"
        return ClewError(f"the disk is full{where}", "room for checkpoints and the trajectory store", advice)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        accepted = "a place that you may read and write"
        return ClewError(f"no permission for {error.filename}", accepted, "choose another path, or change its mode")
    return None


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
