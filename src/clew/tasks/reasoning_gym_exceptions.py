"""Where clew is stricter than a scorer of reasoning-gym, or knows it to be loose: one entry a task, with the reason.

An answer is right if it has the task's form, the scorer gives it full marks and the task's check holds. An answer of
another form is wrong, and the scorer never sees it. Tasks that are not listed compare with one right answer, and give
full marks for nothing else.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from clew.tasks import reasoning_gym_checks as checks
from clew.tasks.reasoning_gym_checks import Check, Given


class Stricter(NamedTuple):
    """What a right answer needs beside the scorer's full marks, and why the scorer alone will not do."""

    reason: str
    check: Check = checks.by_scorer
    form: re.Pattern[str] | None = None


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_NUMBER = r"[-+]?[0-9]{1,400}(?:\.[0-9]{1,400})?"
_NAMES = "exp|log|ln|sqrt|sin|cos|tan|cot|sec|csc|asin|acos|atan|sinh|cosh|tanh|asinh|acosh|atanh|Abs|pi|E|C"
_VARIABLE = "[a-zABDFGHJKLMPRTUVWXYZ]"  # without the letters that sympy has given a meaning
_CALCULUS = _form(
    # No power of a power, and none of more than three digits: their values alone could fill the memory.
    r"(?!.*\*\*[^-+/(]*\*\*)(?!.*\*\* *[0-9]{4})(?=.{1,1000}\Z)"
    rf"(?:[ ]++|[0-9]{{1,12}}+(?:\.[0-9]{{1,12}}+)?(?![\w.])|(?:{_NAMES}|{_VARIABLE})(?![\w.])|\*\*|[-+*/()])*+"
)
_POWER = rf"{_VARIABLE}(?:\*\*[0-9]{{1,3}})?"
_TERM = rf"(?:[0-9]{{1,400}}(?:\*{_POWER})*|{_POWER}(?:\*{_POWER})*)"
_SQUARE = r"\[[0-9]\.[0-9], ?[0-9]\.[0-9]\]"
_BOX_MOVE = rf"\"(?:Agent)?{_SQUARE}\":\s?\"move\(\w+, (?:square{_SQUARE}|\w+)\)\""
_SOLVED = "exact value and exactly the given numbers; "

STRICTER: Final[dict[str, Stricter]] = {
    "advanced_geometry": Stricter(
        "reads the first two numbers of any list, and degree signs anywhere",
        form=_form(rf"{_NUMBER}°?|\(? ?{_NUMBER} ?, ?{_NUMBER} ?\)?"),
    ),
    "arc_agi": Stricter("skips lines that begin with Shape:", checks.same_cells),
    "binary_matrix": Stricter("evaluates answers as Python", checks.same, _form(r"[\[\], \n0-9]*")),
    "bitwise_arithmetic": Stricter(
        "accepts other bases and underscores, where a hexadecimal number is asked for",
        form=_form(r"-?0[xX][0-9a-fA-F]{1,400}"),
    ),
    "boxnet": Stricter(
        "raises for what is no list of moves; a box that is moved off the board leaves the answer unscored",
        form=_form(
            rf"\[\s?\{{{_BOX_MOVE}(?:,\s?{_BOX_MOVE})*\}}(?:,\s{{0,4}}\{{{_BOX_MOVE}(?:,\s?{_BOX_MOVE})*\}})*\s?\]"
        ),
    ),
    "calendar_arithmetic": Stricter("gives more than full marks near negative numbers", checks.same_caseless),
    "chain_sum": Stricter("drops commas anywhere, so that 1,2 is 12", checks.same_number),
    "codeio": Stricter("accepts an object that says one key twice", checks.same_json),
    "coin_flip": Stricter(
        "has a tolerance of 0.0001, which accepts 0 for small probabilities",
        checks.same_to_a_thousandth,
        _form(r"[0-9]{0,20}\.?[0-9]{1,40}(?:e-[0-9]{1,2})?|[0-9]{1,20} ?/ ?[0-9]{1,20}"),
    ),
    "complex_arithmetic": Stricter(
        "reads Python's numbers, with underscores, exponents and infinities",
        form=_form(rf"\(?(?:{_NUMBER}(?: ?[-+] ?(?:[0-9.]{{1,400}})?[ij])?|[-+]?(?:[0-9.]{{1,400}})?[ij])\)?"),
    ),
    "countdown": Stricter(
        f"{_SOLVED}the scorer evaluates answers as Python, and has a tolerance of 0.00001 of the target",
        checks.same_arithmetic,
        _form(r"(?!.*(?:\*\*|//))[-+*/() 0-9]{1,256}"),
    ),
    "cryptarithm": Stricter(
        "lets a later letter=digit replace an earlier one, and reads digits of any script",
        checks.as_many_pairs,
        _form(r"[A-Z] ?= ?[0-9](?: ?, ?[A-Z] ?= ?[0-9])*"),
    ),
    "decimal_arithmetic": Stricter("accepts a last digit that is off by one and more", checks.same_number),
    "decimal_chain_sum": Stricter("reads Python's numbers, with underscores and exponents", checks.same_number),
    "dice": Stricter("drops line ends, so that 1 and 2 on two lines are 12", checks.same),
    "figlet_font": Stricter("gives full marks for ten letters in place, whatever follows", checks.same_letters),
    "fraction_simplification": Stricter(
        "ignores what follows a fraction in LaTeX",
        form=_form(r"\$? ?(?:\\d?frac ?\{ ?[0-9]{1,99} ?\} ?\{ ?[0-9]{1,99} ?\}|[0-9]{1,99} ?/ ?[0-9]{1,99}) ?\$?"),
    ),
    "game_of_life": Stricter("ignores rows and cells beyond the board", checks.same_json, _form(r"\[[\[\], \n01]*\]")),
    "game_of_life_halting": Stricter("takes any answer at all for True", checks.same),
    "graph_color": Stricter("accepts lists, and vertices that there are not", checks.same_keys),
    "gsm_symbolic": Stricter("takes the first number of any text", checks.same_number),
    "intermediate_integration": Stricter(
        "evaluates answers as Python, and accepts the integral itself, unsolved", form=_CALCULUS
    ),
    "jugs": Stricter(
        "accepts objects and nested lists for moves",
        form=_form(
            r"\[\s?\"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])\""
            r"(?:\s?,\s{0,8}\"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])\")*\s?\]"
        ),
    ),
    "kakurasu": Stricter("ignores what is not 0 or 1", form=_form(r"[01 \n]+")),
    "knight_swap": Stricter(
        "accepts text of any kind for squares",
        form=_form(r"[Nn][Oo]|\[\s?\"[wB],\w+,\w+\"(?:\s?,\s{0,8}\"[wB],\w+,\w+\")*\s?\]"),
    ),
    "knights_knaves": Stricter(
        "ignores words that are no statement",
        checks.as_many_statements,
        _form(r"\w+ is (?:an? )?\w+(?:(?:, and |, | and )\w+ is (?:an? )?\w+)*\.?"),
    ),
    "letter_jumble": Stricter("gives full marks for the right words, whatever follows", checks.same_words),
    "n_queens": Stricter("evaluates answers as Python", form=_form(r"[Q_\[\],'\" \n]*")),
    "number_format": Stricter(
        "reads Python's numbers, with underscores and infinities",
        form=_form(r"[-+]?[0-9][0-9,]{0,400}(?:\.[0-9]{1,400})?(?:[eE][-+]?[0-9]{1,3})?"),
    ),
    "number_sorting": Stricter(
        "accepts every number if it is off by up to 1",
        checks.same_numbers,
        _form(rf"\[ ?['\"]?{_NUMBER}['\"]?(?: ?, ?['\"]?{_NUMBER}['\"]?)* ?\]"),
    ),
    "palindrome_partitioning": Stricter("accepts a partition many times", checks.as_many_items),
    "polynomial_equations": Stricter("gives full marks within rounding, and reads brackets", checks.same_solutions),
    "polynomial_multiplication": Stricter(
        "evaluates answers as Python, and accepts products and sums that are not carried out",
        checks.as_many_terms,
        _form(rf"-? ?{_TERM}(?: ?[-+] ?{_TERM})*"),
    ),
    "pool_matrix": Stricter(
        "accepts numbers that are off by a hundredth, and comments after #",
        checks.same_numbers,
        _form(rf"{_NUMBER}(?:[ \n]{_NUMBER})*"),
    ),
    "power_function": Stricter(
        "reads Python's numbers, with underscores, any spaces and infinities",
        form=_form(rf"{_NUMBER}(?:[eE][-+]?[0-9]{{1,3}})?"),
    ),
    "prime_factorization": Stricter(
        "ignores empty factors, and reads digits of any script", form=_form(r"[0-9]{1,99}(?: ?\u00d7 ?[0-9]{1,99})*")
    ),
    "products": Stricter("drops commas anywhere, so that 1,2 is 12", checks.same_number),
    "propositional_logic": Stricter(
        "accepts a premise that the question gives; it still accepts any weaker statement that follows, as the "
        "question does",
        checks.not_a_premise,
        _form(r"[A-Z\u00ac\u2227\u2228\u2192\u2194() ]{1,200}"),
    ),
    "puzzle24": Stricter(
        f"{_SOLVED}the scorer evaluates answers as Python, cuts 24.9 to 24, and takes any four numbers",
        checks.same_arithmetic,
        _form(r"(?!.*(?:\*\*|//))[-+*/() 0-9]{1,256}"),
    ),
    "quantum_lock": Stricter(
        "finds the letters A, B and C in any words", form=_form(r"[ABC](?: ?(?:\u2192|->|,)? ?[ABC])*")
    ),
    "rearc": Stricter("skips lines that begin with Shape:", checks.same_cells),
    "rectangle_count": Stricter(
        "reads Python's numbers, with underscores and digits of any script", checks.same_number
    ),
    "rubiks_cube": Stricter(
        "repeats a turn as often as the number behind it says",
        form=_form(r"[UDLRFBMESudlrfbxyzXYZ][w]?['\u2019]?2?(?: {1,3}[UDLRFBMESudlrfbxyzXYZ][w]?['\u2019]?2?){0,999}"),
    ),
    "rush_hour": Stricter(
        "finds moves in any text, of any length; keeps no right answer",
        form=_form(r"[A-Z][-+][1-9](?:[ ,\n]{1,2}[A-Z][-+][1-9]){0,999}"),
    ),
    "simple_integration": Stricter(
        "evaluates answers as Python, and accepts the integral itself, unsolved", form=_CALCULUS
    ),
    "sokoban": Stricter("ignores what is no move", form=_form(r"[UDLR]{1,9999}")),
    "spell_backward": Stricter("adds up to full marks letter by letter, whatever follows", checks.same_caseless),
    "spiral_matrix": Stricter("evaluates answers as Python", checks.same, _form(r"[\[\], \n0-9]*")),
    "string_insertion": Stricter("evaluates answers as Python", checks.same, _form(r"[A-E\[\],'\" ]*")),
    "survo": Stricter("ignores what is no number", form=_form(r"[0-9 \n]+")),
    "time_intervals": Stricter("ignores what follows the number of days, or the seconds", checks.same),
    "tower_of_hanoi": Stricter(
        "finds a move anywhere in a line",
        form=_form(
            r"Move disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+(?:\nMove disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+)*"
        ),
    ),
    "word_sorting": Stricter("gives full marks for the right words, whatever follows", checks.same_list),
}


class NotPosed(NamedTuple):
    """Problems that the package makes and clew leaves out."""

    reason: str
    applies: Check
    """Whether the right answer, given as the answer, is of this kind."""


NOT_POSED: Final[dict[str, NotPosed]] = {
    "intermediate_integration": NotPosed(
        "the integral was not found, so that the right answer is the question", lambda given: "Integral(" in given.gold
    ),
    "polynomial_equations": NotPosed(
        "no real solution, so that the right answer is empty", lambda given: not given.gold.strip()
    ),
    "propositional_logic": NotPosed(
        "the right answer that is kept is a premise", lambda given: not checks.not_a_premise(given)
    ),
}
"""In every other task too, problems whose right answer is empty are left out: nothing can be told from no answer."""

NO_GOLD: Final[dict[str, str]] = {
    "boxnet": "the package keeps no right answer",
    "rush_hour": "the package keeps no right answer",
}
"""Tasks whose `gold` is an error; what they judge is found by playing the moves."""


def stricter(source: str) -> Stricter:
    """What a right answer of a task needs beside the scorer's full marks."""
    return STRICTER.get(source, Stricter(""))


def posed(source: str, gold: str | None, question: str) -> bool:
    """Whether a problem with this right answer is posed."""
    if gold is None:
        return True
    left_out = NOT_POSED.get(source)
    return bool(gold.strip()) and not (left_out is not None and left_out.applies(Given(gold, gold, question)))


__all__ = ["NOT_POSED", "NO_GOLD", "STRICTER", "Given", "NotPosed", "Stricter", "posed", "stricter"]
