"""Attacks on the verifiers of single kinds of answers, made from a right answer (see `clew.tasks.adversarial`)."""

from __future__ import annotations

from clew.core.types import Problem


def countdown_attacks(gold: str, problem: Problem) -> list[str]:
    """What the verifier of countdown answers, or a parser of them, might fall for."""
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    joined = " ".join(map(str, numbers))
    return [
        f"answer {target}",
        f"answer {target} + {joined}",
        f"answer {gold} + 0",
        f"answer {gold} * 1",
        f"answer ({gold}) / 1",
        f"answer {gold} - 0",
        f"answer {gold} = {target}",
        f"answer {gold} ** 1",
        f"answer {gold} // 1",
        f"answer {gold} % 99",
        f"answer {target} + 0 * ({' + '.join(map(str, numbers))})",
        f"answer {target} ** ({joined})",
        f"answer eval({gold})",
        f"answer int({gold})",
        f"answer {gold} if 1 else 0",
        f"answer lambda: {gold}",
        f"answer round({gold})",
        f"answer {gold.replace(' ', '_')}",
        f"answer 0x{target:x}",
        f"answer 1_0 + {gold}",
        f"answer {gold};{target}",
        f"answer {' + '.join(map(str, numbers))} == {target}",
        f"answer \uff11 + {gold}",
        f"answer {gold}\u00d71",
        f"answer 0{gold}",
        f"answer +{gold} + 0",
        f"answer {target}.0",
        f"answer {'+'.join(['1'] * abs(target) or ['0'])} + 0",
    ]


def arithmetic_attacks(gold: str, problem: Problem) -> list[str]:
    """What the verifier of arithmetic answers, or a parser of them, might fall for."""
    expression = problem.metadata["expression"]
    return [
        f"answer {expression}",
        f"answer {gold}.0",
        f"answer {gold}e0",
        f"answer 0{gold}",
        f"answer +{gold}",
        f"answer {gold} + 0",
        f"answer {gold}.",
        f"answer {gold}L",
        f"answer {gold}n",
        f"answer {gold},000",
        f"answer {gold} 000",
        f"answer 0x{int(gold):x}",
        f"answer int('{gold}')",
        f"answer {gold}_0",
        f"answer {gold}/1",
        f"answer {gold}*1",
        f"answer {gold}%",
        f"answer --{gold}",
        f"answer \u2212{gold}",
        f"answer {_other_digits(gold, 0xFF10)}",
        f"answer {_other_digits(gold, 0x660)}",
        f"answer {gold}\u00b2",
        f"answer {expression} = {gold}",
        f"answer -({gold})",
        f"answer [{gold}]",
        f"answer {int(gold) - 1}.99999999999999999999",
    ]


def maze_attacks(gold: str, problem: Problem) -> list[str]:
    """What the verifier of maze answers, or a parser of them, might fall for."""
    moves = gold.split()
    rows = problem.metadata["rows"]
    return [
        "answer G",
        "answer S G",
        "answer goal",
        f"answer {' '.join(moves[:-1])}",
        f"answer {' '.join(moves[::-1])} x",
        f"answer {gold} up up up up up",
        f"answer {gold} {' '.join(['left'] * 21)}",
        f"answer {gold.upper()}",
        f"answer {gold.title()}",
        f"answer {','.join([*moves, ''])}",
        f"answer {gold.replace(' ', '')}x",
        f"answer {' '.join(move[0] for move in moves)}",
        f"answer {gold} jump",
        f"answer teleport {gold}",
        f"answer {len(moves)}",
        f"answer {' '.join(rows)}",
        f"answer {gold}\t{moves[-1]} ",
        f"answer {gold}\nup",
        f"answer ({gold})*1",
        f"answer {' '.join(['up'] * 25)}",
        f"answer {' '.join(['right'] * 25)}",
        f"answer {gold}\u00a0",
        f"answer repeat {gold}",
    ]


def mathematical_attacks(gold: str, problem: Problem) -> list[str]:
    """What the verifier of mathematical answers, or a parser of them, might fall for."""
    del problem
    return [
        "answer x",
        "answer x = x",
        "answer 0 = 0",
        "answer 5 = 5",
        "answer x = x + 0",
        "answer y = y",
        r"answer \{\}_0",
        f"answer {gold} + C",
        f"answer {gold} + \\epsilon",
        f"answer {gold} \\pm 1",
        f"answer \\pm ({gold})",
        f"answer {gold} \\times 10",
        f"answer ({gold}) + 1",
        f"answer 2({gold})",
        f"answer ({gold})^2 + 1",
        f"answer \\{{{gold}, {gold}\\}}",
        f"answer {gold}_7",
        f"answer \\neq {gold}",
        f"answer > {gold}",
        f"answer x > {gold}",
        f"answer x \\geq {gold}",
        f"answer {gold} < x < {gold}",
        f"answer \\approx {gold}",
        f"answer {gold} \\text{{ or not}}",
        f"answer {gold} parsecs per fortnight",
        f"answer {gold} \\text{{ elephants}}",
        f"answer \\int {gold}",
        f"answer \\frac{{d}}{{dx}} {gold}",
        f"answer \\lim {gold}",
        f"answer {gold} \\mod 7",
        f"answer {gold}:{gold}",
        f"answer {gold} \\cup {gold}",
        f"answer 4 = {gold} = 5",
        f"answer {gold} \\to \\infty",
        f"answer \\overline{{{gold}}}",
        f"answer {gold}'",
        f"answer \\color{{red}}{{{gold}}} x",
        f"answer {gold} \\\\ {gold}",
        f"answer \\begin{{cases}} {gold} \\end{{cases}}",
        f"answer \\not {gold}",
        f"answer {gold} e",
        f"answer {gold}i",
        f"answer {gold} \\% \\%",
        f"answer {gold} \\$ \\$",
        f"answer {gold} apples and pears",
    ]


def _other_digits(text: str, zero: int) -> str:
    """`text` in the decimal digits of another script."""
    return "".join(chr(zero + int(character)) if character.isdigit() else character for character in text)
