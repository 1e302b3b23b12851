"""Advantages on trees against a loop over nodes, their children and their leaves."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.learn.tree_advantages import above_parent, above_siblings, global_and_local, leaf_means

values = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, 0.1, math.nan]))


@st.composite
def forests(draw):
    parents = [-1]
    for node in range(1, draw(st.integers(1, 12))):
        parents.append(draw(st.integers(-1, node - 1)))
    return parents, draw(st.lists(values, min_size=len(parents), max_size=len(parents)))


def tensors(parents, node_values):
    return torch.tensor(node_values, dtype=torch.float64), torch.tensor(parents)


def children(parents, node):
    return [child for child, parent in enumerate(parents) if parent == node]


def leaves(parents, node):
    below = children(parents, node)
    return [leaf for child in below for leaf in leaves(parents, child)] if below else [node]


def known(x):
    return 0.0 if math.isnan(x) else x


@given(forest=forests())
@settings(max_examples=60)
def test_above_parent_and_above_siblings(forest):
    parents, v = forest
    up, aside = above_parent(*tensors(parents, v)).tolist(), above_siblings(*tensors(parents, v)).tolist()
    for node, parent in enumerate(parents):
        siblings = [v[s] for s in children(parents, parent) if s != node and not math.isnan(v[s])]
        if parent < 0 or math.isnan(v[node]):
            assert up[node] == aside[node] == 0.0
            continue
        assert up[node] == known(v[node] - v[parent])
        assert aside[node] == pytest.approx(v[node] - statistics.fmean(siblings) if siblings else 0.0, abs=1e-9)
        if siblings and {*siblings} == {v[node]}:
            assert aside[node] == 0.0


@given(forest=forests())
@settings(max_examples=60)
def test_leaf_means_and_treerl(forest):
    parents, v = forest
    means = leaf_means(*tensors(parents, v)).tolist()
    # Values without holes, so that every term counts.
    full = [known(x) for x in v]
    combined = global_and_local(*tensors(parents, full)).tolist()
    for node, parent in enumerate(parents):
        scored = [v[leaf] for leaf in leaves(parents, node) if not math.isnan(v[leaf])]
        wanted = statistics.fmean(scored) if scored else math.nan
        assert means[node] == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        root = node
        while parents[root] >= 0:
            root = parents[root]
        size = math.sqrt(len(leaves(parents, node)))
        wanted = (2 * full[node] - full[root] - full[parent]) / size if parent >= 0 else 0.0
        assert combined[node] == pytest.approx(wanted, abs=1e-9)


def test_golden():
    # A root with two steps; the first goes on to a right and a wrong answer, the second to two right ones.
    parents = torch.tensor([-1, 0, 0, 1, 1, 2, 2])
    rewards = torch.tensor([math.nan, math.nan, math.nan, 1.0, 0.0, 1.0, 1.0])
    v = leaf_means(rewards, parents)
    assert v.tolist() == [0.75, 0.5, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert above_parent(v, parents).tolist() == [0.0, -0.25, 0.25, 0.5, -0.5, 0.0, 0.0]
    assert above_siblings(v, parents).tolist() == [0.0, -0.5, 0.5, 1.0, -1.0, 0.0, 0.0]
    root_two = math.sqrt(2)
    wanted = [0.0, -0.5 / root_two, 0.5 / root_two, 0.75, -1.25, 0.25, 0.25]
    assert global_and_local(v, parents).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("function", [leaf_means, above_parent, above_siblings, global_and_local])
def test_what_is_no_tree_is_refused(function):
    for parents in ([-1, 1], [1, -1], [-1]):
        with pytest.raises(InvalidValue, match="parents"):
            function(torch.zeros(2), torch.tensor(parents))
