"""CDFP: Cross-Layer Demographic Fair Prompting.

Prompts are trained so that the prediction for an image stays the same when only the perceived group
changes. Three readings of "counterfactual" (METHOD.md: CDFP):

- `image`: the *embedding* of the image is moved from one group's direction to another's;
- `words`: the demographic word in the class text is exchanged;
- `layers`: the states of such texts are compared in every layer of the text tower.

Shapes: n images, C classes, G groups, d the joint width, w the text tower's width.

What this module does not do: it changes no embedding at inference (that is `fvlfp.dsop`), needs no group
label at inference, and needs none in training unless the directions come from labels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def js_divergence(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Jensen-Shannon divergence of softmax(logits_a) and softmax(logits_b), both (..., C), in nats.

    Returns (...), each in [0, log 2] (Lin 1991).
    """
    a, b = F.log_softmax(logits_a, -1), F.log_softmax(logits_b, -1)
    middle = torch.logaddexp(a, b) - math.log(2)  # a number, no tensor: that would be a copy in every step
    return 0.5 * ((a.exp() * (a - middle)).sum(-1) + (b.exp() * (b - middle)).sum(-1))


def counterfactual(z: Tensor, directions: Tensor, source: Tensor, target: Tensor, alpha: float) -> Tensor:
    """`z_cf = normalise(z + alpha (D[g'] - D[g]))` (METHOD.md: CDFP, pairing="image").

    z: (n, d) unit rows. directions: D (G, d), centred group directions. source, target: (n,) group
    indices g and g'. alpha: how far to move; 1 moves by the whole difference of the two groups.

    Returns (n, d) unit rows.
    """
    return F.normalize(z + alpha * (directions[target] - directions[source]), dim=-1)


def other_group(source: Tensor, n_groups: int, generator: torch.Generator) -> Tensor:
    """For each entry of `source` (n,) a group drawn evenly from the other `n_groups - 1`."""
    step = torch.randint(1, n_groups, source.shape, generator=generator)
    return (source + step.to(source.device)) % n_groups


def image_loss(
    z: Tensor,
    texts: Tensor,
    scale: float,
    directions: Tensor,
    source: Tensor,
    target: Tensor,
    alpha: float,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean JS divergence between the predictions for z and for its counterfactual embedding (scalar).

    texts: T (C, d) unit rows; logits are `scale * z T^T`. weight: (n,) of each row in the mean; None is 1.
    """
    moved = counterfactual(z, directions, source, target, alpha)
    return _mean(js_divergence(scale * z @ texts.T, scale * moved @ texts.T), weight)


def words_loss(
    z: Tensor, texts: Tensor, pair_texts: Tensor, scale: float, *, weight: Tensor | None = None
) -> Tensor:
    """Mean over groups of KL(neutral prediction || prediction from the texts that name the group).

    texts: T (C, d). pair_texts: t (C, G, d), e.g. "round smiling face"; only the group word differs.
    METHOD.md: CDFP, pairing="words". weight: (n,) of each row in the mean; None is 1. Scalar, >= 0.
    """
    neutral = F.log_softmax(scale * z @ texts.T, -1)  # (n, C)
    named = F.log_softmax(scale * torch.einsum("nd,cgd->ngc", z, pair_texts), -1)  # (n, G, C)
    return _mean((neutral.exp()[:, None] * (neutral[:, None] - named)).sum(-1).mean(1), weight)


def layers_loss(states: list[Tensor]) -> Tensor:
    """Mean over layers, classes and pairs of groups of the squared distance of end-of-text states.

    states: one (C, G, w) a layer. METHOD.md: CDFP, pairing="layers", the most literal "cross-layer".
    For every class, the mean over ordered pairs g != g' is 2 G / (G - 1) times the spread about the mean.
    """
    total = torch.zeros((), device=states[0].device)
    for state in states:
        groups = state.shape[1]
        spread = (state - state.mean(1, keepdim=True)).square().sum(-1).mean()
        total = total + spread * 2 * groups / (groups - 1)
    return total / len(states)


def anchor_loss(texts: Tensor, frozen: Tensor) -> Tensor:
    """`mean over classes of 1 - cos(T, T_frozen)` (KgCoOp, Yao et al. 2023); both (C, d) unit rows.

    Without it, "all class texts equal" would satisfy every loss above.
    """
    return 1 - (texts * frozen).sum(-1).mean()


def gap_loss(
    logits: Tensor, labels: Tensor, groups: Tensor, *, n_groups: int, weight: Tensor | None = None
) -> Tensor:
    """A differentiable odds gap of one batch: largest minus smallest mean probability of the true class.

    logits (n, C), labels (n,), groups (n,) perceived groups in [n_groups], needed here and only here. For
    each class the gap is taken over the groups that have that class in this batch; the mean over the classes
    that the batch has is returned. weight: (n,) of each row in its mean; rows of weight 0 are not there.
    """
    right = F.softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    weight = torch.ones_like(right) if weight is None else weight
    classes = F.one_hot(labels, logits.shape[1]).to(right.dtype) * weight[:, None]
    cells = torch.einsum("nc,ng->ncg", classes, F.one_hot(groups, n_groups).to(right.dtype))
    counts = cells.sum(0)
    means = torch.einsum("n,ncg->cg", right, cells) / counts.clamp_min(1e-12)
    there = counts > 0
    high = means.masked_fill(~there, -torch.inf).amax(1)
    low = means.masked_fill(~there, torch.inf).amin(1)
    has = there.any(1)
    return torch.where(has, high - low, 0.0).sum() / has.sum()


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()
