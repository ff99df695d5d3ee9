"""How TranSTR ranks frames and objects and keeps K of them; used once for frames and once for objects.

Source: TranSTR (arXiv 2307.12058) section 3.2. The config says what is ranked: the published (frame, token)
interactions, or one score an item.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_causal_video.causal.topk import perturbed_topk, topk_indices
from hf_causal_video.models.transtr.configuration_transtr import TranSTRConfig
from hf_causal_video.utils.errors import require


@dataclass
class Items:
    """R rows of frames or objects that a selection chooses from.

    Args:
        x: (R, items, D) items after self-attention.
        mask: (R, items) bool, True where real.
        pos: (R, items, D) their positions; None for objects.
        query: (R or 1, items, D) their queries to the question, where computed before.
        measured: (R, items) similarities added to the scores.
    """

    x: Tensor
    mask: Tensor
    pos: Tensor | None = None
    query: Tensor | None = None
    measured: Tensor | None = None


@dataclass
class Selection:
    """Which items were kept.

    Args:
        indices: (R, K) the kept items; for a soft selection the likeliest item of each slot.
        scores: (R, items) one score an item, -inf at padding.
        selector: (R, items, K) soft selection, or None where it is hard.
        filled: (R, K) False at the slots of a hard selection for which a short clip has no frame; None for none.
    """

    indices: Tensor
    scores: Tensor
    selector: Tensor | None
    filled: Tensor | None = None

    def take(self, x: Tensor) -> Tensor:
        """Kept rows of x (R, items, D): a mixture where the selection is soft, a gather where it is hard."""
        if self.selector is not None:
            return torch.einsum("rik,rid->rkd", self.selector.to(x.dtype), x)
        return x.gather(1, self.indices.unsqueeze(-1).expand(-1, -1, x.shape[-1]))

    def share(self) -> Tensor:
        """How surely each item was kept, (R, items): the share of draws that kept it, or 0 and 1."""
        if self.selector is not None:
            return self.selector.sum(-1)
        return torch.zeros_like(self.scores).scatter(1, self.indices, 1.0)

    def take_mask(self, mask: Tensor) -> Tensor:
        """Return True (R, K) for slots that hold a real item of mask (R, items)."""
        held = self.take(mask.unsqueeze(-1).float()).squeeze(-1) > 0.5
        return held if self.filled is None else held & self.filled


def rank(
    config: TranSTRConfig,
    x: Tensor,
    attention: Tensor | None,
    mask: Tensor,
    tokens: Tensor,
    scorer: nn.Module | None,
    measured: Tensor | None = None,
) -> Tensor:
    """Compute what is ranked, (R, items, units): one score per item, or one per interaction with L tokens.

    Args:
        config: says which.
        x: (R, items, D) items that have met the question.
        attention: (R, items, L) their cross-attention, as `rank_by` wants it.
        mask, tokens: (R, items) and (R, L) bool, True where real.
        scorer: the linear score of `rank_by="scorer"`.
        measured: (R, items) added to the score before it is bounded.
    """
    raw = attention if scorer is None else scorer(x)
    assert raw is not None, "rank_by other than 'scorer' asks the decoder for its attention"
    scores = raw.float()
    if measured is not None:
        scores = scores + measured.float().unsqueeze(-1)
    if config.rank_by != "prob":
        if config.score_bound is not None:
            scores = config.score_bound * scores.tanh()
        if scorer is None:
            scores = scores.masked_fill(~tokens.unsqueeze(1), -torch.inf)
    return scores.masked_fill(~mask.unsqueeze(-1), -torch.inf)


def select(
    config: TranSTRConfig, scores: Tensor, keep: int, soft: bool, sigma: float, noise: Tensor | None, what: str
) -> Selection:
    """Keep K of the ranked interactions or items.

    A clip with fewer frames keeps all of them; the slots that are left repeat its best frame and are masked.

    Args:
        config: order, samples and gradient of the top-K.
        scores: (R, items, units) from `rank`.
        keep: K.
        soft: perturbed selection with a gradient; hard otherwise.
        sigma: noise of the soft selection.
        noise: stored draws for it, (R, samples, items * units).
        what: "frames" or "objects".

    Raises:
        CausalVideoError: fewer than K objects to choose from.
    """
    units = scores.shape[-1]
    flat = scores.flatten(1)  # (R, items * units)
    if what == "frames":
        flat = torch.nn.functional.pad(flat, (0, max(keep - flat.shape[1], 0)), value=-torch.inf)
    require(
        flat.shape[1] >= keep,
        f"selection of {what}",
        found=f"{flat.shape[1]} to choose from",
        expected=f"at least {keep}",
        fix=f"give more {what}, or lower num_{what}_kept",
    )
    if not soft and what == "frames":
        slots = topk_indices(flat, keep, config.topk_order)
        filled = flat.gather(1, slots) > -torch.inf  # (R, K)
        best = scores.amax(-1).argmax(1, keepdim=True)  # (R, 1)
        return Selection(torch.where(filled, slots // units, best), scores.amax(-1), None, filled)
    if not soft:
        return Selection(topk_indices(flat, keep, config.topk_order) // units, scores.amax(-1), None)
    selector = perturbed_topk(
        flat, keep, config.topk_samples, sigma, noise, config.topk_gradient, baseline=config.topk_baseline
    )
    selector = selector[:, : scores[0].numel()].unflatten(1, (-1, units)).sum(2)  # (R, items, K)
    likeliest = selector.masked_fill(scores.amax(-1, keepdim=True) == -torch.inf, -1.0).argmax(1)
    return Selection(likeliest, scores.amax(-1), selector)
