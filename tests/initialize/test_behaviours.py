"""The tagger: golden texts, spans that cover, counts and transitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.initialize.behaviours import CUES, Behaviour, count, tag, transitions

A, D, T, R, E, C = Behaviour  # completion is T for try, alternative R for or

OURS = (
    "have 9 7 5 3 plan 24 = 27 - 3 need 27 left 9 7 5 try 7 + 5 = 12 left 9 no or 9 - 7 = 2 left 5 no "
    "back try 5 * 3 = 15 yes answer 5"
)
ENGLISH = (
    "We need to make 24. First, look at the large numbers. Alternatively, start with 3. "
    "Let me compute 3 * 8. Wait, there is only one 3. Does this use every number? Yes."
)


def parts(text):
    return [(span.behaviour, text[span.start : span.stop]) for span in tag(text)]


def test_golden_in_our_words():
    assert parts(OURS) == [
        (A, "have 9 7 5 3 "),
        (D, "plan 24 = 27 - 3 need 27 left 9 7 5 "),
        (T, "try 7 + 5 = 12 left 9 "),
        (E, "no "),
        (R, "or 9 - 7 = 2 left 5 "),
        (E, "no "),
        (C, "back "),
        (T, "try 5 * 3 = 15 "),
        (E, "yes "),
        (T, "answer 5"),
    ]


def test_golden_in_english():
    assert parts(ENGLISH) == [
        (A, "We need to make 24. "),
        (D, "First, look at the large numbers. "),
        (R, "Alternatively, start with 3. "),
        (T, "Let me compute 3 * 8. "),
        (C, "Wait, there is only one 3. "),
        (E, "Does this use every number? "),
        (E, "Yes."),
    ]


@pytest.mark.parametrize("behaviour", Behaviour)
def test_every_cue_is_found_in_any_case_and_between_punctuation(behaviour):
    for cue in CUES[behaviour]:
        for text in (cue, cue.upper(), f"({cue})", f"2 {cue}\n3"):
            assert [s.behaviour for s in tag(text) if s.behaviour] == [behaviour], text


@pytest.mark.parametrize(
    "text",
    ["notable", "trying", "backwards", "or-else", "x-try", "yesterday", "_no", "shave", "step 12", "éno", "2no"],
)
def test_part_of_a_word_is_no_cue(text):
    assert tag(text) == [(None, 0, len(text))]


def test_text_before_the_first_cue_shows_nothing():
    assert parts("so try it") == [(None, "so "), (T, "try it")]
    assert tag("") == []
    assert tag(" ") == [(None, 0, 1)]


@pytest.mark.parametrize("text", ["ye\u017f", "bac\u212a", "wa\u0131t", "ALTERNAT\u0130VELY", "ye\u0301s"])
def test_letters_that_only_look_alike_are_no_cue(text):
    """Long s, Kelvin sign, dotless and dotted i: Unicode's rules for ignoring case would let them match."""
    assert [s.behaviour for s in tag(text)] == [None]


cues = st.sampled_from([cue for group in CUES.values() for cue in group])
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.one_of(cues, st.sampled_from([*" .-\n_\u0130\u017f\u212a", "12"])), max_size=15).map("".join),
    st.lists(st.one_of(cues, st.text(max_size=4)), max_size=15).map(" ".join),
)


@given(texts)
def test_spans_cover_the_text_exactly_once_and_begin_with_a_cue(text):
    spans = tag(text)
    assert "".join(text[s.start : s.stop] for s in spans) == text
    assert [s.start for s in spans] == [0, *(s.stop for s in spans[:-1])][: len(spans)]
    assert all(s.start < s.stop for s in spans)
    for at, span in enumerate(spans):
        if span.behaviour is None:
            assert at == 0
        else:
            said = text[span.start : span.stop].lower()
            assert any(said.startswith(cue) for cue in CUES[span.behaviour])


@given(st.lists(cues, max_size=8))
def test_spaced_cues_are_all_counted(said):
    expected = [b for cue in said for b in Behaviour if cue in CUES[b]]
    # "," joins the cues so that two of them never make a third, nor one with its own comma.
    assert [s.behaviour for s in tag(" , ".join(said))] == expected


def test_counts_and_transitions_are_those_of_the_golden():
    assert count([OURS]) == {A: 1, D: 1, T: 3, E: 3, R: 1, C: 1}
    once = [(A, D), (D, T), (E, R), (R, E), (E, C), (C, T), (E, T)]
    assert transitions([OURS]) == {(T, E): 2, **dict.fromkeys(once, 1)}
    assert count([OURS, OURS, "nothing"]) == {A: 2, D: 2, T: 6, E: 6, R: 2, C: 2}


def test_no_transition_from_one_text_to_the_next():
    assert transitions(["no", "back"]) == {}
    assert transitions(["no back", "no"]) == {(E, C): 1}


@given(st.lists(texts, max_size=4))
def test_each_text_has_one_transition_less_than_behaviours(several):
    chains = [[s.behaviour for s in tag(t) if s.behaviour] for t in several]
    assert transitions(several).total() == sum(max(0, len(chain) - 1) for chain in chains)
    assert count(several).total() == sum(map(len, chains))
