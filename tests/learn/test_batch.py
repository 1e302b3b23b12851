"""Padding and micro-batches must not change what is learnt."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clew.core.errors import InvalidValue
from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean
from clew.learn.batch import Example, PaddedBatch, micro_batches, pad
from clew.learn.losses import clipped_surrogate, token_logprobs
from clew.learn.schedule import warmup_stable_decay

VOCABULARY = 11


class Causal(nn.Module):
    """Logits at t depend on all inputs up to t: a recurrent net in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.rnn = nn.RNN(6, 6, batch_first=True)
        self.head = nn.Linear(6, VOCABULARY)
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(self.embed(ids))[0])
        return out


MODEL = Causal()

tokens = st.lists(st.integers(1, VOCABULARY - 1), max_size=6)


@st.composite
def example(draw: st.DrawFn) -> Example:
    response = draw(tokens)
    return Example(
        prompt_ids=draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5)),
        response_ids=response,
        logprobs=[draw(st.floats(-4, -0.1)) for _ in response],
        advantage=draw(st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    )


Aggregate = Callable[[Tensor, Tensor], Tensor]


def loss_and_gradient(batches: list[PaddedBatch], aggregate: Aggregate) -> tuple[float, list[Tensor]]:
    MODEL.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        logprobs = token_logprobs(MODEL(batch.input_ids), batch.targets)
        loss = aggregate(clipped_surrogate(logprobs, batch.old_logprobs, batch.advantages), batch.target_mask)
        loss.backward()
        total += loss.item()
    return total, [torch.zeros_like(p) if p.grad is None else p.grad for p in MODEL.parameters()]


def assert_same(first: tuple[float, list[Tensor]], second: tuple[float, list[Tensor]]) -> None:
    assert first[0] == pytest.approx(second[0], abs=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(first[1], second[1], strict=True))


def aggregates(examples: list[Example]) -> list[Aggregate]:
    n_tokens, n = sum(len(e.response_ids) for e in examples), len(examples)
    return [
        lambda loss, mask: token_mean(loss, mask, tokens=n_tokens),
        lambda loss, mask: sequence_mean(loss, mask, sequences=n),
        lambda loss, mask: constant_denominator(loss, mask, length=6, sequences=n),
    ]


@settings(max_examples=30, deadline=None)
@given(examples=st.lists(example(), min_size=1, max_size=6), budget=st.integers(1, 40))
def test_micro_batches_equal_one_batch(examples: list[Example], budget: int) -> None:
    division = micro_batches([e.length for e in examples], budget)
    parts = [pad([examples[i] for i in indices], dtype=torch.float64) for indices in division]
    whole = [pad(examples, dtype=torch.float64)]
    for aggregate in aggregates(examples):
        assert_same(loss_and_gradient(parts, aggregate), loss_and_gradient(whole, aggregate))


@settings(max_examples=20, deadline=None)
@given(examples=st.lists(example(), min_size=1, max_size=4), pad_id=st.integers(0, VOCABULARY - 1))
def test_padding_changes_neither_loss_nor_gradient(examples: list[Example], pad_id: int) -> None:
    longer = Example(prompt_ids=[1] * 15, response_ids=[], logprobs=[])
    padded = [pad([*examples, longer], pad_id=pad_id, dtype=torch.float64)]
    alone = [pad([e], dtype=torch.float64) for e in examples]
    for aggregate in aggregates(examples):
        assert_same(loss_and_gradient(padded, aggregate), loss_and_gradient(alone, aggregate))


def test_loss_of_a_batch_is_the_sum_over_examples_token_by_token() -> None:
    examples = [
        Example(prompt_ids=[1, 2], response_ids=[3, 4, 5], logprobs=[-0.5, -2.0, -1.0], advantage=2.0),
        Example(prompt_ids=[6], response_ids=[7], logprobs=[-3.0], advantage=-1.0),
    ]
    wanted = 0.0
    for e in examples:
        assert e.logprobs is not None
        for t, (token, old) in enumerate(zip(e.response_ids, e.logprobs, strict=True)):
            ids = torch.tensor([[*e.prompt_ids, *e.response_ids[:t]]])
            ratio = (MODEL(ids)[0, -1].log_softmax(-1)[token] - old).exp().item()
            wanted -= min(ratio * e.advantage, min(max(ratio, 0.8), 1.2) * e.advantage)
    got, _ = loss_and_gradient([pad(examples, dtype=torch.float64)], aggregates(examples)[0])
    assert got == pytest.approx(wanted / 4, abs=1e-10)


def test_layout() -> None:
    batch = pad(
        [
            Example(prompt_ids=[1, 2], response_ids=[3, 4], logprobs=[-0.5, -0.25], advantage=2.0),
            Example(prompt_ids=[5], response_ids=[6]),
        ],
        pad_id=9,
    )
    assert batch.input_ids.tolist() == [[1, 2, 3], [5, 9, 9]]
    assert batch.targets.tolist() == [[2, 3, 4], [6, 9, 9]]
    assert batch.target_mask.tolist() == [[False, True, True], [True, False, False]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.old_logprobs.tolist() == [[0.0, -0.5, -0.25], [0.0, 0.0, 0.0]]
    assert batch.advantages.tolist() == [2.0, 1.0]
    assert torch.equal(batch.to("cpu").targets, batch.targets)


def test_bad_examples_are_refused() -> None:
    with pytest.raises(InvalidValue, match="start token"):
        pad([Example(prompt_ids=[], response_ids=[1])])
    with pytest.raises(InvalidValue, match="2 for 1 tokens"):
        pad([Example(prompt_ids=[1], response_ids=[1], logprobs=[-1.0, -1.0])])
    with pytest.raises(InvalidValue, match="at least one example"):
        pad([])
    with pytest.raises(InvalidValue, match="max_tokens"):
        micro_batches([1], 0)


@given(lengths=st.lists(st.integers(0, 50), max_size=60), budget=st.integers(1, 200))
def test_micro_batches_cover_each_index_once_within_the_budget(lengths: list[int], budget: int) -> None:
    division = micro_batches(lengths, budget)
    assert sorted(i for batch in division for i in batch) == list(range(len(lengths)))
    for batch in division:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    # Sorted: no batch holds anything longer than what the batch before holds.
    edges = [(max(lengths[i] for i in b), min(lengths[i] for i in b)) for b in division]
    assert all(before[1] >= after[0] for before, after in pairwise(edges))


def test_micro_batches_waste_little() -> None:
    lengths = [int(x) for x in torch.randint(20, 200, (256,), generator=torch.Generator().manual_seed(0))]
    division = micro_batches(lengths, 2048)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in division)
    assert padded / sum(lengths) < 1.07
    assert len(division) <= 1.3 * sum(lengths) / 2048 + 1


@given(total=st.integers(0, 40), warmup=st.integers(0, 20), decay=st.integers(0, 20))
def test_schedule_rises_holds_and_falls(total: int, warmup: int, decay: int) -> None:
    if warmup + decay > total:
        with pytest.raises(InvalidValue, match="fit into the total"):
            warmup_stable_decay(0, total=total, warmup=warmup, decay=decay)
        return
    values = [warmup_stable_decay(s, total=total, warmup=warmup, decay=decay) for s in range(total)]
    assert all(0 < v <= 1 for v in values)
    assert values[warmup : total - decay] == [1.0] * (total - decay - warmup)
    assert values[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert values[total - decay :] == pytest.approx([(decay - i) / decay for i in range(decay)])
    assert [warmup_stable_decay(total + i, total=total, warmup=warmup, decay=decay) for i in (0, 1, 9)] == [0.0] * 3


@pytest.mark.parametrize("how", [{"warmup": -1}, {"decay": -1}])
def test_schedules_of_negative_steps_are_refused(how: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match="schedule"):
        warmup_stable_decay(0, total=4, **how)


def test_only_what_is_to_be_learnt_carries_loss():
    example = Example(prompt_ids=(1, 2), response_ids=(3, 4, 5), learnt=(False, True, False))
    batch = pad([example, Example(prompt_ids=(1,), response_ids=(2, 3))])
    assert batch.targets[0].tolist() == [2, 3, 4, 5]
    assert batch.target_mask.tolist() == [[False, False, True, False], [True, True, False, False]]
    assert example.num_learnt == 1


def test_flags_for_another_number_of_tokens_are_refused():
    with pytest.raises(InvalidValue, match="learnt"):
        pad([Example(prompt_ids=(1,), response_ids=(2, 3), learnt=(True,))])
