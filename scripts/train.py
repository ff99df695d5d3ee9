"""Train a model: `accelerate launch scripts/train.py --config transtr_world --output_dir outputs/world`."""

from hf_causal_video.training.run import command

if __name__ == "__main__":
    command()
