"""Prompts as small models read them, and the words that are one token each."""

from __future__ import annotations

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clew.core.types import Message
from clew.initialize.chat import CHAT_TEMPLATE, render, render_problem
from clew.initialize.vocabulary import LARGEST_NUMBER, SPECIAL, words
from clew.models.tokenizer import build_tokenizer
from clew.tasks.countdown import Countdown

SYSTEM, USER = Message("system", "Be brief."), Message("user", "make 24 from 3 5 7 9")
ANSWER, AGAIN = Message("assistant", "answer 5"), Message("user", "go")


@pytest.mark.parametrize(
    ("messages", "mode", "expected"),
    [
        ([USER], "think", "<|user|> make 24 from 3 5 7 9<|think|>"),
        ([USER], "direct", "<|user|> make 24 from 3 5 7 9<|direct|>"),
        ([SYSTEM, USER], "think", "<|user|> make 24 from 3 5 7 9<|think|>"),
        (
            [SYSTEM, USER, ANSWER, AGAIN],
            "think",
            "<|user|> make 24 from 3 5 7 9<|think|> answer 5<|end|><|user|> go<|think|>",
        ),
        (
            [USER, ANSWER, AGAIN],
            "direct",
            "<|user|> make 24 from 3 5 7 9<|direct|> answer 5<|end|><|user|> go<|direct|>",
        ),
        ([], "think", "<|think|>"),
        ([Message("user", "{{ 1 }} <b>&")], "think", "<|user|> {{ 1 }} <b>&<|think|>"),
    ],
)
def test_rendering_is_the_hand_written_one_and_the_template_agrees(messages, mode, expected):
    assert render(messages, mode) == expected
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    turns = [message._asdict() for message in messages]
    assert template.render(messages=turns, mode=mode, add_generation_prompt=True) == expected
    if messages and mode == "think":
        tokenizer = build_tokenizer()
        assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected


def test_the_prompt_of_a_problem_shows_the_numbers_in_their_order_and_no_instructions():
    problem = Countdown().problem({"numbers": [9, 3, 7, 5], "target": 24})
    assert render_problem(problem) == "<|user|> make 24 from 9 3 7 5<|think|>"
    assert render_problem(problem, "direct") == "<|user|> make 24 from 9 3 7 5<|direct|>"


def test_every_word_is_a_single_token():
    tokenizer = build_tokenizer()
    for word in words():
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
    for word in SPECIAL:
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1, word
    assert len(tokenizer.encode(f" {LARGEST_NUMBER + 1}", add_special_tokens=False)) > 1


def test_no_word_is_listed_twice():
    assert len(set(words())) == len(words())


def test_a_countdown_prompt_costs_one_token_a_word():
    tokenizer = build_tokenizer()
    prompt = render_problem(Countdown().problem({"numbers": [9, 3, 7, 5], "target": 24}))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(prompt, add_special_tokens=False)) == [
        "<|user|>", "Ġmake", "Ġ24", "Ġfrom", "Ġ9", "Ġ3", "Ġ7", "Ġ5", "<|think|>",
    ]  # fmt: skip
