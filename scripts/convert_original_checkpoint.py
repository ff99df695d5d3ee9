"""Convert a checkpoint of the original code into a model folder.

python scripts/convert_original_checkpoint.py FILE --method transtr --variant next --output DIR
"""

import sys

from hf_causal_video.hub.convert.command import command

if __name__ == "__main__":
    sys.exit(command())
