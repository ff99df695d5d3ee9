# Makes the environment `.venv` beside the project: CPU torch first, then this package. Sourced by demo.sh and test.sh.
#
#   . scripts/environment.sh
#   make_environment video,viewer      # sets $python; a complete environment is reused as it is
#
# PYTHON=/path/to/python3.12 chooses the interpreter; anything from 3.11 on will do.

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$project/.venv/bin/python"
torch_version=2.13.0

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found (looked for python3, python3.11 to python3.14)." \
        "Install one, or name it: PYTHON=/path/to/python3.12 bash $0"
}

# PyPI's torch for Linux brings gigabytes of CUDA libraries, so the CPU builds are asked for by name: first from
# PyTorch's own index, then as the version "+cpu" from whatever index or folder pip is set up with.
install_torch() {
    if [ "$(uname -s)" = Darwin ]; then
        echo "   torch $torch_version from PyPI (its macOS build has no CUDA)"
        "$python" -m pip install --no-compile "torch==$torch_version"
    elif "$python" -m pip install --no-compile --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu \
        "torch==$torch_version"; then
        echo "   torch $torch_version, CPU build, as PyTorch's own index names it"
    elif "$python" -m pip install --no-compile "torch==$torch_version+cpu"; then
        echo "   torch $torch_version, CPU build, from the index pip is set up with"
    else
        fail "no CPU build of torch $torch_version could be installed (pip's own words are above)." \
            "Is the network there? Behind a proxy, set PIP_INDEX_URL to an index that has torch==$torch_version+cpu."
    fi
}

make_environment() {
    local extras="$1" found stamp wanted
    stamp="$project/.venv/complete-$extras"
    # the project's own path is part of the stamp: an environment does not survive a move of its folder
    wanted="$(printf '%s\n' "$project" "torch $torch_version" && cat "$project/pyproject.toml")"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$python" -c 'import torch' 2>/dev/null; then
        echo "environment: $project/.venv is complete, reused"
        return
    fi
    echo "environment: making $project/.venv with [$extras] (minutes; needs the network once)"
    found="$(find_python)" || exit 1
    echo "   $("$found" --version) at $(command -v "$found")"
    if ! "$python" -m pip --version >/dev/null 2>&1 || ! grep -qF "$project/.venv" "$project/.venv/bin/activate"; then
        "$found" -m venv --clear "$project/.venv" ||
            fail "python's venv module does not work. On Debian and Ubuntu: sudo apt install python3-venv"
    fi
    "$python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$torch_version')" 2>/dev/null ||
        install_torch
    "$python" -m pip install --no-compile -e "$project[$extras]" || fail "pip could not install the package; its own words are above."
    "$python" -c 'import torch; print("   torch", torch.__version__, "with" if torch.version.cuda else "without", "CUDA")'
    printf '%s\n' "$wanted" >"$stamp"
    echo "environment: complete after $SECONDS s"
}
