"""Every backbone equals a plain loop over its nodes, steps and chunks, at many sizes and not only published ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.backbones.base import VideoQABackbone
from hf_causal_video.backbones.bilinear import BlockFusion, ChunkLinear, chunk_sizes
from hf_causal_video.backbones.comem import CoMem, EpisodicMemory
from hf_causal_video.backbones.hga import HGA, WeightNormLinear
from hf_causal_video.backbones.mspan import GAT, MSPAN, ProgressiveAttention
from hf_causal_video.backbones.plain import PlainTransformer
from hf_causal_video.utils.errors import CausalVideoError

TEXT, FRAME = 6, 10


def roughen(module: nn.Module) -> nn.Module:
    """A module in float64 no two of whose weights are alike."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def encode(backbone: VideoQABackbone, words: Tensor, frames: Tensor) -> tuple:
    """One question and one clip without padding."""
    question = backbone.encode_question(words.unsqueeze(0), torch.ones(1, len(words), dtype=torch.bool))
    embedded = backbone.embed_frames(frames.unsqueeze(0))
    return question, backbone.encode_video(embedded, torch.ones(1, len(frames), dtype=torch.bool))


# ----- Block fusion: a linear layer per chunk


@pytest.mark.parametrize(("width", "chunks"), [(w, c) for w in (1, 5, 6, 12, 17) for c in (1, 2, 3, 4, 5, 7, 17, 20)])
def test_chunk_sizes(width: int, chunks: int) -> None:
    size = math.ceil(width / chunks)
    sizes = [size] * chunks
    sizes[-1] -= sum(sizes) - width
    if sizes[-1] < 0:
        sizes[-1] = size
        for number in reversed(range(chunks)):
            if sum(sizes) > width:
                sizes[number] -= 1
    assert chunk_sizes(width, chunks) == sizes and sum(sizes) == width


@pytest.mark.parametrize("epsilon", [None, 1e-6])
@pytest.mark.parametrize(
    ("width", "chunks", "rank"), [(12, 3, 2), (12, 5, 3), (11, 4, 1), (10, 8, 2), (7, 1, 3), (6, 4, 2)]
)
def test_block_fusion(width: int, chunks: int, rank: int, epsilon: float | None) -> None:
    fusion = roughen(BlockFusion(4, 6, 3, width, chunks, rank, epsilon=epsilon))
    first, second = torch.randn(5, 4).double(), torch.randn(5, 6).double()

    def layers(side: int) -> list[tuple[Tensor, Tensor]]:
        parts: list[ChunkLinear] = [getattr(fusion, f"merge{side}")]
        if hasattr(fusion, f"merge{side}_rest"):
            parts.append(getattr(fusion, f"merge{side}_rest"))
        return [pair for part in parts for pair in zip(part.weight, part.bias, strict=True)]

    sizes = [size for size in chunk_sizes(width, chunks) if size]
    chosen = zip(
        fusion.linear0(first).split(sizes, 1),
        fusion.linear1(second).split(sizes, 1),
        layers(0),
        layers(1),
        strict=True,
    )
    parts = []
    for x, y, one, other in chosen:
        product = F.linear(x, *one) * F.linear(y, *other)  # (R, rank * size)
        z = torch.stack(product.chunk(rank, 1)).sum(0)
        root = z.sign() * z.abs().sqrt() if epsilon is None else z / (z.abs() + epsilon).sqrt()
        parts.append(F.normalize(root.float(), dim=1).double())
    expected = fusion.linear_out(torch.cat(parts, 1))
    torch.testing.assert_close(fusion(first, second), expected, atol=1e-5, rtol=1e-5)
    fusion(first, second).square().sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in fusion.parameters())


# ----- MSPAN: a loop over the nodes of every scale


def mspan_attend(gat: GAT, x: Tensor, others: list[Tensor], asked: Tensor, meets: list[bool]) -> Tensor:
    """One node hears the nodes of another scale."""
    scores = [gat.W3(x) @ gat.fusion_1(other, asked) for other in others]
    if gat.meeting == "start":
        scores = [score if meet else 0 * score for score, meet in zip(scores, meets, strict=True)]
    else:
        others = [other for other, meet in zip(others, meets, strict=True) if meet]
        scores = [score for score, meet in zip(scores, meets, strict=True) if meet]
    weights = torch.stack(scores).softmax(0)
    message = sum(weight * gat.fusion_2(other, asked) for weight, other in zip(weights, others, strict=True))
    return gat.W6(torch.cat([x, F.elu(message)]))


def mspan_reference(net: ProgressiveAttention, frames: Tensor, asked: Tensor) -> Tensor:
    count = len(frames)
    start = [[frames[k : k + scale + 1].amax(0) for k in range(max(count - scale, 1))] for scale in range(net.scales)]

    def meets(scale: int, j: int, other: int, k: int) -> bool:
        if net.meeting == "start":
            return abs(j - k) <= min(scale, other)
        return bool({*range(j, j + scale + 1)} & {*range(k, k + other + 1)})

    nodes = start
    for convolve, down, up in zip(net.GCN_Module, net.GAT_down, net.GAT_up, strict=True):
        convolved = []
        for scale, row in enumerate(nodes):
            places = range(len(row))
            near = {j: [k for k in places if abs(j - k) <= scale + 1] for j in places}
            for depth, layer in enumerate(convolve.gcn):
                row = [
                    sum(layer.weight(row[k]) / math.sqrt(len(near[j]) * len(near[k])) for k in near[j]) + layer.bias
                    for j in places
                ]
                row = [F.elu(x) for x in row] if depth == 0 else row
            convolved.append(row)
        nodes = convolved
        steps = [(scale, scale - 1, down) for scale in range(1, net.scales)]
        steps += [(scale, scale + 1, up) for scale in reversed(range(net.scales - 1))]
        for scale, other, gat in steps:
            nodes[scale] = [
                mspan_attend(
                    gat, x, nodes[other], asked, [meets(scale, j, other, k) for k in range(len(nodes[other]))]
                )
                for j, x in enumerate(nodes[scale])
            ]
        nodes = [[x + first for x, first in zip(*rows, strict=True)] for rows in zip(nodes, start, strict=True)]
    pool = net.attention
    scores = [pool.fc_Joint(pool.activation(pool.fc_visual(x) * pool.fc_question(asked))) for x in nodes[0]]
    return sum(weight * x for weight, x in zip(torch.stack(scores).softmax(0), nodes[0], strict=True))


MSPAN_SIZES = [
    (scales, rounds, layers, frames)
    for scales, rounds, layers, frames in [
        (1, 1, 1, 5), (2, 2, 2, 6), (2, 1, 1, 3), (2, 1, 3, 1), (3, 1, 1, 6), (3, 2, 3, 7), (4, 1, 2, 9), (4, 3, 2, 4),
        (5, 2, 1, 8), (3, 3, 4, 2),
    ]
]  # fmt: skip


@pytest.mark.parametrize("meeting", ["start", "overlap"])
@pytest.mark.parametrize(("scales", "rounds", "layers", "frames"), MSPAN_SIZES)
def test_mspan(scales: int, rounds: int, layers: int, frames: int, meeting: str) -> None:
    sizes = {"hidden_size": 4, "num_scales": scales, "rounds": rounds, "gcn_layers": layers, "meeting": meeting}
    mspan = roughen(MSPAN(TEXT, FRAME, 3, activation="relu" if rounds == 2 else "elu", **sizes))
    clip, words = torch.randn(frames, FRAME).double(), torch.randn(3, TEXT).double()
    question, video = encode(mspan, words, clip)
    asked = question.pooled[0]
    seen = mspan_reference(mspan.ssp_offer, mspan.fc_cat(clip), asked)
    torch.testing.assert_close(mspan.fuse(question, video)[0], mspan.que_visual(seen, asked), atol=1e-6, rtol=1e-5)
    several = torch.cat(
        [torch.randn(1, 2, FRAME).double(), clip.unsqueeze(0)], 1
    )  # the same clip behind masked frames
    mask = torch.arange(frames + 2).unsqueeze(0) >= 2
    hidden = mspan.encode_video(mspan.embed_frames(several), mask)
    torch.testing.assert_close(mspan.fuse(question, hidden), mspan.fuse(question, video))


# ----- Co-Mem: a loop over steps and iterations


def episode(memory: EpisodicMemory, facts: Tensor, wanted: Tensor, last: Tensor) -> Tensor:
    interactions = [torch.cat([x * wanted, x * last, (x - wanted).abs(), (x - last).abs()]) for x in facts]
    gates = torch.cat([memory.z2(memory.z1(x).tanh()) for x in interactions]).softmax(0)
    cell, state = memory.AGRU.AGRUCell, torch.zeros_like(wanted)
    for x, gate in zip(facts, gates, strict=True):
        reset = (cell.Wr(x) + cell.Ur(state)).sigmoid()
        new = (cell.W(x) + reset * cell.U(state)).tanh()
        state = gate * new + (1 - gate) * state
    return memory.next_mem(torch.cat([last, state, wanted])).relu()


@pytest.mark.parametrize(
    ("iterations", "layers", "appearance", "frames"),
    [(0, 1, None, 4), (1, 1, 4, 1), (2, 2, 7, 5), (3, 4, None, 3), (5, 1, 1, 6)],
)
def test_comem(iterations: int, layers: int, appearance: int | None, frames: int) -> None:
    sizes = {"hidden_size": 8, "word_dim": 5, "question_layers": layers, "appearance_dim": appearance}
    comem = roughen(CoMem(TEXT, FRAME, 3, iterations=iterations, **sizes))
    clip, words = torch.randn(frames, FRAME).double(), torch.randn(3, TEXT).double()
    question, video = encode(comem, words, clip)
    projected = comem.qns_encoder.embedding(words)
    asked = comem.qns_encoder.rnn(projected)[1].flatten()  # last states of all layers side by side
    torch.testing.assert_close(question.pooled[0], asked)
    streams = {"app": clip if appearance is None else clip[:, :appearance]}
    streams["motion"] = clip if appearance is None else clip[:, appearance:]
    facts = {}
    for name, x in streams.items():
        first = getattr(comem.vid_encoder, f"rnn_{name}_l1")(x)[0]
        facts[name] = torch.cat([first, getattr(comem.vid_encoder, f"rnn_{name}_l2")(first)[0]], -1)
    memory, motion = last, last_motion = facts["app"][-1], facts["motion"][-1]
    for _ in range(iterations):
        both = memory + motion
        last = episode(comem.epm_app, facts["app"], both, last)
        last_motion = episode(comem.epm_mot, facts["motion"], both, last_motion)
        memory = comem.linear_ma(torch.cat([memory, last, asked])).tanh()
        motion = comem.linear_mb(torch.cat([motion, last_motion, asked])).tanh()
    expected = comem.vq2word(torch.cat([memory, motion]))
    torch.testing.assert_close(comem.fuse(question, video)[0], expected, atol=1e-9, rtol=1e-9)


# ----- HGA: a loop over the nodes of the graph


def normalised(layer: WeightNormLinear) -> Tensor:
    rows = [g * v / v.square().sum().sqrt() for g, v in zip(layer.g, layer.v, strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize("pool_mask", ["pre", "post"])
@pytest.mark.parametrize(
    ("cell", "layers", "hidden", "width", "chunks", "rank", "frames"),
    [("gru", 1, 3, 8, 2, 2, 4), ("lstm", 2, 4, 9, 2, 1, 1), ("gru", 3, 5, 7, 3, 3, 6), ("lstm", 4, 2, 6, 6, 2, 3)],
)
def test_hga(
    cell: str, layers: int, hidden: int, width: int, chunks: int, rank: int, frames: int, pool_mask: str
) -> None:
    sizes = {"bilinear_dim": width, "bilinear_chunks": chunks, "bilinear_rank": rank, "gcn_layers": layers}
    hga = roughen(HGA(TEXT, FRAME, 3, hidden_dim=hidden, word_dim=5, cell=cell, pool_mask=pool_mask, **sizes))
    clip, words = torch.randn(frames, FRAME).double(), torch.randn(3, TEXT).double()
    question, video = encode(hga, words, clip)

    def read(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        states, last = encoder.rnn(x)
        last = last[0] if cell == "lstm" else last
        return F.layer_norm(states, states.shape[-1:]), last.flatten()

    tokens, asked = read(hga.qns_encoder, hga.qns_encoder.embedding(words))
    seen, whole = read(hga.vid_encoder, hga.vid_encoder.vid2hid(clip))
    nodes = [*tokens, *seen]
    one, two = normalised(hga.adj_learner.edge_layer_1), normalised(hga.adj_learner.edge_layer_2)
    ends = [(two @ (one @ x).relu()).relu() for x in nodes]
    for layer in hga.gcn.layers:
        moved = [layer.weight(x) for x in nodes]
        summed = [sum((end @ other) * x for other, x in zip(ends, moved, strict=True)) for end in ends]
        nodes = [F.layer_norm(x, x.shape).relu() for x in summed]
    scores = torch.cat([nn.Sequential.forward(hga.atten_pool, x) for x in nodes]).softmax(0)
    local = sum(score * x for score, x in zip(scores, nodes, strict=True))
    joint = hga.global_fusion(asked.unsqueeze(0), whole.unsqueeze(0))
    expected = hga.fusion(joint, local.unsqueeze(0))
    torch.testing.assert_close(hga.fuse(question, video), expected, atol=1e-5, rtol=1e-5)  # norms of Block in float32


@pytest.mark.parametrize(
    ("backbone", "sizes", "words"),
    [
        (CoMem, {"hidden_size": 8, "question_layers": 3}, "multiple of question_layers 3"),
        (CoMem, {"hidden_size": 7}, "multiple of 2"),
        (CoMem, {"appearance_dim": FRAME}, "10 channels"),
        (MSPAN, {"hidden_size": 5}, "multiple of 2"),
        (MSPAN, {"num_scales": 0}, "num_scales"),
        (PlainTransformer, {"hidden_size": 12, "heads": 8}, "multiple of heads 8"),
        (HGA, {"gcn_layers": 0}, "gcn_layers"),
        (HGA, {"bilinear_rank": 0}, "Block fusion"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_sizes_that_cannot_be_built(backbone: type, sizes: dict, words: str) -> None:
    with pytest.raises(CausalVideoError, match=words):
        backbone(TEXT, FRAME, 3, **sizes)


def test_weight_norm_is_that_of_torch() -> None:
    ours = WeightNormLinear(5, 3)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3, bias=False))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 5)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.g.grad, theirs.parametrizations.weight.original0.grad)
    torch.testing.assert_close(ours.v.grad, theirs.parametrizations.weight.original1.grad)
