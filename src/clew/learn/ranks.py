"""Processes that learn as one: what is costly is divided among them, and all of them know every result.

Every rank runs the same program on the same seeds. Three things are divided: samples by problem, readings of a model
and gradients by micro-batch. Whatever is not divided is done by every rank alike. Denominators are those of the whole
batch, so the gradients of the ranks add up to that of one process, and all of them take the same step.
"""

from __future__ import annotations

import io
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from clew.core.errors import ClewError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Item = TypeVar("Item")
Result = TypeVar("Result")


class Place(NamedTuple):
    """Which of how many ranks a process is."""

    rank: int
    ranks: int


ALONE = Place(0, 1)


def here() -> Place:
    """The place of this process among those that have joined it; torch is not imported for a process alone."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return Place(distributed.get_rank(), distributed.get_world_size())


def share(items: Sequence[Item], place: Place) -> list[Item]:
    """What the rank at `place` takes of `items`.

    >>> share("abcde", Place(1, 2))
    ['b', 'd']
    """
    return list(items[place.rank :: place.ranks])


def whole(shares: Sequence[Sequence[Item]]) -> list[Item]:
    """What was divided by `share`, in its order again.

    >>> whole(["ace", "bd"])
    ['a', 'b', 'c', 'd', 'e']
    """
    count, ranks = sum(map(len, shares)), len(shares)
    return [shares[at % ranks][at // ranks] for at in range(count)]


def shared(what: str, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
    """`work`, one result an item in their order, of all `items`; each rank does it for its share of them.

    `work` is not called for no items. Raises `ClewError` where another rank is lost or does something else.
    """
    place = here()
    if place == ALONE:
        return list(work(items)) if items else []
    own = share(items, place)
    return whole(exchanged(f"{what}, {len(items)} in all", list(work(own)) if own else []))


def sum_over_ranks(model: nn.Module, noted: Sequence[Item], what: Sequence[int]) -> list[Item]:
    """Make the `grad` of every parameter of `model` that learns the sum of those of all ranks; what all have noted.

    `noted` is of this rank's share of what `what` are the sizes of, which must be the same for every rank.
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    tag = f"{len(what)} sequences {_digest(repr(list(what)).encode())} to weights {_fingerprint(parameters)}"
    told = whole(exchanged(tag, list(noted)))
    for dtype in dict.fromkeys(p.dtype for p in parameters):
        gradients = [p.grad for p in parameters if p.dtype == dtype and p.grad is not None]
        bucket = torch.cat([gradient.flatten() for gradient in gradients])
        with _told_if_lost():
            torch.distributed.all_reduce(bucket)
        for gradient, total in zip(gradients, bucket.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))
    return told


def exchanged(what: str, value: Item) -> list[Item]:
    """The `value` of every rank, in their order. Raises `ClewError` unless all of them are at the same `what`."""
    from torch import distributed

    sent = _packed((what, value))
    received: list[Any] = [None] * here().ranks
    with _told_if_lost():
        distributed.all_gather_object(received, sent)
    found = [pickle.loads(data) for data in received]  # noqa: S301  written by the other ranks of this run
    others = {theirs for theirs, _ in found}
    if len(others) > 1:
        given = "the processes of this run came apart: " + " / ".join(sorted(others))
        accepted = "the same command, files and versions for every process, and verdicts that do not depend on it"
        raise ClewError(given, accepted, "start again; if it happens again, use one process")
    return [own for _, own in found]


@contextmanager
def _told_if_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch.distributed tells of a connection that was closed, and of a timeout, in no other way.
        given = f"another process of this run has ended or does not answer ({str(error).splitlines()[0]})"
        advice = "look above for its own message; if there is none, the system ended it, most often for want of memory"
        raise ClewError(given, "all processes of a run until its end", advice) from error


def _fingerprint(parameters: Sequence[Tensor]) -> int:
    """The sum of the weights' bits as integers: the same for the same weights, in whatever order they are added."""
    import torch

    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return sum(int(p.detach().flatten().view(words[p.element_size()]).sum()) for p in parameters)


def _digest(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


class _Pickler(pickle.Pickler):
    """Tensors as their own numbers: torch would write the storage that they are views of, once for each."""

    def reducer_override(self, value: Any) -> Any:
        import torch
        from torch import Tensor

        if not isinstance(value, Tensor):
            return NotImplemented
        flat = value.detach().cpu().flatten()
        return _unpacked, (flat.view(torch.uint8).numpy().tobytes(), flat.dtype, tuple(value.shape))


def _packed(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def _unpacked(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
