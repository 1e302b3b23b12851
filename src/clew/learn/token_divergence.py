"""Divergences of next-token distributions over the whole vocabulary: distillation from a teacher's logits.

On states that the student visits, the reverse one is on-policy distillation (GKD, arXiv 2306.13649; MiniLLM,
2306.08543), exact in each state: no estimate from the sampled token. The states themselves are held fixed.
"""

from __future__ import annotations

import math

from torch import Tensor


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) of logits [..., vocabulary], as [...], in nats: the student keeps to what it can do.

    >>> import torch
    >>> reverse_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([0.])
    """
    return forward_kl(teacher, student)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of logits [..., vocabulary], as [...]: the student covers all that the teacher does."""
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    # A token that the teacher forbids (minus infinity) adds nothing, whatever the student says of it.
    terms = p.exp() * (p - q)
    return terms.masked_fill(p.isneginf(), 0.0).sum(-1)


def jensen_shannon(student: Tensor, teacher: Tensor, *, weight: float) -> Tensor:
    """w KL(teacher || m) + (1 - w) KL(student || m) with w the weight and m = w teacher + (1 - w) student; 0 < w < 1.

    Generalised Jensen-Shannon (arXiv 2306.13649, equation 1): between both directions, and never infinite.
    """
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    mixture = (p + math.log(weight)).logaddexp(q + math.log1p(-weight))
    of_teacher = (p.exp() * (p - mixture)).masked_fill(p.isneginf(), 0.0).sum(-1)
    of_student = (q.exp() * (q - mixture)).masked_fill(q.isneginf(), 0.0).sum(-1)
    return weight * of_teacher + (1 - weight) * of_student
