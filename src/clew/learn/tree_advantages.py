"""Advantages from the values of a search tree's nodes. N nodes, each a step taken from its parent.

`values` [N] float, `parents` [N] long: -1 for a root, else an earlier node. Advantages are of the step that led to
the node; a root has none (zero). A value that is not known (NaN) gives zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clew.core.errors import InvalidValue


def leaf_means(rewards: Tensor, parents: Tensor) -> Tensor:
    """Monte Carlo values [N]: the mean reward of the leaves below a node. `rewards` [N] is NaN where there is none.

    Inner nodes' rewards are not read. A node without a scored leaf has value NaN. (OmegaPRM, TreeRL: arXiv 2506.11902.)
    """
    totals, counts = _sums_over_leaves(rewards, parents)
    return totals / counts


def above_parent(values: Tensor, parents: Tensor) -> Tensor:
    """V(node) - V(parent) [N]: with the policy's own values the exact advantage of the step, so unbiased."""
    _check(values, parents)
    roots = parents < 0
    return torch.where(roots, 0.0, values - values[parents.clamp(min=0)]).nan_to_num(nan=0.0)


def above_siblings(values: Tensor, parents: Tensor) -> Tensor:
    """V(node) minus the mean of its siblings [N]: leave-one-out at every branching; an only child gets zero.

    Unbiased when siblings are independent samples of the policy. Siblings without a value are left out.
    """
    _check(values, parents)
    known, place = ~values.isnan(), parents + 1
    known &= parents >= 0
    # Equal siblings are exactly zero from their first, as in clew.learn.advantages.
    nodes = torch.where(known, torch.arange(len(values), device=values.device), len(values))
    first = nodes.new_full((len(values) + 1,), len(values)).scatter_reduce(0, place, nodes, "amin")
    padded = torch.cat([values, values.new_zeros(1)])
    relative = torch.where(known, values - padded[first[place]], 0.0)
    totals = values.new_zeros(len(values) + 1).index_add(0, place, relative)[place]
    counts = values.new_zeros(len(values) + 1).index_add(0, place, known.to(values.dtype))[place]
    compared = relative * counts - totals
    return torch.where(known & (counts > 1), compared / (counts - 1).clamp(min=1), 0.0)


def global_and_local(values: Tensor, parents: Tensor) -> Tensor:
    """((V - V(root)) + (V - V(parent))) / sqrt(leaves below) [N]: TreeRL (Hou et al. 2025, arXiv 2506.11902).

    The root term credits a step for what its ancestors did: a bias that TreeRL takes on purpose. The square root keeps
    steps that many leaves share from being counted as often.
    """
    _check(values, parents)
    leaves = _sums_over_leaves(torch.zeros_like(values), parents)[1]
    root = torch.arange(len(values), device=values.device)
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            root[node] = root[parent]
    local = values - values[parents.clamp(min=0)]
    combined = (values - values[root] + local) / leaves.sqrt()
    return torch.where(parents < 0, 0.0, combined).nan_to_num(nan=0.0)


def _sums_over_leaves(rewards: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of the scored leaves' rewards below each node."""
    _check(rewards, parents)
    above = parents.tolist()
    inner = set(above)
    scored = [node not in inner and reward == reward for node, reward in enumerate(rewards.tolist())]
    totals = [reward if ok else 0.0 for reward, ok in zip(rewards.tolist(), scored, strict=True)]
    counts = [float(ok) for ok in scored]
    for node in reversed(range(len(above))):
        if above[node] >= 0:
            totals[above[node]] += totals[node]
            counts[above[node]] += counts[node]
    return rewards.new_tensor(totals), rewards.new_tensor(counts)


def _check(values: Tensor, parents: Tensor) -> None:
    if values.shape != parents.shape:
        given = f"{tuple(parents.shape)} for {tuple(values.shape)} values"
        raise InvalidValue("parents", given, "one parent a node", "give -1 for a root")
    nodes = torch.arange(len(parents), device=parents.device)
    if bool((parents >= nodes).any()):
        raise InvalidValue("parents", parents.tolist(), "-1 or an earlier node", "number parents before their children")
