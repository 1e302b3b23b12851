"""Numbers that stand for paths of tokens: a set of them remembers paths without holding their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def digests_below(digest: int, tokens: Sequence[int]) -> Iterator[int]:
    """Of every path that goes on with `tokens` from the path with `digest`."""
    for token in tokens:
        digest = hash((digest, token))
        yield digest


def digests_after(digests: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Of the paths that go on from those with `digests` with one of `tokens` each."""
    return [hash(path) for path in zip(digests, tokens, strict=True)]
