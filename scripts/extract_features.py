"""Extract features on 1..N processes, with the arguments of `hf-causal-video extract`; after a kill it goes on.

accelerate launch --num_processes 8 scripts/extract_features.py videos/ --frame-model ID --output features/
torchrun --nproc_per_node 2 scripts/extract_features.py ...     # on CPUs, where accelerate would start one process
"""

import sys

from hf_causal_video.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
