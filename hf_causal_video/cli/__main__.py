"""`python -m hf_causal_video.cli`: the same as the command `hf-causal-video`."""

import sys

from hf_causal_video.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
