"""A byte-level tokenizer in which small numbers and the words of the behaviours are single tokens.

The model is BPE without merges: a piece of text that stands in the vocabulary is one token, any
other is spelled in bytes, so every text round-trips exactly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from clew.core.errors import CheckpointError
from clew.initialize.chat import CHAT_TEMPLATE
from clew.initialize.vocabulary import END, PAD, SPECIAL, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Token string (byte-level alphabet, a space is `Ġ`) to id: special tokens, bytes, words."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(f"Ġ{word}" for word in words())]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of clew's own small models, ready for `save_pretrained`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab=vocabulary(), merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
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
        self._word_ids = {token.removeprefix("Ġ"): index for token, index in vocab.items() if token.startswith("Ġ")}
        self.end_id: int = vocab[END]

    def encode_words(self, text: str) -> list[int]:
        """Ids of `text` written with a space in front of each word."""
        table = self._word_ids
        try:
            return [table[word] for word in text.split(" ")]
        except KeyError:
            return list(self.tokenizer.encode(f" {text}", add_special_tokens=False))

    def decode(self, tokens: tuple[int, ...]) -> str:
        """Text of `tokens` without special tokens and without the leading space."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).removeprefix(" ")
