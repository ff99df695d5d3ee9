"""`python -m hf_causal_video.training`: the same as `scripts/train.py`."""

from hf_causal_video.training.run import command

if __name__ == "__main__":
    command()
