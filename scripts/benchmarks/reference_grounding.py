"""The original IGV and EIGV over HGA, as plainly as can be: what `speed_grounding.py` measures ours against.

Own code after the description of the published methods (arXiv 2206.02349 and 2207.12783) and of the network they wrap,
one step after the other as published: frames are packed in a loop over samples, every branch is encoded and fused on
its own, all three also at test time, and swapped frames are drawn from a weight for each frame of the whole bank.
Submodule names are those of the published checkpoints, so that our model loads the same weights and equal numbers
prove that both compute the same thing.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Encoded = tuple[Tensor, Tensor, Tensor]  # local (R, S, 2d), global (R, 2d), lengths (R,)


@dataclass(frozen=True)
class Shape:
    """Sizes of a network: by default those of NExT-QA.

    Args:
        video, text, word, hidden: widths of a frame, a token, its embedding, and of each direction.
        answers: None for multiple choice.
        cell: "GRU" in IGV, "LSTM" in EIGV.
        dropout, tau: of the network, and of the Gumbel softmax.
        block: width, chunks and rank of the Block fusion.
    """

    video: int = 4096
    text: int = 768
    word: int = 768
    hidden: int = 512
    answers: int | None = None
    cell: str = "LSTM"
    dropout: float = 0.3
    tau: float = 0.9
    block: tuple[int, int, int] = (1600, 20, 15)


def recur(rnn: nn.RNNBase, x: Tensor, lengths: Tensor) -> Encoded:
    """Local and global states of packed rows."""
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    out, state = rnn(packed)
    state = state[0] if isinstance(state, tuple) else state
    local, _ = pad_packed_sequence(out, batch_first=True)
    return F.layer_norm(local, local.shape[-1:]), torch.cat([state[0], state[1]], -1), lengths


class QuestionEncoder(nn.Module):
    """Embed tokens, read them both ways."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(shape.text, shape.word), nn.ReLU(), nn.Dropout(shape.dropout))
        self.rnn = getattr(nn, shape.cell)(shape.word, shape.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Encoded:
        """Token features (R, L, text)."""
        return recur(self.rnn, self.dropout(self.embedding(tokens)), lengths)


class VideoEncoder(nn.Module):
    """Project frames, read those of the mask both ways."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.vid2hid = nn.Sequential(nn.Linear(shape.video, shape.hidden), nn.ReLU(), nn.Dropout(shape.dropout))
        self.rnn = getattr(nn, shape.cell)(shape.hidden, shape.hidden, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Encoded:
        """Frames (R, T, C), and which of them count."""
        x = self.vid2hid(frames)
        lengths = torch.full((len(x),), x.shape[1]) if mask is None else mask.sum(1)
        if mask is not None:
            packed = torch.zeros_like(x)
            for row in range(len(x)):
                packed[row, : int(lengths[row])] = x[row][mask[row]]
            x = packed
        return recur(self.rnn, x, lengths)


class FrameScorer(nn.Module):
    """Attention of the question over the frames."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear_q, self.linear_k = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, question: Tensor, frames: Tensor) -> Tensor:
        """Probabilities (R, T)."""
        scores = torch.bmm(self.linear_k(frames), self.linear_q(question).unsqueeze(2)).squeeze(2)
        return (scores / math.sqrt(frames.shape[2])).softmax(-1)


class NormedLinear(nn.Module):
    """A bias-free linear layer whose rows have a length of their own."""

    def __init__(self, dim: int):
        super().__init__()
        weight = nn.Linear(dim, dim, bias=False).weight.detach()
        self.weight_g, self.weight_v = nn.Parameter(weight.norm(dim=1, keepdim=True)), nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True))


class Adjacency(nn.Module):
    """How much any two nodes have to do with one another."""

    def __init__(self, dim: int):
        super().__init__()
        self.edge_layer_1, self.edge_layer_2 = NormedLinear(dim), NormedLinear(dim)

    def forward(self, nodes: Tensor) -> Tensor:
        """(R, S, dim) to (R, S, S)."""
        nodes = self.edge_layer_2(self.edge_layer_1(nodes).relu()).relu()
        return torch.bmm(nodes, nodes.transpose(1, 2))


class GraphLayer(nn.Module):
    """One graph convolution."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.weight, self.dropout = nn.Linear(dim, dim, bias=False), nn.Dropout(dropout)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Nodes (R, S, dim)."""
        nodes = torch.bmm(adjacency, self.weight(nodes))
        return self.dropout(F.layer_norm(nodes, nodes.shape[-1:]).relu())


class Graph(nn.Module):
    """Two graph convolutions."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(GraphLayer(dim, dropout) for _ in range(2))

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Nodes (R, S, dim)."""
        for layer in self.layers:
            nodes = layer(nodes, adjacency)
        return nodes


class Block(nn.Module):
    """Bilinear fusion in chunks of low rank (Ben-Younes et al. 2019)."""

    def __init__(self, dim: int, block: tuple[int, int, int], dropout: float):
        super().__init__()
        (width, chunks, self.rank), self.dropout = block, dropout
        size = width // chunks
        self.linear0, self.linear1 = nn.Linear(dim, width), nn.Linear(dim, width)
        self.merge_linears0, self.merge_linears1 = (
            nn.ModuleList(nn.Linear(size, size * self.rank) for _ in range(chunks)) for _ in range(2)
        )
        self.linear_out = nn.Linear(width, dim)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(R, dim) each, to (R, dim)."""
        a, b = (F.dropout(x, self.dropout, self.training) for x in (self.linear0(a), self.linear1(b)))
        parts = []
        for x, y, left, right in zip(
            a.chunk(len(self.merge_linears0), 1), b.chunk(len(self.merge_linears1), 1),
            self.merge_linears0, self.merge_linears1, strict=True,
        ):  # fmt: skip
            z = (left(x) * right(y)).view(len(x), self.rank, -1).sum(1)
            z = z.relu().sqrt() - (-z).relu().sqrt()
            parts.append(F.normalize(z, dim=1))
        return self.linear_out(torch.cat(parts, 1))


class HGA(nn.Module):
    """The network both methods wrap: a graph over the nodes of question and video."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape, dim = shape, 2 * shape.hidden
        self.vid_encoder, self.qns_encoder = VideoEncoder(shape), QuestionEncoder(shape)
        self.adj_learner, self.gcn = Adjacency(dim), Graph(dim, shape.dropout)
        self.atten_pool = nn.Sequential(nn.Linear(dim, dim // 2), nn.Tanh(), nn.Linear(dim // 2, 1))
        self.global_fusion, self.fusion = Block(dim, shape.block, shape.dropout), Block(dim, shape.block, 0.0)
        self.decoder = nn.Linear(dim, 1 if shape.answers is None else shape.answers)

    def fuse(self, question: Encoded, video: Encoded) -> Tensor:
        """Joint vectors (R, 2d)."""
        nodes = torch.cat([question[0], video[0]], 1)
        nodes = self.gcn(nodes, self.adj_learner(nodes))
        mask = torch.cat([
            torch.arange(part[0].shape[1]) < part[2].unsqueeze(1) for part in (question, video)
        ], 1)  # fmt: skip
        share = self.atten_pool(nodes).softmax(1) * mask.unsqueeze(2)
        return self.fusion(self.global_fusion(question[1], video[1]), (nodes * share).sum(1))

    def split(self, question: Tensor, frames: Tensor, noise: Tensor | None, scorers) -> tuple[Tensor, Tensor]:
        """Hard masks (R, T) of both sides, straight through."""
        logits = torch.stack([scorer(question, frames) for scorer in scorers], 1)  # (R, 2, T)
        noise = -torch.empty_like(logits).exponential_().log() if noise is None else noise
        soft = ((logits + noise) / self.shape.tau).softmax(1)
        hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0) - soft.detach() + soft
        return hard[:, 0], hard[:, 1]

    def draw(self, bank: Tensor, own: Tensor, flat: Tensor | None) -> Tensor:
        """Frames (R, T, C) of the bank (V, T, C) for each row, never of its own videos (R, n)."""
        videos, frames = bank.shape[:2]
        if flat is None:
            weights = torch.ones(len(own), videos, frames)
            for row, rows in enumerate(own.tolist()):
                weights[row, rows] = 0
            flat = torch.multinomial(weights.flatten(1), frames, replacement=True)
        return bank.flatten(0, 1)[flat]


class Indicator(nn.Module):
    """The two scorers of IGV."""

    def __init__(self, dim: int):
        super().__init__()
        self.fg_att, self.bg_att = FrameScorer(dim), FrameScorer(dim)


class ReferenceIGV(HGA):
    """IGV, open-ended."""

    def __init__(self, shape: Shape):
        super().__init__(shape)
        self.indicator = Indicator(2 * shape.hidden)

    def forward(self, frames, tokens, lengths, bank, own, noise=None, flat=None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, answers) of the causal, the intervened and the complement branch."""
        question, (local, _, _) = self.qns_encoder(tokens, lengths), self.vid_encoder(frames)
        scorers = self.indicator.fg_att, self.indicator.bg_att
        causal, complement = self.split(question[1], local, noise, scorers)
        keep, rest = (mask.bool() | ~mask.bool().any(1, keepdim=True) for mask in (causal, complement))
        swapped = self.draw(bank, own.unsqueeze(1), flat)
        away = ~keep.unsqueeze(2)
        swapped = frames * ~away + swapped * away
        branches = (
            self.vid_encoder(frames * causal.unsqueeze(2), keep),
            self.vid_encoder(swapped),
            self.vid_encoder(frames * complement.unsqueeze(2), rest),
        )
        found = [self.decoder(self.fuse(question, video)) for video in branches]
        return found[0], found[1], found[2]

    def loss(self, logits: tuple[Tensor, Tensor, Tensor], answer: Tensor) -> Tensor:
        """Answer, intervention and uniform complement."""
        causal, swapped, complement = logits
        uniform = torch.full_like(complement, 1 / complement.shape[1])
        away = F.kl_div(swapped.log_softmax(1), causal.softmax(1), reduction="batchmean")
        nothing = F.kl_div(complement.log_softmax(1), uniform, reduction="batchmean")
        return F.cross_entropy(causal, answer) + away + nothing


class ReferenceEIGV(HGA):
    """EIGV, multiple choice."""

    def __init__(self, shape: Shape, negatives: int = 5):
        super().__init__(shape)
        dim, self.negatives = 2 * shape.hidden, negatives
        self.fg_att, self.bg_att = FrameScorer(dim), FrameScorer(dim)
        self.project_head = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, frames: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores (B, A): the plain network on the whole video."""
        batch, choices = lengths.shape
        question = self.qns_encoder(tokens.flatten(0, 1), lengths.flatten())
        video = self.vid_encoder(frames)
        video = video[0].repeat_interleave(choices, 0), *(part.repeat_interleave(choices, 0) for part in video[1:])
        return self.decoder(self.fuse(question, video)).view(batch, choices)

    def step(self, frames, tokens, lengths, answer, bank, own, draws=None, beta: float = 0.0125, alpha: float = 0.1):
        """The loss of one training step: answers of mixed scenes, and a contrast of what was swapped."""
        draws = {} if draws is None else draws
        (batch, choices), n = lengths.shape, self.negatives
        drawn = (torch.distributions.Beta(a, a).sample() for a in (alpha, 1.0))
        lam, other = (draws.get(f"lambda{i}", value) for i, value in enumerate(drawn, 1))
        partner = draws.get("permutation", torch.randperm(batch))
        scorers = self.fg_att, self.bg_att

        every = self.qns_encoder(tokens.flatten(0, 1), lengths.flatten())
        right = torch.arange(batch) * choices + answer
        asked = every[0][right], every[1][right], every[2][right]
        causal, around = self.split(asked[1], self.vid_encoder(frames)[0], draws.get("gumbel_noise_1"), scorers)
        parts = frames * causal.unsqueeze(2), frames * around.unsqueeze(2)
        mixed = lam * parts[0] + other * parts[1] + (1 - lam) * parts[0][partner] + (1 - other) * parts[1][partner]
        question = *(lam * x + (1 - lam) * x[partner] for x in asked[:2]), asked[2]
        video = self.vid_encoder(mixed)

        rows = torch.arange(batch * choices).view(batch, choices)
        rows = torch.cat([rows, rows[partner]], 1).flatten()  # own candidates, then the partner's
        many = tuple(x.repeat_interleave(2 * choices, 0) for x in video)
        scores = self.decoder(self.fuse(tuple(x[rows] for x in every), many)).view(batch, -1)
        target = torch.cat([lam * F.one_hot(answer, choices), (1 - lam) * F.one_hot(answer[partner], choices)], 1)
        loss = F.kl_div(scores.log_softmax(1), target, reduction="batchmean")

        anchor = self.project_head(self.fuse(question, video))
        causal, around = self.split(question[1], video[0], draws.get("gumbel_noise_2"), scorers)
        both = torch.stack([own, own[partner]], 1)
        around, causal = around.unsqueeze(2), causal.unsqueeze(2)
        swapped = self.draw(bank, both, draws.get("bank_index_positive"))
        positive = self.project_head(self.fuse(question, self.vid_encoder(mixed * causal + swapped * around)))
        again = tuple(x.repeat(n, *[1] * (x.dim() - 1)) for x in question)  # copy after copy
        swapped = self.draw(bank, both.repeat(n, 1), draws.get("bank_index_negative"))
        changed = mixed.repeat(n, 1, 1) * around.repeat(n, 1, 1) + swapped * causal.repeat(n, 1, 1)
        visual = self.project_head(self.fuse(again, self.vid_encoder(changed)))
        order = draws.get("question_shuffle", torch.randperm(n * batch))
        encoded = tuple(x.repeat(n, *[1] * (x.dim() - 1)) for x in video)
        textual = self.project_head(self.fuse(tuple(x[order] for x in again), encoded))
        negative = torch.cat([visual, textual]).view(batch, 2 * n, -1)  # as published: rows of different samples mix
        both = torch.cat([positive.unsqueeze(1), negative], 1)
        similar = F.cosine_similarity(anchor.unsqueeze(1), both, dim=-1) / 0.1
        return loss + beta * F.cross_entropy(similar, torch.zeros(batch, dtype=torch.long))
