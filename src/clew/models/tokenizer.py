"""A byte-level tokenizer in which words of the behaviours, small numbers, and operators with their number are tokens.

The model is BPE without merges: a piece of text that stands in the vocabulary is one token, any
other is spelled in bytes, so every text round-trips exactly.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from clew.core.errors import CheckpointError
from clew.initialize.chat import CHAT_TEMPLATE
from clew.initialize.vocabulary import END, OPERATORS, PAD, SPECIAL, phrases, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PHRASE = rf" [{re.escape(''.join(OPERATORS))}] (?:0|[1-9][0-9]?)(?!\p{{N}})"
_PIECE = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 divides text (Radford et al. 2019)."""

_SPECIAL = re.compile(f"({'|'.join(map(re.escape, SPECIAL))})")


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Token string (byte-level alphabet, a space is `Ġ`) to id: special tokens, bytes, words, phrases."""
    from tokenizers.pre_tokenizers import ByteLevel

    spaced = (f" {text}".replace(" ", "Ġ") for text in (*words(), *phrases()))
    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), *spaced]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of clew's own small models, ready for `save_pretrained`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab=vocabulary(), merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"{_PHRASE}|{_PIECE}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


class FastCodec:
    """Encodes space-separated known words by table look-up, any other text by the tokenizer: same ids, much faster."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        vocab = tokenizer.get_vocab()
        if END not in vocab:
            raise CheckpointError(
                f"the tokenizer has no token {END}",
                "the tokenizer of clew's own small models",
                "choose a checkpoint that clew trained",
            )
        self._ids = {token[1:].replace("Ġ", " "): index for token, index in vocab.items() if token.startswith("Ġ")}
        self._special = {token: vocab[token] for token in SPECIAL}
        self.end_id: int = vocab[END]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, which may hold special tokens."""
        ids: list[int] = []
        for part in filter(None, _SPECIAL.split(text)):
            if part in SPECIAL:
                ids.append(self._special[part])
            elif part.startswith(" "):
                ids += self.encode_words(part[1:])
            else:
                ids += self.tokenizer.encode(part, add_special_tokens=False)
        return ids

    def encode_words(self, text: str) -> list[int]:
        """Ids of `text` written with a space in front of each word."""
        table = self._ids
        words = text.split(" ")
        ids: list[int] = []
        at = 0
        while at < len(words):
            phrase = table.get(" ".join(words[at : at + 2])) if words[at] in OPERATORS else None
            token = table.get(words[at]) if phrase is None else phrase
            if token is None:
                return list(self.tokenizer.encode(f" {text}", add_special_tokens=False))
            ids.append(token)
            at += 1 if phrase is None else 2
        return ids

    def decode(self, tokens: tuple[int, ...]) -> str:
        """Text of `tokens` without special tokens and without the leading space."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).removeprefix(" ")
