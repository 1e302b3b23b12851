"""Every text round-trips, words and phrases are one token, and the fast paths give what the slow ones give."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from clew.core.errors import CheckpointError
from clew.core.types import Message
from clew.initialize.chat import CHAT_TEMPLATE, render
from clew.initialize.vocabulary import END, OPERATORS, SPECIAL, phrases, words
from clew.models.tokenizer import FastCodec, build_tokenizer, vocabulary

TOKENIZER = build_tokenizer()
CODEC = FastCodec(TOKENIZER)

texts = st.text() | st.text(alphabet=" \t\n\r\v\f\u00a0\u2003\u200b\x00\x1f\x7f", max_size=12)
messages = st.lists(
    st.builds(
        Message, st.sampled_from(["system", "user", "assistant"]), st.text(alphabet="make 3 5\n{}'\"<&é", max_size=20)
    ),
    min_size=1,
    max_size=5,
)


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


@given(texts)
@example("")
@example(" ")
@example("👩‍👩‍👧‍👦 é\u0301 \x00\x07\u2028")
@example("make 24 from 3 5 7 9")
def test_any_text_round_trips_exactly(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@pytest.mark.parametrize("word", words())
def test_every_word_with_a_space_in_front_is_one_token(word: str) -> None:
    assert encode(f" {word}") == [vocabulary()[f"Ġ{word}"]]


@pytest.mark.parametrize("phrase", phrases())
def test_an_operator_and_its_number_are_one_token(phrase: str) -> None:
    assert encode(f" {phrase}") == [vocabulary()[f" {phrase}".replace(" ", "Ġ")]]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" try 72 + 8 = 80 no", ["Ġtry", "Ġ72", "Ġ+Ġ8", "Ġ=Ġ80", "Ġno"]),
        (" 3 * ( 5 + 7 )", ["Ġ3", "Ġ*", "Ġ(", "Ġ5", "Ġ+Ġ7", "Ġ)"]),
        (" = 100", ["Ġ=", "Ġ", "1", "0", "0"]),
        (" + 07", ["Ġ+", "Ġ", "0", "7"]),
        (" - 5٣", ["Ġ-", "Ġ", "5", "Ù", "£"]),
        (" +  8", ["Ġ+", "Ġ", "Ġ8"]),
        ("+ 8", ["+", "Ġ8"]),
        (" + 8 8", ["Ġ+Ġ8", "Ġ8"]),
    ],
)
def test_only_a_single_number_joins_its_operator(text: str, tokens: list[str]) -> None:
    assert TOKENIZER.convert_ids_to_tokens(encode(text)) == tokens


@pytest.mark.parametrize("token", SPECIAL)
def test_every_special_token_is_one_token_and_is_skipped_in_decoding(token: str) -> None:
    assert encode(f"{token} 7") == [vocabulary()[token], vocabulary()["Ġ7"]]
    assert CODEC.decode(tuple(encode(f" 7{token}"))) == "7"


def test_the_vocabulary_is_a_bijection_onto_a_range() -> None:
    table = vocabulary()
    assert sorted(table.values()) == list(range(len(table)))
    assert len(TOKENIZER) == len(table) == len(SPECIAL) + 256 + len(set(words())) + len(phrases())


@given(st.lists(st.sampled_from(words()), min_size=1, max_size=20))
def test_the_fast_codec_equals_the_tokenizer_on_known_words(chosen: list[str]) -> None:
    text = " ".join(chosen)
    assert CODEC.encode_words(text) == encode(f" {text}")
    joined = sum(a in OPERATORS and b.isdecimal() for a, b in pairwise(chosen))
    assert len(CODEC.encode_words(text)) == len(chosen) - joined


@given(
    st.text(max_size=20) | st.lists(st.sampled_from([*words(), "256", "07", "", "\n", "hello", *SPECIAL])).map(" ".join)
)
@example("")
@example("3  5")
@example("3 5 ")
def test_the_fast_codec_equals_the_tokenizer_on_any_text(text: str) -> None:
    assert CODEC.encode_words(text) == encode(f" {text}")


def test_a_tokenizer_without_the_end_token_is_refused() -> None:
    class Foreign:
        def get_vocab(self) -> dict[str, int]:
            return {"Ġ7": 0}

    with pytest.raises(CheckpointError, match="what to do"):
        FastCodec(Foreign())  # type: ignore[arg-type]


@given(messages, st.sampled_from(["think", "direct"]))
@example([Message("user", "make 24 from 3 5 7 9")], "think")
@example([Message("user", "compute 3 + 4")], "direct")
def test_the_fast_codec_equals_the_tokenizer_on_prompts(turns: list[Message], mode: str) -> None:
    assert CODEC.encode(render(turns, mode)) == encode(render(turns, mode))


@given(st.lists(st.sampled_from([*words()[:20], *SPECIAL, " ", "  ", "<|", "|>", "x", "+ 8", ""]), max_size=12))
def test_the_fast_codec_equals_the_tokenizer_around_special_tokens(parts: list[str]) -> None:
    for text in ("".join(parts), " ".join(parts)):
        assert CODEC.encode(text) == encode(text)


@given(messages, st.sampled_from(["think", "direct"]))
def test_render_is_the_chat_template(turns: list[Message], mode: str) -> None:
    expected = TOKENIZER.apply_chat_template(
        [turn._asdict() for turn in turns], tokenize=False, add_generation_prompt=True, mode=mode
    )
    assert render(turns, mode) == expected


def test_the_two_modes_as_text() -> None:
    turns = [Message("system", "be brief"), Message("user", "make 24 from 3 5 7 9")]
    assert render(turns, "think") == "<|user|> make 24 from 3 5 7 9<|think|>"
    assert render(turns, "direct") == "<|user|> make 24 from 3 5 7 9<|direct|>"


def test_the_template_without_a_generation_prompt_ends_a_training_example() -> None:
    turns = [{"role": "user", "content": "make 8 from 3 5"}, {"role": "assistant", "content": "answer 3 + 5"}]
    text = TOKENIZER.apply_chat_template(turns, tokenize=False, mode="direct")
    assert text == f"<|user|> make 8 from 3 5<|direct|> answer 3 + 5{END}"


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def test_the_reloaded_tokenizer_has_the_same_tokens_and_template(reloaded: Any) -> None:
    assert reloaded.get_vocab() == vocabulary()
    assert reloaded.chat_template == CHAT_TEMPLATE
    assert (reloaded.eos_token_id, reloaded.pad_token_id) == (vocabulary()[END], 0)


@given(text=texts | st.lists(st.sampled_from([*words(), *SPECIAL])).map(" ".join))
def test_the_reloaded_tokenizer_encodes_and_decodes_alike(reloaded: Any, text: str) -> None:
    ids = encode(text)
    assert reloaded.encode(text, add_special_tokens=False) == ids
    assert reloaded.decode(ids) == TOKENIZER.decode(ids)
