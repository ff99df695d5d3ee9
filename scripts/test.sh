#!/usr/bin/env bash
# Makes the environment, then style, types and every test, the slow ones and those of parity included.
#
#   bash scripts/test.sh                   # everything, a process a core
#   bash scripts/test.sh -m "not slow"     # tests alone; arguments go to pytest
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$project"
make_environment dev
if [ $# != 0 ]; then
    exec "$python" -m pytest "$@"
fi
"$python" -m ruff check .
"$python" -m mypy
# Video processors need torchvision, whose build on PyPI does not import beside CPU torch: it stays out of the
# environment, and tests/torchvision_operators.py says how the tests of video language models use it all the same.
"$python" -m pip install -q --no-deps --upgrade --target "$project/.venv/torchvision" torchvision==0.28.0 num2words docopt
"$python" -m pytest -n auto --dist loadfile
PYTHONPATH="$project/.venv/torchvision" "$python" -m pytest -p tests.torchvision_operators \
    tests/selection/test_vlm.py tests/scripts/test_answer_with_vlm.py \
    tests/scripts/test_train_vlm_regularizer.py tests/scripts/test_lmms_plugin.py
