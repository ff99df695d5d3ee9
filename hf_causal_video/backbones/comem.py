"""Co-Mem: an appearance and a motion memory, each updated with what both hold so far.

Why here: it is one of EIGV's three backbones. Both streams are read by two stacked GRUs; three times, each stream is
summarised by an attention-gated GRU whose attention depends on the sum of both memories, and the question enters as
the memories are updated.

Source: Gao et al., "Motion-Appearance Co-Memory Networks for Video Question Answering", CVPR 2018, equations 4 to 10,
in the form that EIGV uses. Submodule names follow the published checkpoints. Switch for what was released:
`detach_memory=True`, no gradient into the encoders through the memories' first value.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_causal_video.backbones.base import Question, Video, VideoQABackbone, check_sizes, register_backbone
from hf_causal_video.backbones.recurrent import GRU, pack_left
from hf_causal_video.utils.errors import require


def last_states(states: Tensor, mask: Tensor) -> Tensor:
    """Select the state at the last true step, (R, T, D) to (R, D); true steps come first."""
    index = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])  # (R, 1, D)
    return states.gather(1, index).squeeze(1)


class QuestionEncoder(nn.Module):
    """A projection and a GRU; the question is the concatenation of the last states of all layers."""

    def __init__(self, text_dim: int, word_dim: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(text_dim, word_dim), nn.ReLU(), nn.Dropout(dropout))
        self.rnn = GRU(word_dim, dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens (R, L, D_text) to the last layer's states (R, L, D) and the question (R, layers * D)."""
        x = self.embedding(x)
        lengths = mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.rnn(packed)  # last: (layers, R, D)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return states, last.transpose(0, 1).flatten(1)


class StreamEncoder(nn.Module):
    """Two stacked GRUs for appearance, two for motion; a frame is the concatenation of both of its states."""

    def __init__(self, appearance_dim: int, motion_dim: int, dim: int):
        super().__init__()
        self.rnn_app_l1 = _gru(appearance_dim, dim)
        self.rnn_app_l2 = _gru(dim, dim)
        self.rnn_motion_l1 = _gru(motion_dim, dim)
        self.rnn_motion_l2 = _gru(dim, dim)

    def forward(self, appearance: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (V, T, C_a) and (V, T, C_m) to two streams (V, T, 2 dim)."""
        appearance_1 = self.rnn_app_l1(appearance)[0]
        appearance_2 = self.rnn_app_l2(appearance_1)[0]  # (V, T, dim)
        motion_1 = self.rnn_motion_l1(motion)[0]
        motion_2 = self.rnn_motion_l2(motion_1)[0]
        return torch.cat([appearance_1, appearance_2], -1), torch.cat([motion_1, motion_2], -1)


def _gru(width: int, dim: int) -> GRU:
    return GRU(width, dim, batch_first=True)


class AttentionGRUCell(nn.Module):
    """A GRU whose update gate is an attention weight from outside."""

    def __init__(self, dim: int):
        super().__init__()
        self.Wr, self.Ur, self.W, self.U = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, facts: Tensor, gate: Tensor) -> Tensor:
        """Read facts (R, T, H) with weights (R, T), 0 at padding, to the last state (R, H)."""
        reset_in = self.Wr(facts)  # (R, T, H), for all steps at once
        new_in = self.W(facts)
        state = facts.new_zeros(len(facts), facts.shape[-1])  # (R, H)
        for step in range(facts.shape[1]):
            reset = (reset_in[:, step] + self.Ur(state)).sigmoid()
            new = (new_in[:, step] + reset * self.U(state)).tanh()  # equation 5
            state = torch.lerp(state, new, gate[:, step, None])  # equation 6: the gate is the attention
        return state


class AttentionGRU(nn.Module):
    """Holder of the cell, under its published name."""

    def __init__(self, dim: int):
        super().__init__()
        self.AGRUCell = AttentionGRUCell(dim)

    def forward(self, facts: Tensor, gate: Tensor) -> Tensor:
        """Compute as the cell."""
        return self.AGRUCell(facts, gate)


class EpisodicMemory(nn.Module):
    """One reading of a stream, attended to by both memories and by what the last reading gave."""

    def __init__(self, dim: int):
        super().__init__()
        self.AGRU = AttentionGRU(dim)
        self.z1 = nn.Linear(4 * dim, dim)
        self.z2 = nn.Linear(dim, 1)
        self.next_mem = nn.Linear(3 * dim, dim)

    def forward(self, facts: Tensor, mask: Tensor, memories: Tensor, episode: Tensor) -> Tensor:
        """Read facts (R, T, H), mask (R, T), with the sum of both memories and the last episode, both (R, H)."""
        m, e = memories.unsqueeze(1), episode.unsqueeze(1)
        interaction = torch.cat([facts * m, facts * e, (facts - m).abs(), (facts - e).abs()], -1)  # (R, T, 4H)
        scores = self.z2(self.z1(interaction).tanh()).squeeze(-1)  # (R, T)
        gate = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1)  # (R, T)
        context = self.AGRU(facts, gate)  # (R, H)
        return F.relu(self.next_mem(torch.cat([episode, context, memories], -1)))


class CoMem(VideoQABackbone):
    """Motion-appearance co-memory network.

    Args:
        text_dim, frame_dim, num_answers: as in `VideoQABackbone`.
        hidden_size: H, width of question, streams and memories; the joint vector has 2 H. Multiple of 2 and of
            `question_layers`.
        word_dim: width of a token before the recurrence.
        question_layers: layers of the question GRU: 2 in the released open-ended models, 1 in multiple choice.
        appearance_dim: leading channels of a frame feature that are appearance, the others motion (2048 of 4096 in the
            published setting); None lets both streams read every channel.
        iterations: how often the memories are updated.
        dropout: on projected tokens and between question layers.
        detach_memory: start the memories outside the graph, as released; the first episodes stay inside.

    Example:
        >>> comem = CoMem(6, 10, 3, hidden_size=4, word_dim=5)
        >>> question = comem.encode_question(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool))
        >>> video = comem.encode_video(torch.randn(2, 7, 10), torch.ones(2, 7, dtype=torch.bool))
        >>> comem.answer(comem.fuse(question, video)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        text_dim: int,
        frame_dim: int,
        num_answers: int | None,
        hidden_size: int = 512,
        word_dim: int = 512,
        question_layers: int = 1,
        appearance_dim: int | None = None,
        iterations: int = 3,
        dropout: float = 0.3,
        detach_memory: bool = False,
    ):
        super().__init__(text_dim, frame_dim, num_answers)
        check_sizes("Co-Mem", hidden_size, {"2": 2, "question_layers": question_layers})
        require(
            appearance_dim is None or 0 < appearance_dim < frame_dim,
            "Co-Mem's appearance_dim",
            found=appearance_dim,
            expected=f"some of the {frame_dim} channels of a frame, or None",
        )
        self.question_dim = hidden_size
        self.joint_dim = 2 * hidden_size
        self.iterations = iterations
        self.detach_memory = detach_memory
        self.appearance_dim = appearance_dim
        widths = (frame_dim, frame_dim) if appearance_dim is None else (appearance_dim, frame_dim - appearance_dim)
        self.qns_encoder = QuestionEncoder(
            text_dim, word_dim, hidden_size // question_layers, question_layers, dropout
        )
        self.vid_encoder = StreamEncoder(*widths, hidden_size // 2)
        self.epm_app = EpisodicMemory(hidden_size)
        self.epm_mot = EpisodicMemory(hidden_size)
        self.linear_ma, self.linear_mb = (nn.Linear(3 * hidden_size, hidden_size) for _ in range(2))
        self.vq2word = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.decoder = nn.Linear(2 * hidden_size, 1 if num_answers is None else num_answers)

    def encode_question(self, tokens: Tensor, mask: Tensor) -> Question:
        """Encode the question to its last states (R, H); its tokens are not used again."""
        tokens, mask = pack_left(tokens, mask)
        return Question(self.qns_encoder(tokens, mask)[1])

    def encode_video(self, frames: Tensor, mask: Tensor) -> Video:
        """Encode true frames, moved to the left, to an appearance stream (V, T', H) and a motion stream in `extra`."""
        frames, mask = pack_left(frames, mask)
        cut = self.appearance_dim
        streams = (frames, frames) if cut is None else (frames[..., :cut], frames[..., cut:])
        appearance, motion = self.vid_encoder(*(stream.contiguous() for stream in streams))
        extra = {"motion": motion, "motion_last": last_states(motion, mask)}
        return Video(appearance, mask, last_states(appearance, mask), extra)

    def grounding_key(self, video: Video) -> Tensor:
        """Add appearance and motion, (V, T, H)."""
        return video.frames + video.extra["motion"]

    def fuse(self, question: Question, video: Video) -> Tensor:
        """Update both memories a few times, starting from the streams' last states; (R, 2 H)."""
        memory = episode = cast(Tensor, video.pooled)
        motion = motion_episode = video.extra["motion_last"]
        if self.detach_memory:  # as released: no gradient into the encoders through the first memories
            memory, motion = memory.detach(), motion.detach()
        for _ in range(self.iterations):  # equations 7 to 10
            both = memory + motion  # (R, H); the attention of either stream depends on both memories
            episode = self.epm_app(video.frames, video.mask, both, episode)
            motion_episode = self.epm_mot(video.extra["motion"], video.mask, both, motion_episode)
            memory = self.linear_ma(torch.cat([memory, episode, question.pooled], -1)).tanh()
            motion = self.linear_mb(torch.cat([motion, motion_episode, question.pooled], -1)).tanh()
        return self.vq2word(torch.cat([memory, motion], -1))

    def answer(self, joint: Tensor) -> Tensor:
        """Score answers by a linear layer, to (R, num_answers or 1)."""
        return self.decoder(joint)


register_backbone("comem", CoMem)
