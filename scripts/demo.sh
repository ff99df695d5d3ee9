#!/usr/bin/env bash
# The whole road in one command: environment, films, features, training, numbers, and answers with their evidence.
#
#   bash scripts/demo.sh              # results in demo/; run it again and it goes on where it stopped
#   bash scripts/demo.sh --fresh      # start over
#   bash scripts/demo.sh --real FOLDER [--questions FILE]   # on spliced films of your own clips or photographs
#   bash scripts/demo.sh --help       # the other arguments
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$project"
make_environment video,viewer
export HF_HUB_OFFLINE=1                               # nothing is downloaded from here on
export TQDM_MININTERVAL="$([ -t 2 ] && echo 0.5 || echo 5)" # progress bars: a log file needs fewer lines
export OMP_WAIT_POLICY=PASSIVE                        # idle threads sleep, so a busy machine stays usable
exec "$python" -m scripts.demo.run "$@"
