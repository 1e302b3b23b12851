"""The expression parser, its values and its canonical form."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.tasks.expression import (
    MAX_DEPTH,
    MAX_LENGTH,
    Binary,
    Node,
    NotAnExpression,
    Number,
    Reading,
    canonical,
    evaluate,
    leaves,
    parse,
    read,
)

NODES: st.SearchStrategy[Node] = st.recursive(
    st.integers(0, 12).map(Number),
    lambda nodes: st.builds(Binary, st.sampled_from("+-*/"), nodes, nodes),
    max_leaves=7,
)


def written(node: Node) -> str:
    """Every operation in brackets."""
    return str(node.value) if isinstance(node, Number) else f"({written(node.left)} {node.op} {written(node.right)})"


def reference_value(node: Node) -> Fraction | None:
    """Integer cross-multiplication, without the operators of `Fraction`."""
    if isinstance(node, Number):
        return Fraction(node.value)
    left, right = reference_value(node.left), reference_value(node.right)
    if left is None or right is None:
        return None
    a, b, c, d = left.numerator, left.denominator, right.numerator, right.denominator
    numerator, denominator = {"+": (a * d + c * b, b * d), "-": (a * d - c * b, b * d), "*": (a * c, b * d)}.get(
        node.op, (a * d, b * c)
    )
    return Fraction(numerator, denominator) if denominator else None


def reassociated(node: Node, rng: random.Random) -> Node:
    """An equal answer: random uses of the commutative and associative laws, all the way down."""
    if isinstance(node, Number):
        return node
    op, left, right = node.op, reassociated(node.left, rng), reassociated(node.right, rng)
    if op in "+*" and rng.random() < 0.5:
        left, right = right, left
    plus, minus = ("+", "-") if op in "+-" else ("*", "/")
    if isinstance(right, Binary) and right.op in (plus, minus) and rng.random() < 0.7:
        # x op (b p c) becomes (x op b) q c; for an inverse op the inner operation is inverted.
        inner = right.op if op == plus else (minus if right.op == plus else plus)
        return Binary(inner, Binary(op, left, right.left), right.right)
    if isinstance(left, Binary) and left.op in (plus, minus) and rng.random() < 0.5:
        # (a p b) op c becomes (a op c) p b.
        return Binary(left.op, Binary(op, left.left, right), left.right)
    return Binary(op, left, right)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", Fraction(7)),
        ("0", Fraction(0)),
        ("2+3*4", Fraction(14)),
        ("(2+3)*4", Fraction(20)),
        ("8-3-2", Fraction(3)),
        ("8-(3-2)", Fraction(7)),
        ("8/4/2", Fraction(1)),
        ("8/(4/2)", Fraction(4)),
        ("2*3/4", Fraction(3, 2)),
        ("1-2", Fraction(-1)),
        (" ( ( 5 ) ) ", Fraction(5)),
        ("1/3+1/6", Fraction(1, 2)),
        ("5/(3-3)", None),
        ("1/(2/(3-3))", None),
        ("0/(3-3)", None),
        ("(3-3)/5", Fraction(0)),
    ],
)
def test_value(text: str, value: Fraction | None) -> None:
    assert evaluate(parse(text)) == value


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["3+5", "5+3", "(5)+(3)"], "3 + 5"),
        (["(9-5)+2", "2+9-5", "2-5+9", "9-(5-2)", "2-(5-9)"], "2 + 9 - 5"),
        (["6/(2/3)", "6*3/2", "3/2*6", "3/(2/6)"], "3 * 6 / 2"),
        (["8/4/2", "8/(4*2)", "8/(2*4)"], "8 / 2 / 4"),
        (["(3+5)*11", "11*(5+3)"], "11 * (3 + 5)"),
        (["10+9", "9+10"], "9 + 10"),
        (["8-2*3", "8-3*2"], "8 - 2 * 3"),
        (["(8-2)*3"], "3 * (8 - 2)"),
        (["8/(5-3)", "(8)/((5)-3)"], "8 / (5 - 3)"),
    ],
)
def test_canonical_form(texts: list[str], form: str) -> None:
    assert {canonical(parse(text)) for text in texts} == {form}


@pytest.mark.parametrize(
    ("one", "other"),
    [("8-3", "3-8"), ("8/3", "3/8"), ("2*3+4", "2*(3+4)"), ("8-3-2", "8-(3-2)"), ("2*2", "2+2"), ("4/2/2", "4/(2/2)")],
)
def test_different_answers_keep_different_forms(one: str, other: str) -> None:
    assert canonical(parse(one)) != canonical(parse(other))


@given(NODES)
def test_value_agrees_with_the_reference(node: Node) -> None:
    assert evaluate(node) == reference_value(node)


@given(NODES)
def test_writing_and_parsing_round_trips(node: Node) -> None:
    assert parse(written(node)) == node
    assert read(written(node)) == Reading(canonical(node), tuple(leaves(node)), evaluate(node))


@given(NODES)
def test_leaves_are_the_written_numbers(node: Node) -> None:
    digits = "".join(character if character.isdigit() else " " for character in written(node))
    assert leaves(node) == [int(number) for number in digits.split()]


@given(NODES)
def test_canonical_text_keeps_value_and_numbers_and_is_a_fixed_point(node: Node) -> None:
    text = canonical(node)
    again = parse(text)
    assert canonical(again) == text
    assert sorted(leaves(again)) == sorted(leaves(node))
    if evaluate(node) is not None:
        assert evaluate(again) == evaluate(node)


@given(NODES, st.randoms(use_true_random=False))
def test_canonical_form_is_invariant_under_commuting_and_regrouping(node: Node, rng: random.Random) -> None:
    other = reassociated(node, rng)
    assert canonical(other) == canonical(node)


def test_canonical_form_of_flat_chains_is_complete() -> None:
    """Over symbols read as variables, two flat chains are equal exactly if their forms are (three operands)."""
    points = [(2, 3, 5), (7, 11, 13), (17, 4, 9)]
    for operators in ("+-", "*/"):
        seen: dict[tuple[Fraction | None, ...], set[str]] = {}
        for first, second, left_first in product(operators, operators, (True, False)):
            for a, b, c in ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx"):
                shape = f"({a}{first}{b}){second}{c}" if left_first else f"{a}{first}({b}{second}{c})"
                texts = [shape.translate(str.maketrans(dict(zip("xyz", map(str, p), strict=True)))) for p in points]
                key = tuple(evaluate(parse(text)) for text in texts)
                seen.setdefault(key, set()).add(canonical(parse(texts[0])))
        assert all(len(forms) == 1 for forms in seen.values())
        assert len({next(iter(forms)) for forms in seen.values()}) == len(seen)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "-3",
        "+3",
        "3+",
        "3 4",
        "(3",
        "3)",
        "()",
        "3()",
        "(3)(4)",
        "2(3)",
        "2**3",
        "2* *3",
        "7//2",
        "7/ /2",
        "3+-4",
        "3--4",
        "3.0",
        "3.",
        ".5",
        "1e3",
        "0x3",
        "1_0",
        "3j",
        "007",
        "00",
        "x",
        "3+x",
        "abs(3)",
        "3%2",
        "3^2",
        "3\t+4",
        "3\n+4",
        "3\u00a0+4",
        "\uff13",
        "\u0663",
        "\u00b2",
        "3\u00d74",
        "3\u22124",
        "3\u200b+4",
        "3\x00",
        "3;4",
        "\ud800",
        "3=3",
        "3,4",
        "[3]",
        "{3}",
        "3!",
        "~3",
        "3<<1",
        "3if 1else 4",
        "True",
        "3#",
        "'3'",
        "`3`",
        "3and4",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(NotAnExpression) as caught:
        parse(text)
    assert 0 < len(str(caught.value)) < 60
    assert str(caught.value).isascii()
    assert read(text) == str(caught.value)


def test_limits_of_depth_and_length() -> None:
    assert evaluate(parse("(" * MAX_DEPTH + "3" + ")" * MAX_DEPTH)) == 3
    deeper = "(" * (MAX_DEPTH + 1) + "3" + ")" * (MAX_DEPTH + 1)
    assert read(deeper) == f"more than {MAX_DEPTH} brackets deep"
    longest = "1" + "+1" * ((MAX_LENGTH - 1) // 2)
    assert evaluate(parse(longest)) == (MAX_LENGTH + 1) // 2
    assert read(longest + "+1") == f"longer than {MAX_LENGTH} characters"


@given(st.text(alphabet="0123456789+-*/() ", max_size=40))
def test_parser_accepts_exactly_what_python_reads_without_the_banned_forms(text: str) -> None:
    """Python's own grammar as the reference, on the permitted characters."""
    import ast

    try:
        tree: ast.AST | None = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, MemoryError):
        tree = None
    banned = tree is None or any(
        isinstance(n, ast.UnaryOp | ast.Pow | ast.FloorDiv | ast.Call | ast.Tuple) for n in ast.walk(tree)
    )
    words = "".join(c if c.isdigit() else " " for c in text).split()
    banned = banned or any(len(word) > 1 and word[0] == "0" for word in words)
    assert isinstance(read(text), str) == banned
