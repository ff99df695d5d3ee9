"""The original TranSTR as plainly as it can be written: what `speed.py` measures our model against.

Own code after the description of the published method (arXiv 2307.12058): the top-K as a one-hot tensor over every
noise draw, every string padded to the longest of its group, the video encoded anew for every question, frames and
objects gathered by matrix products, attention maps built everywhere. Submodule names are those of our model, so that
its weights load and equal answers prove that both compute the same thing.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel

from hf_causal_video.models.transtr import TranSTRConfig


class OneHotTopK(torch.autograd.Function):
    """Perturbed top-K with every draw kept as one-hot rows (b, samples, k, d), and the diagonal backward."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, samples: int, sigma: float) -> Tensor:
        """Selector (b, k, d) of scores (b, d)."""
        noise = torch.randn(len(scores), samples, scores.shape[1])
        kept = torch.topk(scores.unsqueeze(1) + noise * sigma, k, dim=-1, sorted=False).indices
        one_hot = F.one_hot(kept.sort(dim=-1).values, scores.shape[1]).float()  # (b, n, k, d)
        ctx.save_for_backward(one_hot, noise)
        ctx.scale = samples * sigma
        return one_hot.mean(1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """Each slot and position hears of the noise at that position."""
        one_hot, noise = ctx.saved_tensors
        correlation = torch.einsum("bnkd,bnd->bkd", one_hot, noise) / ctx.scale
        return (upstream[0] * correlation).sum(1), None, None, None


def one_hot_topk(scores: Tensor, k: int, samples: int = 500, sigma: float = 0.05) -> Tensor:
    """The perturbed selector as (b, d, k), like ours."""
    return OneHotTopK.apply(scores, k, samples, sigma).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention that always builds its map."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mixed values (B, Q, D), and the map (B, Q, S) averaged over heads."""

        def split(x: Tensor) -> Tensor:
            return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

        q, k, v = split(self.q_lin(query)), split(self.k_lin(key)), split(self.v_lin(value))
        energy = torch.matmul(q / math.sqrt(q.shape[-1]), k.transpose(2, 3))
        if mask is not None:
            energy = energy.masked_fill(~mask[:, None, None, :].expand_as(energy), -math.inf)
        weights = self.dropout(energy.softmax(-1))
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(query.shape)
        return self.out_lin(mixed), weights.mean(1)


class Layer(nn.Module):
    """One post-norm layer, with attention to a memory if `cross`."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, cross: bool):
        super().__init__()
        self.self_attn = Attention(dim, heads, dropout)
        if cross:
            self.multihead_attn, self.norm3 = Attention(dim, heads, dropout), nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x, pos, mask, memory=None, memory_mask=None):
        """Updated x (B, Q, D), and the map over the memory."""
        placed = x if pos is None else x + pos
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, mask)[0]))
        ranking, last = None, self.norm2
        if memory is not None:
            placed = x if pos is None else x + pos
            update, ranking = self.multihead_attn(placed, memory, memory, memory_mask)
            x, last = self.norm2(x + self.dropout(update)), self.norm3
        return last(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu())))), ranking


class Stack(nn.Module):
    """Layers and a final norm."""

    def __init__(self, layers: int, *shape: Any):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(Layer(*shape) for _ in range(layers)), nn.LayerNorm(shape[0])

    def forward(self, x, pos, mask, memory=None, memory_mask=None):
        """Updated x, and the map of the last layer."""
        ranking = None
        for layer in self.layers:
            x, ranking = layer(x, pos, mask, memory, memory_mask)
        return self.norm(x), ranking


class Resizer(nn.Module):
    """Linear, norm, dropout."""

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.fc, self.layer_norm, self.dropout = (
            nn.Linear(width, dim),
            nn.LayerNorm(dim, eps=1e-12),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., dim)."""
        return self.dropout(self.layer_norm(self.fc(x)))


def positions(mask: Tensor, dim: int) -> Tensor:
    """Sinusoids over the count of valid entries, a sequence spanning 2 pi."""
    steps = mask.cumsum(1, dtype=torch.float32)
    steps = steps / (steps[:, -1:] + 1e-6) * 2 * math.pi
    rates = 10000 ** (2 * (torch.arange(dim, dtype=torch.float32) // 2) / dim)
    angles = steps[:, :, None] / rates
    return torch.stack((angles[:, :, 0::2].sin(), angles[:, :, 1::2].cos()), dim=3).flatten(2)


class ReferenceTranSTR(nn.Module):
    """Multiple-choice TranSTR with the published selection.

    Args:
        config: a config of our model with the published switches (`official-nextqa`).
    """

    def __init__(self, config: TranSTRConfig):
        super().__init__()
        self.config = config
        dim, heads, drop = config.hidden_size, config.num_attention_heads, float(config.hidden_dropout_prob)
        shape = config.num_layers, dim, heads, config.intermediate_size, drop
        self.text_encoder = AutoModel.from_config(config.text_config)
        self.obj_resize = Resizer(config.object_input_dim, dim, drop)
        self.frame_decoder, self.obj_decoder, self.fo_decoder = (Stack(*shape, True) for _ in range(3))
        self.vl_encoder, self.ans_decoder = Stack(*shape, False), Stack(*shape, True)
        self.classifier = nn.Linear(dim, 1)

    def forward(self, frames: Tensor, objects: Tensor, question: tuple, choices: tuple) -> Tensor:
        """Scores (B, A) of frames (B, T, D) and objects with boxes (B, T, N, C); text as (ids, mask)."""
        encoded = self.text_encoder(*question).last_hidden_state  # (B, L, D)
        batch, number = choices[0].shape[:2]
        strings = self.text_encoder(choices[0].flatten(0, 1), choices[1].flatten(0, 1)).last_hidden_state
        return self.reason(frames, objects, encoded, question[1].bool(), strings[:, 0].view(batch, number, -1))

    def reason(self, frames: Tensor, objects: Tensor, question: Tensor, mask: Tensor, choices: Tensor) -> Tensor:
        """The method's own part: everything after the text encoder."""
        batch, length, number = objects.shape[:3]
        keep, keep_objects = self.config.num_frames_kept, self.config.num_objects_kept
        everything = torch.ones(batch, length, dtype=torch.bool)
        frames, ranking = self.frame_decoder(frames, positions(everything, frames.shape[-1]), None, question, mask)
        selector = self.select(ranking, keep)  # (B, T, K)
        frames = torch.matmul(frames.transpose(1, 2), selector).transpose(1, 2)  # (B, K, D)
        objects = torch.matmul(objects.flatten(2).transpose(1, 2), selector).transpose(1, 2)  # (B, K, N*C)
        objects = self.obj_resize(objects.reshape(batch * keep, number, -1))
        tokens, token_mask = question.repeat_interleave(keep, 0), mask.repeat_interleave(keep, 0)
        objects, ranking = self.obj_decoder(objects, None, None, tokens, token_mask)
        selector = self.select(ranking, keep_objects)
        objects = torch.matmul(objects.transpose(1, 2), selector).transpose(1, 2)  # (B*K, M, D)
        fused = self.fo_decoder(frames, None, None, objects.reshape(batch, keep * keep_objects, -1), None)[0]
        memory_mask = torch.cat([torch.ones(batch, keep, dtype=torch.bool), mask], 1)
        memory = torch.cat([fused, question], 1)
        memory = self.vl_encoder(memory, positions(memory_mask, memory.shape[-1]), memory_mask)[0]
        answers = self.ans_decoder(choices, None, None, memory, memory_mask)[0]
        return self.classifier(answers).squeeze(-1)

    def select(self, ranking: Tensor, keep: int) -> Tensor:
        """Selector (R, items, keep) from a map (R, items, L)."""
        items, flat = ranking.shape[1], ranking.flatten(1)
        if self.training:
            selector = one_hot_topk(flat, keep, self.config.topk_samples, float(self.config.topk_sigma))
        else:
            kept = torch.topk(flat, keep, dim=-1, sorted=False).indices
            selector = F.one_hot(kept, flat.shape[1]).float().transpose(1, 2)
        return selector.unflatten(1, (items, -1)).sum(2)
