"""Contrastive disruptor: a joint vector may depend on the causal scene and the question, and on nothing else.

Why: if the environment of a sample is replaced, its vector must stay close (positive); if its causal scene or its
question is replaced, it must move away (negatives).

Source: EIGV (arXiv 2207.12783) section 3.4. Two switches keep what was released: `legacy` pairs anchors with other
samples' negatives, and one of nine codes does not normalise.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_causal_video.utils.checks import check_whole

Layout = Literal["paired", "legacy"]


def arrange_negatives(visual: Tensor, question: Tensor, layout: Layout = "paired") -> Tensor:
    """Arrange the negatives of each anchor, (B, 2n, P).

    Args:
        visual, question: (n, B, P) vectors of n disrupted copies of every sample.
        layout: "paired" gives an anchor its own 2n; "legacy" cuts the copies, in the order of their making, into B
            blocks, as released, so that nearly every anchor gets the negatives of other samples.

    Example:
        >>> visual, question = torch.arange(4.0).view(2, 2, 1), torch.arange(4.0, 8.0).view(2, 2, 1)
        >>> arrange_negatives(visual, question)[:, :, 0]
        tensor([[0., 2., 4., 6.],
                [1., 3., 5., 7.]])
        >>> arrange_negatives(visual, question, "legacy")[:, :, 0]
        tensor([[0., 1., 2., 3.],
                [4., 5., 6., 7.]])
    """
    both = torch.cat([visual, question])  # (2n, B, P)
    # "legacy" reads (2n, B) as (B, 2n) without a transpose, as released
    if layout == "paired":
        return both.transpose(0, 1)
    return both.reshape(both.shape[1], both.shape[0], both.shape[2])


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor,
    tau: float = 0.1,
    cosine: bool = True,
    rows: Tensor | None = None,
) -> Tensor:
    """InfoNCE: cross-entropy of the positive among positive and negatives, mean over anchors.

    Args:
        anchor, positive: (B, P).
        negatives: (B, N, P).
        tau: temperature.
        cosine: compare directions; False compares raw dot products, as the released MSVD-QA code over HGA does.
        rows: (B,) bool, anchors that count; the mean is over those, and 0 without any.

    Example:
        >>> x = torch.eye(2)
        >>> info_nce(x, x, -x.unsqueeze(1)).round(decimals=4)
        tensor(0.)
    """
    others = torch.cat([positive.unsqueeze(1), negatives], 1).float()  # (B, 1 + N, P)
    anchor = anchor.float()
    if cosine:
        anchor = F.normalize(anchor, dim=-1)
        others = F.normalize(others, dim=-1)
    # the positive is class 0: loss = -log exp(a.p / tau) / (exp(a.p / tau) + sum_n exp(a.n / tau))
    logits = torch.einsum("bp,bnp->bn", anchor, others) / tau
    losses = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none")
    return losses.mean() if rows is None else (losses * rows).sum() / rows.sum().clamp(min=1)


def deranged_rows(rows: int, copies: int, device: torch.device | None = None) -> Tensor:
    """Draw per copy a random rearrangement of the rows in which none keeps its place, (copies, rows).

    Raises:
        CausalVideoError: fewer than two rows.

    Example:
        >>> bool((deranged_rows(5, 3) == torch.arange(5)).any())
        False
    """
    check_whole("number of questions to swap", rows, 2, fix="use larger batches")
    order = torch.rand(copies, rows, device=device).argsort(1)  # a random circle
    step = torch.randint(1, rows, (copies, 1), device=device)
    # each row gets the one that is `step` places further around the circle
    after = order.gather(1, (torch.arange(rows, device=device) + step) % rows)
    return torch.empty_like(order).scatter(1, order, after)
