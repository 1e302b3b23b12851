"""Search problems with any strategy and any guide, within a budget; keep every tree, and measure the answers."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue

if TYPE_CHECKING:
    from rich.console import Group

    from clew.core.cost import Budget
    from clew.core.protocols import Policy, Scorer
    from clew.core.types import Sampling
    from clew.data.run import RunDirectory
    from clew.recipes.search_batches import Setup
    from clew.search.specs import Chosen, Guidance
    from clew.tasks import AnyTask

EXAMPLES = """
clew search --checkpoint runs/first --strategy mcts --budget-tokens 4096 --problems 200 --out runs/mcts
clew search --checkpoint runs/first --strategy beam:n=8,m=4 --guidance mean-logprob --out runs/beam
clew search --checkpoint runs/first --strategy majority-vote:n=64 --split validation --out runs/vote --json
clew search --checkpoint runs/first --strategy mcts --out runs/mcts --resume
"""
WIDTH = 80
STAGE = "search"
CACHE_BYTES = 1 << 30
NEWLINE, EQUALS = "\n", "="
COSTS = {
    "tokens": "tokens",
    "tokens_sampled": "  sampled",
    "prompt_tokens_read": "  read",
    "scorer_tokens": "  read by the guide",
    "prompt_tokens_cached": "tokens from the cache, not read",
    "prompt_tokens_reread": "of those read, read again",
    "model_calls": "completions",
    "verifier_calls": "verifier calls",
    "seconds": "seconds",
}
ENDS = {
    "num_stopped_by_budget": "stopped by the budget",
    "num_unscored": "answers that could not be judged",
    "num_failed": "searches that failed",
}


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search problems of a task with a model, and measure what the search answers and what it costs."""

    checkpoint: str
    """Run directory or checkpoint of clew's, Hugging Face directory, GGUF file, or URL#MODEL of a server."""
    task: str = "countdown"
    """Task and its settings: NAME or NAME:setting=value,..."""
    strategy: str = "best-of-n"
    """Strategy and its settings: NAME or NAME:setting=value,..."""
    plan: Path | None = None
    """File of `clew plan`, instead of --strategy: a few samples predict how hard a problem is, the plan says what to do
    for --budget-tokens."""
    guidance: str | None = None
    """What rates candidates: verifier, mean-logprob, learned-reward, ... Left out, it is the strategy's own."""
    guide: Path | None = None
    """Run directory or checkpoint of the reward model, for process-reward and learned-reward (of any kind)."""
    budget_tokens: int | None = None
    """Most tokens a problem, sampled, read and scored."""
    budget_calls: int | None = None
    """Most completions asked of the model, a problem."""
    budget_seconds: float | None = None
    """Most seconds a problem."""
    problems: int = 200
    """How many problems."""
    split: Literal["train", "validation", "test"] = "test"
    """Which problems; those of test are never trained on."""
    step_ends: tuple[str, ...] | None = None
    r"""What ends a step; \n is a new line, "" nothing. Left out: a new line, or = in sums of clew's small models."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_tokens: int = 288
    """Most tokens of an answer."""
    max_step_tokens: int = 48
    """Most tokens of a step."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    together: int = 64
    """How many problems are searched at once."""
    seed: int = 0
    """Every random draw derives from it; the problems too."""
    out: Path
    """Run directory to write."""
    resume: bool = False
    """Go on with the searches in --out; those that failed are tried again."""
    overwrite: bool = False
    """Delete the run that is in --out first."""
    json: bool = False
    """Print the summary as one JSON object instead of a table."""


CONFIG = SearchConfig


def main(config: SearchConfig) -> int:
    from clew.core.seeds import derive_seed
    from clew.data.files import jsonable
    from clew.data.run import RunDirectory
    from clew.recipes.search_batches import search_all
    from clew.tasks import make_task

    # Whatever can be refused is refused before the seconds it takes to load a model.
    task = make_task(config.task)
    _check(config)
    choose(config, config.step_ends or (NEWLINE,))
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "held out"))

    def opened() -> RunDirectory:
        return RunDirectory.create(config.out, settings(config), resume=config.resume, overwrite=config.overwrite)

    # A new directory is made only when the model is there: a mistyped checkpoint must not leave one behind.
    run = opened() if config.out.exists() or config.resume else None
    setup = set_up(config, task)
    run = opened() if run is None else run
    try:
        rows = search_all(run, setup, problems)
    except KeyboardInterrupt:
        return _interrupted(run, len(problems))
    summary = summarise(run, setup, rows)
    run.write_json("summary.json", summary)
    if config.json:
        print(json.dumps(jsonable({**summary, "run": str(run.path)}), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(summary, run.path))
    failed = [row["error"] for row in rows if row["error"]]
    if failed:
        print(f"clew: {len(failed)} of {len(rows)} searches failed. The first: {failed[0]}", file=sys.stderr)
    return int(len(failed) == len(rows))


def set_up(config: SearchConfig, task: AnyTask, policy: Policy | None = None) -> Setup:
    """The model (`policy`, or the one of the checkpoint), the strategy and its guide, ready to search."""
    from clew.core.seeds import derive_seed
    from clew.data.files import jsonable
    from clew.recipes.search_batches import Setup
    from clew.search.serve import Roles

    policy = policy or load_any_policy(config.checkpoint)
    ends = step_ends(config, task, policy)
    chosen = choose(config, ends)
    return Setup(
        strategy=chosen.strategy,
        guidance=chosen.guidance,
        roles=Roles(policy, task, load_scorer(chosen, policy, task, sampling_of(config, ends), guide=config.guide)),
        task=task,
        budget=budget_of(config),
        # Sample 0 of a problem is the one that `clew eval` draws first.
        seed=derive_seed(config.seed, "evaluation"),
        together=config.together,
        about={**settings(config), "strategy_settings": jsonable(chosen.strategy)},
    )


def load_any_policy(checkpoint: str) -> Policy:
    """The policy that `checkpoint` names; one of clew's computes the prefix that states share only once."""
    from clew.models.policy import LocalPolicy
    from clew.recipes import stage

    if checkpoint.startswith(("http://", "https://")):
        return _remote(checkpoint)
    if foreign(Path(checkpoint)):
        from clew.data.checkpoint_files import resolve_checkpoint
        from clew.models.transformers_policy import load_transformers_policy

        return load_transformers_policy(resolve_checkpoint(Path(checkpoint)))
    policy = stage.load_policy(Path(checkpoint))
    if isinstance(policy, LocalPolicy):
        policy.remember(CACHE_BYTES)
    return policy


def foreign(path: Path) -> bool:
    """Whether clew did not make the model at `path`: a GGUF file, a Hugging Face directory without checksums, or one
    that clew trained and whose class or chat format is another's."""
    from clew.data.checkpoint_files import CHECKPOINTS, CHECKSUMS, resolve_checkpoint
    from clew.initialize.chat import CHAT_TEMPLATE

    if path.suffix == ".gguf":
        return True
    if (path / CHECKPOINTS).is_dir():
        path = resolve_checkpoint(path)
    try:
        kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return False
    template = path / "chat_template.jinja"
    other_chat = template.is_file() and template.read_text(encoding="utf-8") != CHAT_TEMPLATE
    return kind is not None and (kind != "qwen3" or other_chat or not (path / CHECKSUMS).exists())


def _remote(address: str) -> Policy:
    from clew.models.remote_policy import RemotePolicy

    url, _, model = address.partition("#")
    if not model:
        accepted = "the address of an OpenAI-compatible server and the model's name: http://HOST:PORT/v1#MODEL"
        raise InvalidValue("--checkpoint", address, accepted, "add # and the name of the model")
    return RemotePolicy(url, model)


def load_scorer(
    chosen: Chosen, policy: Policy, task: AnyTask, step: Sampling, *, guide: Path | None = None
) -> Scorer | None:
    """The scorer that guides; None where the verifier does, or nothing. `guide` is where a learned one is."""
    from clew.search.specs import GuideSource, parse_guidance

    if chosen.guidance is None:
        return None
    return parse_guidance(chosen.guidance, guides(guide)).make(GuideSource(policy=policy, task=task, sampling=step))


def step_ends(config: SearchConfig, task: AnyTask, policy: Policy) -> tuple[str, ...]:
    """What ends a step. Clew's own small models write sums in one line: there a step ends before a result."""
    if config.step_ends is not None:
        return tuple(end.replace("\\n", NEWLINE) for end in config.step_ends if end)
    from clew.models.policy import LocalPolicy

    small = isinstance(policy, LocalPolicy) and task.name in ("countdown", "arithmetic")
    return (EQUALS,) if small else (NEWLINE,)


def choose(config: SearchConfig, ends: tuple[str, ...]) -> Chosen:
    """The strategy of the command line. Raises `UnknownName` or `InvalidValue`."""
    from clew.search.specs import Given, parse_strategy

    if config.plan is not None:
        return planned(config, config.plan, ends)

    given = Given(
        step=sampling_of(config, ends),
        solution=sampling_of(config, ()),
        guidance=config.guidance,
        seed=config.seed,
    )
    return parse_strategy(config.strategy, given, guides=guides())


def planned(config: SearchConfig, file: Path, ends: tuple[str, ...]) -> Chosen:
    """The compute-optimal strategy of a plan at the budget of the command line."""
    from clew.recipes.plan import decode
    from clew.search.compute_optimal import ComputeOptimal
    from clew.search.specs import Chosen, takes_guide

    if config.budget_tokens is None:
        accepted = "a budget in tokens, because a plan is made for budgets"
        raise InvalidValue("--budget-tokens", None, accepted, "give the budget that you calibrated")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        made, pilot, guidance = decode(told), int(told["pilot"]), config.guidance or str(told["guidance"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        accepted = "a file that clew plan wrote"
        raise InvalidValue("--plan", str(file), accepted, f"make it with clew plan ({error})") from error
    specs = made.column(config.budget_tokens)
    each = [
        choose(replace(config, plan=None, strategy=spec, guidance=guidance if takes_guide(spec) else None), ends)
        for spec in specs
    ]
    guided = next((chosen.guidance for chosen in each if chosen.guidance is not None), None)
    strategies = tuple(chosen.strategy for chosen in each)
    sampling = sampling_of(config, ())
    return Chosen(ComputeOptimal(edges=made.edges, strategies=strategies, pilot=pilot, sampling=sampling), guided)


def guides(learned: Path | None = None) -> dict[str, Guidance]:
    """Every guide by name: those of `clew.search.specs`, exact values, and the values learnt in `learned`."""
    from clew.search.specs import GUIDANCE, Guidance, GuideSource

    def exact_value(source: GuideSource) -> Scorer:
        from clew.reward.countdown_value import ExactCountdownValue

        return ExactCountdownValue(task=source.task, policy=source.policy)

    def learned_reward(source: GuideSource) -> Scorer:
        from clew.data.checkpoint_files import resolve_checkpoint
        from clew.recipes.learner import check_tokens
        from clew.reward.load import load_reward

        if learned is None:
            raise InvalidValue("--guide", None, "the run directory of a reward model", "train one: clew reward train")
        check_tokens(learned, getattr(source.policy, "tokenizer", None), "--guide")
        return load_reward(resolve_checkpoint(learned), mode=source.sampling.mode)

    def process_reward(source: GuideSource) -> Scorer:
        scorer = learned_reward(source)
        if scorer.name != "process-reward":
            accepted = "a process reward"
            raise InvalidValue("--guide", f"a checkpoint of {scorer.name}", accepted, "use --guidance learned-reward")
        return scorer

    return {
        **GUIDANCE,
        "exact-value": Guidance(make=exact_value),
        "process-reward": Guidance(make=process_reward),
        # What the field calls it.
        "prm": Guidance(make=process_reward),
        "learned-reward": Guidance(make=learned_reward),
    }


def sampling_of(config: SearchConfig, ends: tuple[str, ...]) -> Sampling:
    """How a step that ends with one of `ends` is sampled; without them, a whole answer."""
    from clew.core.types import Sampling

    most = min(config.max_step_tokens, config.max_tokens) if ends else config.max_tokens
    return Sampling(temperature=config.temperature, max_tokens=most, mode=config.mode, step_ends=ends)


def settings(config: SearchConfig) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on from."""
    told = asdict(config)
    for elsewhere in ("out", "resume", "overwrite", "json"):
        del told[elsewhere]
    return told


def budget_of(config: SearchConfig) -> Budget:
    """The ceiling on what each problem may cost."""
    from clew.core.cost import Budget

    return Budget(tokens=config.budget_tokens, calls=config.budget_calls, seconds=config.budget_seconds)


def summarise(run: RunDirectory, setup: Setup, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`summary.json` of the run."""
    from clew.data.environment import peak_rss_mib
    from clew.evaluate.searched import search_entry
    from clew.recipes.search_batches import seconds_of

    told = {name: setup.about[name] for name in ("task", "split", "problems", "seed")}
    return {
        **told,
        "total_seconds": seconds_of(run),
        "peak_rss_mib": peak_rss_mib(),
        "device": "cpu",
        "stages": [],
        "search": [search_entry(rows, setup.strategy.name, setup.guidance)],
    }


def table(summary: Mapping[str, Any], run: Path) -> Group:
    """One screen: how many answers are right, what a problem cost, and where everything is."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from clew.report.data import rate
    from clew.report.words import duration, with_interval

    (entry,) = summary["search"]
    guide = f", guided by {entry['guidance']}" if entry["guidance"] else ""
    title = f"{entry['strategy']}{guide}: {summary['problems']} {summary['split']} problems of {summary['task']}"
    shown = Table(title=title, width=WIDTH, box=box.SIMPLE, title_justify="left", pad_edge=False)
    shown.add_column("", ratio=1)
    shown.add_column("right, 95 % interval", justify="right", no_wrap=True)
    for name, value in {"all": entry["accuracy"], **entry["by_difficulty"]}.items():
        known = rate(value)
        shown.add_row(name, "none was judged" if known is None else with_interval(known))
    shown.add_section()
    shown.add_row("[dim]mean cost of a problem[/dim]", "")
    for name, label in COSTS.items():
        shown.add_row(label, f"{entry['cost'][name]:,.{2 if name == 'seconds' else 0}f}")
    shown.add_section()
    for name, label in ENDS.items():
        if entry[name]:
            shown.add_row(label, str(entry[name]))
    took = duration(summary["total_seconds"])
    return Group(shown, Text(f"searched in {took}; all of it is in {run}\nlook at the trees: clew tree {run}", "dim"))


def _check(config: SearchConfig) -> None:
    for name in ("problems", "together", "max_step_tokens"):
        if getattr(config, name) < 1:
            raise InvalidValue(name, getattr(config, name), "an integer of at least 1", "raise it")
    budget_of(config)


def _interrupted(run: RunDirectory, num_problems: int) -> int:
    batches = (run.path / "stages").glob(f"{STAGE}-*.json")
    ended = sum(len(run.stage_result(file.stem)["rows"]) for file in batches)
    print("\nclew: interrupted", file=sys.stderr)
    print(f"  kept in {run.path}: {ended} of {num_problems} problems, and what the others have", file=sys.stderr)
    print("  what to do: give the same command with --resume to go on from there", file=sys.stderr)
    return 128 + signal.SIGINT
