"""How spliced films are made; in a file of its own, since the command line shows it without loading the rest."""

from dataclasses import dataclass

from hf_causal_video.utils.errors import require

ASK = ("content", "order", "both")
SHORTEST_S = 0.5


@dataclass(frozen=True)
class SpliceOptions:
    """How films are made.

    Args:
        per_film: stretches per film.
        stretch_s: seconds per stretch, from the middle of the clip or of the annotated span; a shorter clip gives all
            it has.
        ask: "content", "order" ("what is shown right after ...") or "both".
        rounds: how often every clip is dealt into a film.
        test_share, validation_share: of the clips.
        width, height: of a film in pixels, even; clips are fitted in and padded.
        fps: frames per second of a film.
        seed: fixes everything.
    """

    per_film: int = 4
    stretch_s: float = 5.0
    ask: str = "content"
    rounds: int = 1
    test_share: float = 0.3
    validation_share: float = 0.1
    width: int = 320
    height: int = 240
    fps: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.per_film >= 2, "stretches per film", found=self.per_film, expected="2 or more")
        require(self.stretch_s >= SHORTEST_S, "stretch", found=self.stretch_s, expected=f"{SHORTEST_S} s or more")
        require(self.ask in ASK, "unknown kind of question", found=self.ask, expected=", ".join(ASK))
        require(self.rounds >= 1, "rounds", found=self.rounds, expected="1 or more")
        shares = (self.test_share, self.validation_share)
        require(min(shares) >= 0 and sum(shares) <= 1, "shares", found=shares, expected="0 to 1, at most 1 together")
        is_even = self.width % 2 == 0 == self.height % 2
        is_valid = is_even and min(self.width, self.height) >= 32
        require(is_valid, "size", found=(self.width, self.height), expected="even, 32 or more")
        require(self.fps >= 1, "frames per second", found=self.fps, expected="1 or more")
