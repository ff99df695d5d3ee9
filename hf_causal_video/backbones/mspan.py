"""MSPAN: frames at several time scales, which exchange messages in both directions, conditioned on the question.

Why here: it is one of EIGV's three backbones. Max-pooling makes coarser scales; inside a scale, nodes that touch pass
messages (graph convolution); between scales each node attends to the nodes of another by how they fit the question.

Source: Guo et al., "Multi-Scale Progressive Attention Network for Video Question Answering", ACL 2021, section 3, in
the form that EIGV uses. Submodule names follow the published checkpoints. Switches for what was released:
`question_state="first"` (the states of the first of three layers, so that the others learn nothing) and
`meeting="start"` (clips of two scales meet only where they begin close together, and those that do not keep a score of
0 in the softmax, not of minus infinity).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.backbones.base import (
    Question,
    Video,
    VideoQABackbone,
    bias_of,
    check_sizes,
    register_backbone,
    without_bias,
)
from hf_causal_video.backbones.recurrent import LSTM, pack_left


class Linguistic(nn.Module):
    """A bidirectional LSTM of three layers; `state` says which layer's last states are the question."""

    def __init__(self, text_dim: int, dim: int, state: str):
        super().__init__()
        self.encoder = LSTM(text_dim, dim // 2, 3, batch_first=True, bidirectional=True)
        self.state = state

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens (R, L, D_text) to questions (R, H)."""
        packed = nn.utils.rnn.pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        last = self.encoder(packed)[1][0]  # (layers * 2, R, H/2), in the order of the layers
        last = last[:2] if self.state == "first" else last[-2:]
        return last.transpose(0, 1).flatten(1)


class Fusion(nn.Module):
    """Activation of the product of a visual and a question vector."""

    def __init__(self, dim: int, activation: str, bias: bool = False):
        super().__init__()
        self.fc_visual, self.fc_question = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None
        self.activation = getattr(F, activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the bias at zero."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, visual: Tensor, question: Tensor) -> Tensor:
        """Fuse (..., H) and (..., H) to (..., H)."""
        product = self.fc_visual(visual) * self.fc_question(question)  # (..., H)
        return self.activation(product if self.bias is None else product + self.bias)


class Convolution(nn.Module):
    """A linear map, averaged over neighbours."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Linear(dim, dim, bias=False)
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start the bias at zero."""
        nn.init.zeros_(self.bias)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Convolve nodes (R, N, H) over the adjacency (R, N, N)."""
        return adjacency @ self.weight(nodes) + self.bias


class GCN(nn.Module):
    """Graph convolutions, ELU and dropout after the first of them, as released; one module serves all scales."""

    def __init__(self, dim: int, layers: int, dropout: float):
        super().__init__()
        self.gcn = nn.ModuleList(Convolution(dim) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Map nodes (R, N, H) to nodes (R, N, H)."""
        for depth, layer in enumerate(self.gcn):
            nodes = layer(nodes, adjacency)
            if depth == 0:
                nodes = self.dropout(F.elu(nodes))
        return nodes


class GAT(nn.Module):
    """Attention of the nodes of one scale to the nodes of another."""

    def __init__(self, dim: int, activation: str, meeting: str):
        super().__init__()
        self.fusion_1 = Fusion(dim, activation)
        self.fusion_2 = Fusion(dim, activation)
        self.W3 = nn.Linear(dim, dim, bias=False)
        self.W6 = nn.Linear(2 * dim, dim)
        self.meeting = meeting

    def forward(self, nodes: Tensor, others: Tensor, question: Tensor, meet: Tensor, mask: Tensor) -> Tensor:
        """Update nodes (R, N, H) from others (R, M, H).

        Args:
            question: (R, 1, H).
            meet: (N, M) bool, which nodes of the two scales meet.
            mask: (R, M) bool, true at others that are not padding.
        """
        scores = self.W3(nodes) @ self.fusion_1(others, question).transpose(1, 2)  # (R, N, M)
        mask = mask.unsqueeze(1)
        if self.meeting == "start":
            scores = scores * meet  # released: a node that does not meet takes part with a score of 0
        else:
            mask = mask & meet
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        message = F.elu(weights @ self.fusion_2(others, question))  # (R, N, H)
        return self.W6(torch.cat([nodes, message], -1))  # (R, N, 2H) to (R, N, H)


class Attention(nn.Module):
    """The question's weights over nodes."""

    def __init__(self, dim: int, activation: str):
        super().__init__()
        self.fc_visual, self.fc_question = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.fc_Joint = nn.Linear(dim, 1)
        self.activation = getattr(F, activation)

    def forward(self, nodes: Tensor, question: Tensor, mask: Tensor) -> Tensor:
        """Pool nodes (R, N, H) with mask (R, N) by their fit to the question (R, 1, H), to (R, H)."""
        scores = self.fc_Joint(self.activation(self.fc_visual(nodes) * self.fc_question(question))).squeeze(-1)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1)  # (R, N)
        return (weights.unsqueeze(1) @ nodes).squeeze(1)


class ProgressiveAttention(nn.Module):
    """Rounds of messages inside the scales, from fine to coarse, and back; the finest scale is pooled."""

    def __init__(self, dim: int, scales: int, rounds: int, layers: int, dropout: float, activation: str, meeting: str):
        super().__init__()
        self.scales = scales
        self.meeting = meeting
        self.GCN_Module = nn.ModuleList(GCN(dim, layers, dropout) for _ in range(rounds))
        self.GAT_down = nn.ModuleList(GAT(dim, activation, meeting) for _ in range(rounds))
        self.GAT_up = nn.ModuleList(GAT(dim, activation, meeting) for _ in range(rounds))
        self.attention = Attention(dim, activation)

    def forward(self, frames: Tensor, mask: Tensor, question: Tensor) -> Tensor:
        """Encode frames (R, T, H), true ones first by mask (R, T), given questions (R, H), to clips (R, H)."""
        question = question.unsqueeze(1)
        start, masks = self._scales(frames, mask)
        edges = [_neighbours(node_mask, scale + 1).to(frames.dtype) for scale, node_mask in enumerate(masks)]
        nodes = start
        for convolve, down, up in zip(self.GCN_Module, self.GAT_down, self.GAT_up, strict=True):
            # inside every scale
            nodes = [convolve(x, adjacency) for x, adjacency in zip(nodes, edges, strict=True)]
            for scale in range(1, self.scales):  # messages to the coarser scale
                meet = self._meet(nodes, scale, scale - 1)
                nodes[scale] = down(nodes[scale], nodes[scale - 1], question, meet, masks[scale - 1])
            for scale in reversed(range(self.scales - 1)):  # and back to the finer one
                meet = self._meet(nodes, scale, scale + 1)
                nodes[scale] = up(nodes[scale], nodes[scale + 1], question, meet, masks[scale + 1])
            # residual: each round starts from its nodes plus those of the clip
            nodes = [x + first for x, first in zip(nodes, start, strict=True)]
        return self.attention(nodes[0], question, mask)

    def _scales(self, frames: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pool nodes and masks of every scale.

        Node k of scale s is the maximum over frames k to k + s; a clip shorter than that has one node.
        """
        nodes = [frames]
        masks = [mask]
        short = max(self.scales - frames.shape[1], 0)  # frames missing for one node of the coarsest scale
        lowest = torch.finfo(frames.dtype).min  # what never is a maximum
        filled = F.pad(frames.masked_fill(~mask.unsqueeze(-1), lowest).transpose(1, 2), (0, short), value=lowest)
        for scale in range(1, self.scales):
            node_mask = F.pad(mask, (0, short))[:, scale:]
            node_mask = torch.cat([node_mask.new_ones(len(mask), 1), node_mask[:, 1:]], 1)
            pooled = F.max_pool1d(filled, scale + 1, 1).transpose(1, 2)  # (R, T - scale, H)
            nodes.append(pooled.masked_fill(~node_mask.unsqueeze(-1), 0.0))
            masks.append(node_mask)
        return nodes, masks

    def _meet(self, nodes: list[Tensor], scale: int, other: int) -> Tensor:
        """Say which nodes of two neighbouring scales meet, (N, M) bool.

        Those that share a frame, or, as released, those that begin at most the finer scale's number apart: the same
        place for scales 0 and 1, one place more for scales 1 and 2.
        """
        j = torch.arange(nodes[scale].shape[1], device=nodes[scale].device).unsqueeze(1)
        k = torch.arange(nodes[other].shape[1], device=j.device)
        if self.meeting == "start":  # as released
            return (j - k).abs() <= min(scale, other)
        return (j <= k + other) & (k <= j + scale)  # frames j to j + scale and k to k + other overlap


def _neighbours(mask: Tensor, reach: int) -> Tensor:
    """Symmetric-normalised adjacency (R, N, N) of true nodes at most `reach` apart."""
    index = torch.arange(mask.shape[1], device=mask.device)
    near = ((index[:, None] - index).abs() <= reach) & mask[:, :, None] & mask[:, None, :]
    degree = near.sum(-1).clamp(min=1).rsqrt()  # (R, N)
    return degree.unsqueeze(-1) * near * degree.unsqueeze(-2)  # D^-1/2 A D^-1/2


class MSPAN(VideoQABackbone):
    """Multi-scale progressive attention network.

    Args:
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        hidden_size: H = J, even.
        num_scales: scales of time; scale s pools s + 1 neighbouring frames.
        rounds: times that all scales exchange messages.
        gcn_layers: convolutions inside a scale per round.
        activation: of products of question and clip: "relu" in the released open-ended models, "elu" where answers are
            chosen.
        question_state: "last" layer's states are the question; "first" layer's, as released.
        meeting: which nodes of two scales attend to each other: those that share a frame ("overlap"), or, as released,
            those that begin close together, while all others take part with a score of 0 ("start").
        dropout: between convolutions and in the answer head.

    Example:
        >>> mspan = MSPAN(6, 10, 3, hidden_size=4)
        >>> question = mspan.encode_question(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
        >>> frames = mspan.embed_frames(torch.randn(2, 7, 10))
        >>> video = mspan.encode_video(frames, torch.ones(2, 7, dtype=torch.bool))
        >>> mspan.answer(mspan.fuse(question, video)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        text_dim: int,
        frame_dim: int,
        num_answers: int | None,
        hidden_size: int = 512,
        num_scales: int = 2,
        rounds: int = 2,
        gcn_layers: int = 2,
        activation: Literal["relu", "elu"] = "elu",
        question_state: Literal["last", "first"] = "last",
        meeting: Literal["overlap", "start"] = "overlap",
        dropout: float = 0.3,
    ):
        super().__init__(text_dim, frame_dim, num_answers)
        check_sizes("MSPAN", hidden_size, {"2": 2}, num_scales=num_scales, rounds=rounds, gcn_layers=gcn_layers)
        self.question_dim = self.joint_dim = hidden_size
        self.linguistic = Linguistic(text_dim, hidden_size, question_state)
        self.fc_cat = nn.Linear(frame_dim, hidden_size)
        self.ssp_offer = ProgressiveAttention(
            hidden_size, num_scales, rounds, gcn_layers, dropout, activation, meeting
        )
        self.que_visual = Fusion(hidden_size, activation, bias=True)
        answers = 1 if num_answers is None else num_answers
        self.classifier = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ELU(),
            nn.BatchNorm1d(hidden_size),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, answers),
        )

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Encode questions to (R, H); their tokens are not used again."""
        return Question(self.linguistic(*pack_left(tokens, mask)))

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Project frames to H, without the bias."""
        return without_bias(self.fc_cat, frames)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Move true frames to the left, (V, T', H); no recurrence."""
        frames, mask = pack_left(frames, mask)
        return Video(frames + bias_of(self.fc_cat, self.frame_dim, frames), mask)

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Encode the clip given the question, times the question; (R, H)."""
        seen = self.ssp_offer(video.frames, video.mask, question.pooled)  # (R, H)
        return self.que_visual(seen, question.pooled)

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers by two layers with a batch norm between them, to (R, num_answers or 1)."""
        return self.classifier(joint)


register_backbone("mspan", MSPAN)
