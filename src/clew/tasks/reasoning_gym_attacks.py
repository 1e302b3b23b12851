"""Answers that no verifier may accept, for a problem whose right answer is known: what fools lenient scorers."""

from __future__ import annotations

from collections.abc import Sequence

_ALWAYS_WRONG = (
    "",
    " \n\t ",
    "None",
    "null",
    "[]",
    "{}",
    "[[]]",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "?",
    "...",
    "I do not know",
    "the answer",
    "<answer>",
    "\x00",
    "\ud800",
    "\u200b",
    "9**9**9",
    "9" * 50_000,
    "(" * 5_000,
    "[" * 50_000,
    "{" * 5_000,
    "-" * 50_000,
    "answer " * 5_000,
    "__import__('os').getpid()",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    "exec('raise SystemExit')",
    "lambda: 0",
    "True or False",
    "yes and no",
)
_SHORT = ("0", "1", "-1", "2", "A", "B", "C", "True", "False", "true", "Yes", "No", "infeasible", "{}", "[0]", "E", "x")


def attacks(question: str, gold: str | None, others: Sequence[str]) -> list[str]:
    """Wrong answers to a problem; `others` are right answers of other problems of its task.

    With no known right answer, only those that are wrong whatever it is.
    """
    made = [*_ALWAYS_WRONG, question, question.strip().split("\n")[-1] + " "]
    if gold is None:
        return made
    short = [text for text in _SHORT if text.lower() != gold.lower() and not _equal(text, gold)]
    candidates = [gold, *(other for other in others if other != gold)]
    if len(candidates) > 1:
        made += [" or ".join(candidates), "\n\n".join(candidates), f"{candidates[1]} (or perhaps {gold})"]
    made += [
        *short,
        f"{gold} and garbage",
        f"garbage, then {gold}",
        f"{gold} # {gold}",
        f"{gold}\u200b",
        f"\x00{gold}",
        f"{gold};",
        f"{gold}{gold}!",
        f"{gold} | {gold}",
        f"({gold}, 0)",
        f"{{'answer': {gold!r}}}",
        f"str({gold!r})",
        " ".join(gold) + " ~",
        gold[: len(gold) // 2] + "...",
        gold + " x" * 1_000,
    ]
    # A question may end with what its right answer is: a text to change that nothing is to be changed in.
    return [text for text in made if text.strip() != gold.strip()]


def _equal(text: str, gold: str) -> bool:
    try:
        return float(text) == float(gold)
    except ValueError:
        return False
