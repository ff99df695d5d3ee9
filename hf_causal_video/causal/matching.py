"""Matching: of the clips of a batch, which one does this question ask about?

Why: IGV's objective is the same for both sides of its split, so an environment that predicts the answers can be called
causal. What tells the two apart is the question: causal frames show what it speaks of, and surroundings look alike to
every question. So the scores that ground a question must also find its clip among those of the batch.

Matching has a confounder of its own: scenery that goes with the words of questions finds the clip as well (a question
about a dog finds grass). The remedy is to match question *and answer* (`AnswerScorer`): the score of a frame is then
the sum of its scores for question and answer, and the soft maximum over frames is won by the frame where both meet.
Scenery that fits only one of the two loses to it, so the score of the question does not need it. The score of the
answer serves training only; the score that grounds a question at test time has never seen an answer. Limit: scenery
that fits question and answer at once cannot be told from the cause.

Source: ours, not the thesis'. The loss is InfoNCE in both directions (van den Oord et al., arXiv 1807.03748) over a
soft maximum of frames, as is usual where video and text are aligned under weak supervision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def matching_loss(margins: Tensor, mask: Tensor, rows: Tensor, own: Tensor) -> Tensor:
    """Symmetric InfoNCE between questions and clips, frames pooled by log-sum-exp.

    Args:
        margins: (G, V, T) log-odds of causal, of every question in every clip, plus those of its answer if that is
            matched too.
        mask: (V, T) bool, true at real frames, at least one per clip.
        rows: (G,) int, the clip of each question.
        own: (G,) int, an id of that clip's video; pairs that share it are not negatives of each other.

    Returns:
        (), float32; 0 without any other video.

    Example:
        >>> alike = torch.zeros(2, 2, 3)
        >>> matching_loss(alike, torch.ones(2, 3, dtype=torch.bool), torch.arange(2), torch.arange(2)).exp()
        tensor(2.)
    """
    frames = margins.float().masked_fill(~mask, -torch.inf)
    scores = frames.logsumexp(-1) - mask.sum(1).log()  # (G, V): a soft maximum that does not grow with the clip
    pairs = scores[:, rows]  # (G, G): question by clip of a question
    index = torch.arange(len(rows), device=rows.device)
    # a pair of questions about one video is no negative, but the diagonal stays
    same_video = (own.unsqueeze(0) == own.unsqueeze(1)) & (index.unsqueeze(0) != index.unsqueeze(1))
    pairs = pairs.masked_fill(same_video, -torch.inf)
    return (F.cross_entropy(pairs, index) + F.cross_entropy(pairs.t(), index)) / 2
