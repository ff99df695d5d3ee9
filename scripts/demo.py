"""The demo: `bash scripts/demo.sh` makes an environment and then runs this."""

import sys

from hf_causal_video.demo import main

if __name__ == "__main__":
    sys.exit(main())
