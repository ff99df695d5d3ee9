"""HGA: question words and frames as nodes of one graph with learned edges, pooled and fused into an answer.

Why here: it is the backbone of IGV's released code, and one of EIGV's three.

Source: Jiang and Han, "Reasoning with Heterogeneous Graph Alignment for Video Question Answering", AAAI 2020, in the
form that IGV and EIGV use: bidirectional, without co-attention, decoding to a vocabulary or one score a candidate.
Submodule names follow the published checkpoints. Switches for what was released: `pool_mask="post"`, and
`bilinear_epsilon=None`.

Speed: the first projection of a frame is linear, so edited copies of a clip share it. What a node contributes to edges
and to the first convolution depends on that node alone, so it is computed once and gathered for each pair. Layers
without bias leave padding at zero, so they run on true nodes only.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from hf_causal_video.backbones.base import (
    Question,
    Video,
    VideoQABackbone,
    bias_of,
    check_sizes,
    register_backbone,
    without_bias,
)
from hf_causal_video.backbones.bilinear import BlockFusion
from hf_causal_video.backbones.recurrent import BidirectionalEncoder, Packing, pack_left


class XavierLinear(nn.Linear):
    """A linear layer that starts as the published encoders do."""

    def reset_parameters(self) -> None:
        """Draw Xavier-normal weights, and the usual bias."""
        super().reset_parameters()
        nn.init.xavier_normal_(self.weight)


class QuestionEncoder(BidirectionalEncoder):
    """Projection, dropout (twice, as released), a recurrence in both directions."""

    def __init__(self, text_dim: int, word_dim: int, dim: int, cell: str, dropout: float):
        super().__init__(word_dim, dim, cell)
        self.embedding = nn.Sequential(XavierLinear(text_dim, word_dim), nn.ReLU(), nn.Dropout(dropout))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens (R, L, D_text) to normalised states (R, L, H) and the last states (R, H)."""
        states, last = super().forward(self.dropout(self.embedding(x)), mask)
        return F.layer_norm(states, states.shape[-1:]), last


class VideoEncoder(BidirectionalEncoder):
    """Rest of the projection of the frames, and a recurrence in both directions."""

    def __init__(self, frame_dim: int, dim: int, cell: str, dropout: float):
        super().__init__(dim, dim, cell)
        self.frame_dim = frame_dim
        self.vid2hid = nn.Sequential(XavierLinear(frame_dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames (R, T, dim), projected without bias, to normalised states (R, T, H) and last states (R, H)."""
        linear, relu, dropout = self.vid2hid
        bias = bias_of(linear, self.frame_dim, x)  # (1, dim)
        states, last = super().forward(dropout(relu(x + bias)), mask)
        return F.layer_norm(states, states.shape[-1:]), last


class WeightNormLinear(nn.Module):
    """A linear map without bias, (..., C) to (..., E), whose row i is g_i v_i / |v_i|.

    Why two parameters and no parametrisation of torch: adapters merged into a computed weight are lost, no pickle
    takes one, and nothing initialises its halves.
    Source: Salimans and Kingma, "Weight Normalization", NeurIPS 2016 (arXiv 1602.07868).
    """

    OLD_NAMES = {
        "g": ("weight_g", "parametrizations.weight.original0"),
        "v": ("weight_v", "parametrizations.weight.original1"),
    }

    def __init__(self, width: int, out: int):
        super().__init__()
        self.g = nn.Parameter(torch.empty(out, 1))
        self.v = nn.Parameter(torch.empty(out, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as `torch.nn.Linear` does."""
        init.kaiming_uniform_(self.v, a=math.sqrt(5))
        init.copy_(self.g, self.v.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., E)."""
        return F.linear(x, torch._weight_norm(self.v, self.g, 0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any) -> None:
        """Accept the names of both forms of torch's weight normalisation too."""
        for name, old_names in self.OLD_NAMES.items():
            for old in old_names:
                if prefix + old in state_dict:
                    state_dict[prefix + name] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


class AdjacencyLearner(nn.Module):
    """Edges of the graph: scalar products of the nodes behind two layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.edge_layer_1, self.edge_layer_2 = (WeightNormLinear(dim, dim) for _ in range(2))

    def embed(self, nodes: Tensor) -> Tensor:
        """Embed nodes (..., H) in the space of the edges, (..., H)."""
        return self.edge_layer_2(self.edge_layer_1(nodes).relu()).relu()

    def forward(self, embedded: Tensor) -> Tensor:
        """Multiply embedded nodes (R, N, H) to the adjacency (R, N, N), not normalised."""
        return embedded @ embedded.transpose(1, 2)


class GraphConvolution(nn.Module):
    """A weight for every node; the adjacency, norm, ReLU and dropout follow in `GCN`."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Linear(dim, dim, bias=False)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map nodes (..., H) to (..., H)."""
        return self.weight(nodes)


class GCN(nn.Module):
    """Graph convolutions without residual."""

    def __init__(self, dim: int, layers: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(GraphConvolution(dim) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def embed(self, nodes: Tensor) -> Tensor:
        """Apply the first layer's weight, which needs no neighbours."""
        return self.layers[0](nodes)

    def forward(self, embedded: Tensor, adjacency: Tensor, packing: Packing) -> Tensor:
        """Convolve nodes behind the first weight (P, N, H) over (P, N, N), to nodes (P, N, H), zero at padding."""
        nodes = self._sum_neighbours(embedded, adjacency, packing)
        for layer in self.layers[1:]:
            nodes = self._sum_neighbours(packing.pad(layer(nodes)), adjacency, packing)
        return packing.pad(nodes)

    def _sum_neighbours(self, embedded: Tensor, adjacency: Tensor, packing: Packing) -> Tensor:
        """Sum over neighbours, normalise and activate, (P, N, H) to the true nodes alone (positions, H)."""
        summed = packing.pack(adjacency @ embedded)  # (positions, H): A X W, with W applied before
        return self.dropout(F.layer_norm(summed, summed.shape[-1:]).relu())


class AttentionPool(nn.Sequential):
    """Attention over nodes."""

    def forward(self, nodes: Tensor, packing: Packing, takes_part: Tensor) -> Tensor:  # type: ignore[override]
        """Weigh nodes (P, N, H), to (P, N, 1), which sum to 1 over the nodes that take part (P, N).

        Padding that takes part is a node of zeros.
        """
        scores = super().forward(packing.pack(nodes))  # (positions, 1)
        scores = packing.pad(scores, super().forward(nodes.new_zeros(1, nodes.shape[-1])).squeeze())
        return scores.masked_fill(~takes_part.unsqueeze(-1), torch.finfo(scores.dtype).min).softmax(1)


class HGA(VideoQABackbone):
    """Heterogeneous graph alignment.

    Args:
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        hidden_dim: width of one direction; H = J = 2 * hidden_dim.
        word_dim: width of a token before the recurrence.
        cell: "gru" (IGV) or "lstm" (EIGV).
        dropout: everywhere it applies.
        gcn_layers: graph convolutions.
        pool_mask: "pre" masks padded nodes before the softmax of the pooling; "post" after it, as released: padding
            then takes part of the attention, so an answer depends on how long the other questions of its batch are.
        bilinear_dim, bilinear_chunks, bilinear_rank, bilinear_epsilon: of the Block fusions.

    Example:
        >>> hga = HGA(6, 10, 3, hidden_dim=4, word_dim=5, bilinear_dim=8, bilinear_chunks=2, bilinear_rank=2)
        >>> question = hga.encode_question(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
        >>> frames = hga.embed_frames(torch.randn(2, 7, 10))
        >>> video = hga.encode_video(frames, torch.ones(2, 7, dtype=torch.bool))
        >>> hga.answer(hga.fuse(question, video)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        text_dim: int,
        frame_dim: int,
        num_answers: int | None,
        hidden_dim: int = 512,
        word_dim: int = 512,
        cell: Literal["gru", "lstm"] = "lstm",
        dropout: float = 0.3,
        gcn_layers: int = 2,
        pool_mask: Literal["pre", "post"] = "pre",
        bilinear_dim: int = 1600,
        bilinear_chunks: int = 20,
        bilinear_rank: int = 15,
        bilinear_epsilon: float | None = 1e-6,
    ):
        super().__init__(text_dim, frame_dim, num_answers)
        check_sizes("HGA", hidden_dim, {}, gcn_layers=gcn_layers)
        dim = self.question_dim = self.joint_dim = 2 * hidden_dim  # both directions of the recurrence
        self.pool_mask = pool_mask
        self.depends_on_batch = pool_mask == "post"
        self.qns_encoder = QuestionEncoder(text_dim, word_dim, hidden_dim, cell, dropout)
        self.vid_encoder = VideoEncoder(frame_dim, hidden_dim, cell, dropout)
        self.adj_learner = AdjacencyLearner(dim)
        self.gcn = GCN(dim, gcn_layers, dropout)
        self.atten_pool = AttentionPool(nn.Linear(dim, dim // 2), nn.Tanh(), nn.Linear(dim // 2, 1))
        shape = (bilinear_dim, bilinear_chunks, bilinear_rank)
        self.global_fusion = BlockFusion(dim, dim, dim, *shape, dropout, bilinear_epsilon)
        self.fusion = BlockFusion(dim, dim, dim, *shape, 0.0, bilinear_epsilon)
        self.decoder = nn.Linear(dim, 1 if num_answers is None else num_answers)

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Encode words (R, L', H), up to the longest question, and the last states (R, H)."""
        tokens, mask = pack_left(tokens, mask)
        states, last = self.qns_encoder(tokens, mask)  # (R, L', H), (R, H)
        return Question(last, states, mask)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Project frames (V, T, C) to (V, T, hidden_dim), without the bias."""
        return without_bias(self.vid_encoder.vid2hid[0], frames)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Encode true frames, moved to the left, to (V, T, H)."""
        frames, mask = pack_left(frames, mask, cut=False)
        states, last = self.vid_encoder(frames, mask)  # (V, T, H), (V, H)
        if self.pool_mask == "pre":
            return Video(states, mask, last)
        longest = mask.sum(1).max().expand(len(mask))  # padding up to here takes part in the pooling
        return Video(states, mask, last, {"longest": longest})

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Pool the graph of words and frames, fuse it with the last states of both encoders; (R, J)."""
        rows = torch.arange(len(question.pooled), device=question.pooled.device)
        return self.fuse_pairs(question, video, rows, rows)

    def fuse_pairs(self, question: Question, video: Video, question_rows: Tensor, video_rows: Tensor) -> Tensor:
        """Fuse pairs (P,) as `fuse` does; the contribution of each node is computed once."""
        assert question.tokens is not None and question.mask is not None and video.pooled is not None
        word_mask = question.mask
        if self.pool_mask == "post":  # as released, a partner's words beyond this question are nodes that do not count
            word_mask = word_mask | question.tokens.any(-1)
        words, frames = Packing(word_mask), Packing(video.mask)
        single = torch.cat(
            [words.pack(question.tokens), frames.pack(video.frames)]
        )  # (nodes, H), every true node once
        start = 1 + len(words.positions)  # words are numbered from 1, frames after them; 0 is padding
        index = torch.cat([words.index(1)[question_rows], frames.index(start)[video_rows]], 1)  # (P, N)

        def nodes(embedded: Tensor) -> Tensor:  # to (P, N, H), padding takes the row of zeros
            table = F.pad(embedded, (0, 0, 1, 0))  # (1 + nodes, H)
            return table.index_select(0, index.flatten()).unflatten(0, index.shape)

        adjacency = self.adj_learner(nodes(self.adj_learner.embed(single)))  # (P, N, N)
        packing = Packing(index > 0)  # true nodes of each pair
        graph = self.gcn(nodes(self.gcn.embed(single)), adjacency, packing)  # (P, N, H)
        takes_part = counts = torch.cat([question.mask[question_rows], video.mask[video_rows]], 1)  # (P, N)
        if self.pool_mask == "post":
            position = torch.arange(index.shape[1], device=index.device) - question.mask.shape[1]  # (N,)
            takes_part = position < video.extra["longest"][video_rows].unsqueeze(1)
        weights = self.atten_pool(graph, packing, takes_part) * counts.unsqueeze(-1)  # (P, N, 1)
        local = (weights.transpose(1, 2) @ graph).squeeze(1)  # (P, H)
        whole = self.global_fusion(question.pooled[question_rows], video.pooled[video_rows])  # (P, H)
        return self.fusion(whole, local)

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers by a linear layer, to (R, num_answers or 1)."""
        return self.decoder(joint)


register_backbone("hga", HGA)
