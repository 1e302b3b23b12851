"""Plain values as JSON and back: how a test and the function it tests exchange arguments and answers.

What arrives is of built-in types only, whatever was sent: an object of the program's own class, whose comparison may
lie, becomes the plain value it holds or an `Opaque` that equals nothing. Nothing is unpickled or evaluated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_VALUES = 200_000
"""Numbers, texts and containers in one message."""
MAX_DEPTH = 100
_SMALL = 2**63


class Unsendable(Exception):
    """A value is too large, too deep, or what was received is not an encoded value."""


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """What cannot be sent. It equals nothing but itself."""

    type_name: str


@dataclass(slots=True)
class _Count:
    left: int = field(default=MAX_VALUES)

    def one(self, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise Unsendable(f"more than {MAX_VALUES} values, or nested deeper than {MAX_DEPTH}")


def encode(value: object) -> Any:
    """What `json.dumps` can write; raises `Unsendable` for what is too large.

    >>> encode((1, {2}))
    {'t': [1, {'s': [2]}]}
    """
    return _encode(value, _Count(), 0)


def _encode(value: object, count: _Count, depth: int) -> Any:
    count.one(depth)
    if value is None or isinstance(value, bool | str | float):
        return _plain(value)
    if isinstance(value, int):
        plain = int(value)
        return plain if -_SMALL < plain < _SMALL else {"i": hex(plain)}
    if isinstance(value, list):
        return [_encode(v, count, depth + 1) for v in value]
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, range):
        return {"r": [_encode(n, count, depth) for n in (value.start, value.stop, value.step)]}
    return _encode_container(value, count, depth)


def _plain(value: object) -> object:
    """`value` without the subclass it may be of."""
    for kind in (str, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _encode_container(value: object, count: _Count, depth: int) -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = ([_encode(k, count, depth + 1), _encode(v, count, depth + 1)] for k, v in value.items())
        return {"d": list(pairs)}
    for tag, kind in (("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return {tag: [_encode(v, count, depth + 1) for v in value]}
    if isinstance(value, Iterator):
        held = itertools.islice(value, MAX_VALUES)
        return {"n": [_encode(v, count, depth + 1) for v in held]}
    return {"o": type(value).__name__[:80]}


def decode(encoded: object) -> Any:
    """The value that `encode` was given; raises `Unsendable` for anything that `encode` cannot have made.

    >>> decode({"t": [1, {"s": [2]}]})
    (1, {2})
    """
    try:
        return _decode(encoded, _Count(), 0)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise Unsendable(f"not an encoded value: {error}") from None


def _decode(encoded: Any, count: _Count, depth: int) -> Any:
    count.one(depth)
    if isinstance(encoded, list):
        return [_decode(v, count, depth + 1) for v in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if len(encoded) != 1:
        raise Unsendable("not an encoded value: several keys")
    ((tag, held),) = encoded.items()
    match tag:
        case "i":
            return int(held, 16)
        case "b":
            return bytes.fromhex(held)
        case "c":
            return complex(float(held[0]), float(held[1]))
        case "r":
            return range(*(_decode(n, count, depth) for n in held))
        case "d":
            return {_decode(k, count, depth + 1): _decode(v, count, depth + 1) for k, v in held}
        case "o":
            return Opaque(str(held))
    return _decode_many(tag, [_decode(v, count, depth + 1) for v in held])


def _decode_many(tag: str, values: list[Any]) -> Any:
    match tag:
        case "t":
            return tuple(values)
        case "s":
            return set(values)
        case "z":
            return frozenset(values)
        case "n":
            return iter(values)
    raise Unsendable(f"not an encoded value: tag {tag[:20]!r}")
