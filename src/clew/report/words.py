"""Numbers as text: percentages with intervals, durations, counts."""

from __future__ import annotations

from clew.report.data import Rate

NONE = "\N{EN DASH}"
"""What stands in a table where nothing was measured."""

LABELS = {
    "pretrain": "pre-training",
    "sft": "SFT",
    "expert_iteration": "expert iteration",
    "rl": "RL",
    "dpo": "DPO",
    "star": "STaR",
    "rest_em": "ReST-EM",
    "rft": "RFT",
    "v_star": "V-STaR",
    "bond": "BOND",
}

ROUND = "round-"
"""How the stages of a loop begin."""


def stage_label(name: str) -> str:
    """The name of a stage as readers know it.

    >>> stage_label("expert_iteration"), stage_label("my_stage"), stage_label("round-02")
    ('expert iteration', 'my stage', 'round 2')
    """
    if name.startswith(ROUND) and name.removeprefix(ROUND).isdecimal():
        return f"round {int(name.removeprefix(ROUND))}"
    return LABELS.get(name, name.replace("_", " "))


def percent(value: float) -> str:
    """A proportion as a percentage with one decimal.

    >>> percent(0.5283)
    '52.8\xa0%'
    """
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def interval(rate: Rate) -> str:
    """The 95 % interval of `rate`, in percent.

    >>> interval(Rate(0.528, 0.499, 0.557, 512))
    '49.9 to 55.7'
    """
    return f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"


def with_interval(rate: Rate) -> str:
    """`rate` and its interval in one phrase for a sentence."""
    return f"{percent(rate.mean)} ({interval(rate)})"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter.

    >>> duration(4.25), duration(119.8), duration(583), duration(7260)
    ('4.2 s', '2 min 0 s', '9 min 43 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: float) -> str:
    """A count with a thousands, millions or billions suffix, three significant digits.

    >>> count(87), count(1234), count(999_960), count(18_250_000)
    ('87', '1.23 k', '1.00 M', '18.2 M')
    """
    if abs(value) < 999.5:
        return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.1f}"
    for size, suffix in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        scaled = value / size
        if abs(scaled) < 999.5 or suffix == "G":
            break
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{digits}f} {suffix}"


def clipped(text: str, most: int = 32) -> str:
    """`text`, or its beginning and an ellipsis.

    >>> clipped("division", 5)
    'divi…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short(value: float) -> str:
    """A measured value in three significant digits.

    >>> short(0.4651), short(40512.0), short(-3.0)
    ('0.465', '40.5 k', '-3')
    """
    return count(value) if abs(value) >= 999.5 else f"{value:.3g}"


def listed(parts: list[str]) -> str:
    """Words in a row as English joins them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
