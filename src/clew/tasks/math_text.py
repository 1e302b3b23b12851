r"""Mathematical answers as text: one spelling for what is written alike, and what may stand in an answer at all.

Nothing here computes. What is outside of the alphabet below never reaches a parser, because parsers read something into
everything: to them `Monday` is a product of six variables and `1 2` is 3.
"""

from __future__ import annotations

import math
import re

MAX_NESTING = 20
"""Brackets inside each other; deeper ones are a bomb, not an answer."""
MAX_OPERATIONS = 100
MAX_TOWER = 3
"""Powers of powers."""
MAX_EXPONENT_DIGITS = 4
_MAX_POWER = 20_000

_SIGNS = {
    "\u00d7": r"\times ",
    "\u00b7": r"\cdot ",
    "\u00f7": "/",
    "\u221a": r"\sqrt ",
    "\u221e": r"\infty ",
    "\u03c0": r"\pi ",
    "\u2264": r"\le ",
    "\u2265": r"\ge ",
    "\u2260": r"\ne ",
    "\u222a": r"\cup ",
    "\u2229": r"\cap ",
    "\u2208": r"\in ",
    "\u00b0": r"^\circ ",
    "\u00b1": r"\pm ",
    "\u2205": r"\emptyset ",
    "\u00bd": r"\frac{1}{2}",
    "\u2153": r"\frac{1}{3}",
    "\u00bc": r"\frac{1}{4}",
    "\u00be": r"\frac{3}{4}",
}
_MINUSES = "\u2212\u2013\u2010\u2011"
_SPACES = "\t\r\n\u00a0\u2009\u202f"
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_CHARACTERS = str.maketrans(
    _SIGNS
    | dict.fromkeys(_MINUSES, "-")
    | dict.fromkeys(_SPACES, " ")
    | {letter: f"^{{{digit}}}" for digit, letter in enumerate(_SUPERSCRIPTS)}
)
_REWRITTEN = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|textstyle|limits)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9A-Za-z])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}"),
        (r"\\(?:mathrm|textrm|textbf|textit|mathbf|mathit|mbox|operatorname)(?![A-Za-z])", r"\\text"),
        (r"\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*\}", " , "),
        (r"(?<=[0-9])\s*(?:\\[,!]|\{,\})\s*(?=[0-9]{3}(?![0-9]))", ","),
        (r"(?<!\\)\\[,!;: ]|\\q?quad(?![A-Za-z])", " "),
        (r"([\^_])\{([0-9A-Za-z])\}(?![0-9])", r"\1\2"),
        (r"\\leq(?![A-Za-z])", r"\\le"),
        (r"\\geq(?![A-Za-z])", r"\\ge"),
        (r"\\neq(?![A-Za-z])", r"\\ne"),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"\*\*", "^"),
        (r"(?<![\\A-Za-z])(sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi)(?![A-Za-z])", r"\\\1"),
        (r"(?<![\\A-Za-z])(?:oo|inf|infty|infinity)(?![A-Za-z])", r"\\infty"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<=[^\s~])~(?=[^\s~])", " "),
        (r"\s+", " "),
        (r" (?=\\(?!\\))", ""),
        (r"\s*([-+*/^_=<>,;|!()\[\]{}])\s*", r"\1"),
    )
]
_COMMANDS = frozenset(
    re.findall(
        "[A-Za-z]+",
        "frac sqrt pi infty emptyset times cdot div pm mp cup cap setminus in le ge ne sin cos tan cot sec csc arcsin "
        "arccos arctan sinh cosh tanh log ln exp binom lfloor rfloor lceil rceil alpha beta gamma delta epsilon theta "
        "lambda mu nu rho sigma tau phi varphi omega Delta Omega circ begin end text mathbb",
    )
)
_ENVIRONMENTS = re.compile(r"\\(?:begin|end)\{(?:[pbv]?matrix|array)\}")
_TOKENS = re.compile(
    r"\\(?P<command>[A-Za-z]+)|\\\\|\\[{}%|]|[0-9]*\.?[0-9]+|(?P<word>[A-Za-z]+)|[-+*/^_=<>()\[\]{},;|!& %]"
)
_MAX_PRODUCT = 3
"""Letters side by side that are a product of variables (`xyz`); more are a word."""
_WORDS = re.compile("and|or|not?|yes|is|are|the|any|all|for|on|off|to|of|as|at|by|if|in|it|so|we", re.IGNORECASE)
_SIDE_BY_SIDE = re.compile(r"[0-9}] +[0-9.]|\} ?[0-9]|[0-9]\.(?![0-9])|[0-9]_")


def normalised(text: str) -> str:
    r"""`text` in one spelling: `\dfrac`, `\left(`, thin spaces, Unicode signs and `sqrt(2)` are written one way.

    >>> normalised(r"\dfrac{1}{2} - \left( x \right)"), normalised("1{,}000"), normalised("\u221a2 \u2264 x")
    ('\\frac{1}{2}-(x)', '1,000', '\\sqrt{2}\\le x')
    """
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text.strip()


def plain_words(text: str) -> str:
    r"""`text` for comparing words: without `\text`, braces and case, with single spaces.

    >>> plain_words(r"\text{No  Solution}")
    'no solution'
    """
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    return " ".join(text.casefold().split())


def fault(text: str) -> str:
    """Why normalised `text` is not one mathematical expression, in a few words; empty if it may be one."""
    position = 0
    bare = _ENVIRONMENTS.sub("", text)
    while position < len(bare):
        match = _TOKENS.match(bare, position)
        if match is None:
            return f"unexpected {bare[position]!a}"
        if match["command"] and match["command"] not in _COMMANDS:
            return f"unexpected \\{match['command'][:20]}"
        if match["word"] and (len(match["word"]) > _MAX_PRODUCT or _WORDS.fullmatch(match["word"])):
            return f"the word {match['word'][:20]!r}"
        position = match.end()
    if "\\text" in text:
        return "words"
    if "++" in text or "--" in text:
        return "signs side by side"
    return _bomb(text) or ("numbers side by side" if _numbers_side_by_side(text) else "")


def _numbers_side_by_side(text: str) -> bool:
    """Whether a parser would have to guess what stands between two numbers."""
    text = re.sub(r"(?:\\\\|&)", ",", _ENVIRONMENTS.sub(" ", text))
    text = re.sub(r"\\log_(?:\{[^{}]*\}|[0-9a-z])", r"\\log ", text)
    return bool(_SIDE_BY_SIDE.search(text))


def _bomb(text: str) -> str:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
        if depth < 0:
            return "a bracket is closed that was not opened"
    if depth:
        return "a bracket is not closed"
    if deepest > MAX_NESTING:
        return f"more than {MAX_NESTING} brackets deep"
    if len(re.findall(r"[-+*/^]|\\\\(?:frac|sqrt|cdot|times)", text)) > MAX_OPERATIONS:
        return f"more than {MAX_OPERATIONS} operations"
    if text.count("^") > MAX_TOWER and re.search(r"(?:\^[-{(0-9a-z\s]*){4}", text):
        return "a tower of powers"
    if re.search(rf"\^[-+{{(]*[0-9]{{{MAX_EXPONENT_DIGITS + 1},}}|[0-9]{{5,}}\)?!|!!|[0-9]{{401,}}", text):
        return "too large to be computed"
    if _power(text) > _MAX_POWER or re.search(r"\\binom\{[^{}]*[0-9]{5,}", text):
        return "too large to be computed"
    if re.search(r"\^\{?\(?[0-9]{2,}\}?\)?!|\^[{(]*[0-9]+\^", text):
        return "too large to be computed"
    return ""


def _power(text: str) -> int:
    """The largest exponent that powers of powers could come to."""
    exponents = re.findall(r"([)}]?)\^[{(]*([0-9]{1,5})", text)
    within = max((int(exponent) for bracket, exponent in exponents if not bracket), default=1)
    return within * math.prod(int(exponent) for bracket, exponent in exponents if bracket)


def repeats(answer: str, question: str, gold: str) -> bool:
    """Whether `answer` (normalised) is a computation that the question already states, which `gold` is not."""
    if answer == gold or not re.search(r"[-+*/^!]|\\(?:frac|sqrt|times|cdot|div|log|ln|sin|cos|tan|binom)", answer[1:]):
        return False
    asked = re.sub(r"[\s{}]|\\(?:times|cdot)", "", normalised(question[:20_000]))
    return re.sub(r"[\s{}]|\\(?:times|cdot)", "", answer) in asked
