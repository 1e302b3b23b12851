"""Tasks of reasoning-gym: made reproducibly, judged by their scorers, and never fooled where those are."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path

import pytest

from clew.core.errors import InvalidValue, UnknownName
from clew.core.task import split_of
from clew.core.types import Outcome
from clew.tasks import make_task
from clew.tasks import reasoning_gym as module
from clew.tasks import reasoning_gym_worker as worker
from clew.tasks.killable import Killable
from clew.tasks.reasoning_gym import ReasoningGym, reasoning_gym_task
from clew.tasks.reasoning_gym_attacks import attacks
from clew.tasks.reasoning_gym_exceptions import NO_GOLD, NOT_POSED, STRICTER

COMPOSITE = 'composite:datasets=[{"name":"gcd","weight":1,"config":{}},{"name":"lcm","weight":1,"config":{}}]'


def spec_of(name: str) -> str:
    return COMPOSITE if name == "composite" else name


def judged(task: ReasoningGym, place: dict[str, object], answer: str):
    return task.verify(task.problem(place), f"<answer>{answer}</answer>")


def test_every_task_has_a_name_and_every_exception_a_task() -> None:
    names = module.task_names()
    assert len(names) == 106
    assert set(STRICTER) | set(NOT_POSED) | set(NO_GOLD) <= set(names)
    assert all(rule.reason for rule in STRICTER.values())


def test_the_documents_list_every_task_and_every_stricter_rule() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "tasks.md").read_text(encoding="utf-8")
    rows = re.finditer(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \| (yes|no) \|$", text, re.MULTILINE)
    listed = {name: (reason, form) for name, reason, form in (row.groups() for row in rows)}
    assert listed == {name: (rule.reason, "yes" if rule.form else "no") for name, rule in STRICTER.items()}
    families = [line for line in text.splitlines() if re.match(r"\| \w+ \| [0-9]+ \|", line)]
    assert sorted(name for line in families for name in re.findall(r"`(\w+)`", line)) == list(module.task_names())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(106))
def test_gold_is_right_and_attacks_are_not(number: int) -> None:
    name = module.task_names()[number]
    task = reasoning_gym_task(spec_of(name))
    problems = task.problems("validation", 5, seed=1)
    assert len({problem.id for problem in problems}) == 5
    golds = [] if name in NO_GOLD else [task.gold(problem) for problem in problems]
    for problem, gold in zip(problems, golds, strict=False):
        verdict = task.verify(problem, f"hm, <answer>{gold}</answer>")
        assert (verdict.outcome, verdict.value, verdict.answer) == (Outcome.RIGHT, 1.0, gold)
    for answer in attacks(problems[0].prompt[-1].content, golds[0] if golds else None, golds[1:]):
        verdict = task.verify(problems[0], f"<answer>{answer}</answer>")
        assert verdict.outcome is Outcome.WRONG, answer[:100]
        assert verdict.value is not None and 0.0 <= verdict.value < 1.0


@pytest.mark.parametrize(
    "name",
    [
        "polynomial_multiplication",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("chain_sum", "isomorphic_strings", "ransom_note")),
    ],
)
def test_problems_are_the_same_in_every_process(name: str) -> None:
    """All but chain_sum follow the order of a set."""
    task = reasoning_gym_task(name)
    problems = task.problems("test", 6, seed=3)
    assert {split_of(p.id) for p in problems} == {"test"}
    module._process().close()
    module._made.cache_clear()
    assert task.problems("test", 4, seed=3) == problems[:4]
    assert task.problems("test", 4, seed=4) != problems[:4]
    for problem in problems:
        assert task.problem(json.loads(json.dumps(dict(problem.metadata)))) == problem


def test_problems_hold_no_answer() -> None:
    for name in ("n_queens", "graph_color", "rubiks_cube"):
        task = reasoning_gym_task(name)
        for problem in task.problems("train", 2, seed=0):
            assert set(problem.metadata) == {"settings", "seed", "number"}
            assert task.gold(problem) not in problem.prompt[-1].content


def test_parameters_are_passed_through() -> None:
    task = make_task('rg:basic_arithmetic,operators=["+"],min_terms=3,max_terms=3,allow_parentheses=false')
    assert task == make_task('rg:basic_arithmetic:max_terms=3,operators=["+"],allow_parentheses=false,min_terms=3')
    for problem in task.problems("train", 5, seed=0):
        assert problem.prompt[-1].content.count("+") == 2
        # Whoever has the problem can judge it, whatever the parameters of the task.
        plain = make_task("rg:basic_arithmetic")
        assert plain.verify(problem, f"answer {task.gold(problem)}").right
    assert (
        "AND" not in reasoning_gym_task("word_sorting,transformation=lowercase").problems("train", 1, seed=0)[0].prompt
    )
    assert reasoning_gym_task("time_intervals,min_date=2000-01-01").problems("train", 1, seed=0)


def test_problems_of_a_composite_are_judged_by_the_rule_of_their_own_task() -> None:
    task = reasoning_gym_task('composite:datasets=[{"name":"gsm_symbolic","weight":1,"config":{}}]')
    problem = task.problems("train", 1, seed=0)[0]
    assert task.difficulty(problem) == "gsm_symbolic"
    assert task.verify(problem, f"answer {task.gold(problem)}").right
    assert not task.verify(problem, f"answer {task.gold(problem)} or 7").right


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("chainsum", "did you mean 'chain_sum'"),
        ("", "unknown task of reasoning-gym"),
        ("chain_sum,min_trms=3", "did you mean 'min_terms'"),
        ("chain_sum,seed=3", "unknown parameter"),
        ("chain_sum,min_terms=x", "not a whole number"),
        ("chain_sum,min_terms=true", "not a whole number"),
        ("chain_sum,min_terms=9", "max_terms must be >= min_terms"),
        ("chain_sum,min_terms", "name=value"),
        ("chain_sum,min_terms=3,min_terms=4", "once"),
        ("basic_arithmetic,format_style=curly", "not one of"),
        ("basic_arithmetic,operators=+", "not a list"),
        ("composite", "composite"),
    ],
)
def test_wrong_specs(spec: str, says: str) -> None:
    with pytest.raises((InvalidValue, UnknownName)) as caught:
        reasoning_gym_task(spec)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"seed": "1"}, {"seed": -1}, {"seed": 1, "number": 5000}, {"seed": 1, "index": 0}, {"seed": 1, "settings": 3}],
)
def test_wrong_facts(metadata: dict[str, object]) -> None:
    with pytest.raises((InvalidValue, UnknownName)):
        reasoning_gym_task("gcd").problem(metadata)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("puzzle24", "1*2*3*4"),
        ("puzzle24", "24.9*1+0*2"),
        ("game_of_life_halting", "whatever"),
        ("polynomial_multiplication", "__import__('os').getpid()"),
        ("coin_flip", "0"),
        ("rush_hour", "A+99999999"),
        ("rubiks_cube", "U999999999"),
    ],
)
def test_known_holes_are_closed(name: str, answer: str) -> None:
    task = reasoning_gym_task(name)
    for problem in task.problems("train", 3, seed=0):
        assert task.verify(problem, f"<answer>{answer}</answer>").outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("number_sorting", lambda gold: gold.replace("'", "").replace("0.", "0.3").replace("1", "1.2")),
        ("gsm_symbolic", lambda gold: f"{gold} or 7"),
        ("game_of_life", lambda gold: gold[:-1] + ", [1]]"),
        ("word_sorting", lambda gold: gold + ", extra"),
        ("letter_jumble", lambda gold: gold + " extra"),
        ("chain_sum", lambda gold: ",".join(gold) if len(gold) > 1 else gold + ","),
        ("pool_matrix", lambda gold: gold + " # what else?"),
        ("quantum_lock", lambda gold: "because " + gold),
        ("time_intervals", lambda gold: gold + " or not"),
        ("tower_of_hanoi", lambda gold: "I " + gold.replace("Move", "would Move")),
        ("palindrome_partitioning", lambda gold: gold[:-1] + ", " + gold[1:]),
        ("cryptarithm", lambda gold: "A=1," + gold if "A=" in gold else gold + "," + gold),
        ("propositional_logic", lambda gold: f"({gold} \u2228 \u00ac{gold})"),
    ],
)
def test_full_marks_of_a_loose_scorer_are_not_enough(name: str, change) -> None:
    task = reasoning_gym_task(name)
    for problem in task.problems("train", 3, seed=0):
        gold = task.gold(problem)
        if change(gold) != gold:
            verdict = task.verify(problem, f"<answer>{change(gold)}</answer>")
            assert verdict.outcome is Outcome.WRONG


def test_other_right_answers_are_right() -> None:
    """Where many answers are right, the scorer decides."""
    problem = (task := reasoning_gym_task("chain_sum,min_digits=4,min_terms=6")).problems("train", 1, seed=1)[0]
    number = int(task.gold(problem))
    assert task.verify(problem, f"answer {number:,}.0").right
    problem = (task := reasoning_gym_task("simple_integration")).problems("train", 1, seed=1)[0]
    assert task.verify(problem, f"<answer>{task.gold(problem).replace(' + C', ' + 7')}</answer>").right
    problem = (task := reasoning_gym_task("countdown")).problems("train", 1, seed=1)[0]
    assert task.verify(problem, f"<answer>({task.gold(problem)})</answer>").right


def test_partial_credit_is_a_value_and_not_right() -> None:
    task = reasoning_gym_task("sentence_reordering")
    problem = task.problems("train", 1, seed=0)[0]
    words = task.gold(problem).split()
    verdict = task.verify(problem, "answer " + " ".join([*words[:-1], "wrong"]))
    assert verdict.outcome is Outcome.WRONG
    assert verdict.value == pytest.approx((len(words) - 1) / len(words))


def test_no_answer_is_wrong_without_asking_the_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    task = reasoning_gym_task("gcd")
    problem = task.problems("train", 1, seed=0)[0]
    monkeypatch.setattr(module, "_call", None)
    for text in ("", "<answer> </answer>", "9" * 10_000_000):
        assert task.verify(problem, text).outcome is Outcome.WRONG


def test_a_scorer_that_crashes_or_hangs_leaves_the_answer_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    task = reasoning_gym_task("simple_integration")
    problem = task.problems("train", 1, seed=0)[0]
    with Killable(worker.serve, cpu_seconds=1.0, seconds=20.0, warm_up=("names",), memory_mib=2048) as quick:
        start = time.perf_counter()
        monkeypatch.setattr(module, "_process", lambda: quick)
        verdict = task.verify(problem, "answer 9**(9**(9**9))")
        assert (verdict.outcome, verdict.value) == (Outcome.UNSCORED, None)
        assert time.perf_counter() - start < 60.0
    monkeypatch.setattr(module, "_call", lambda *_: float("nan"))
    assert task.verify(problem, "answer x").outcome is Outcome.UNSCORED


def test_a_problem_that_takes_too_long_to_make_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(dataset: str, settings: str, seed: int, index: int) -> dict[str, object]:
        while index:
            with contextlib.suppress(Exception):
                sum(range(100))
        return {"index": index}

    monkeypatch.setattr(worker, "made", endless)
    monkeypatch.setattr(worker, "MAKING_CPU_SECONDS", 0.1)
    assert worker.draw("gcd", "{}", 0, 0, 3, 60.0) == [{"index": 0}, None, None]


def test_gold_of_tasks_without() -> None:
    for name in NO_GOLD:
        task = reasoning_gym_task(name)
        with pytest.raises(InvalidValue, match="keeps no right answer"):
            task.gold(task.problems("train", 1, seed=0)[0])


def test_too_many_problems_is_an_error() -> None:
    with pytest.raises(InvalidValue, match="widen"):
        reasoning_gym_task("count_primes,max_n=4").problems("train", 100, seed=0)


@pytest.mark.parametrize(
    ("hint", "given", "made"),
    [
        (int, 3, 3),
        (float, 3, 3),
        (tuple[str, ...], ["a"], ("a",)),
        (list[float], [1, 2.5], [1, 2.5]),
        (int | None, None, None),
    ],
)
def test_json_becomes_what_a_parameter_is(hint: object, given: object, made: object) -> None:
    assert worker.converted(given, hint) == made


@pytest.mark.parametrize(
    ("hint", "given"), [(int, True), (int, 2.5), (int, "3"), (bool, 1), (str, 1), (list[int], ["a"])]
)
def test_json_of_another_kind_is_refused(hint: object, given: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        worker.converted(given, hint)
