#!/usr/bin/env bash
# Makes the environment, then style, types and every test, the slow ones and those of parity included.
#
#   bash scripts/test.sh                   # everything
#   bash scripts/test.sh -m "not slow"     # tests alone; arguments go to pytest
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$project"
make_environment dev
if [ $# = 0 ]; then
    "$python" -m ruff check .
    "$python" -m mypy
fi
exec "$python" -m pytest "$@"
