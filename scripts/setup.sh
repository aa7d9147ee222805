# Sourced by the other scripts here: `set_up EXTRAS` makes $PYTHON ready to run the project.
#
# Uses the virtual environment that is active, or makes .venv in the project. Installs nothing
# outside of it and nothing twice. TORCH_INDEX_URL names another index to take torch from.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed; set PYTHON to its path" >&2
    return 1
}

# pip says what it fetches on a terminal; a log has the lines here.
pip_install() {
    local quiet=--quiet
    [ ! -t 1 ] || quiet=
    "$PYTHON" -m pip install ${quiet:+"$quiet"} --disable-pip-version-check "$@"
}

install_torch() {
    local wanted
    wanted="$(grep '^torch==' "$ROOT/requirements.txt")"
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        echo "installing $wanted from TORCH_INDEX_URL ..."
        pip_install --index-url "$TORCH_INDEX_URL" "$wanted"
    elif command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
        echo "installing $wanted for the GPU found here (a few GB) ..."
        pip_install "$wanted"
    else
        echo "installing $wanted: the CPU build if it is offered, else the general one ..."
        pip_install "$wanted+cpu" 2>/dev/null || pip_install "$wanted"
    fi
}

set_up() {
    local extras="$1" stamp
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        PYTHON="$VIRTUAL_ENV/bin/python"
    else
        # pip is what comes last: an environment without it was never finished.
        if [ ! -x "$ROOT/.venv/bin/pip" ]; then
            PYTHON="$(find_python)"
            echo "making a virtual environment in $ROOT/.venv ..."
            "$PYTHON" -m venv "$ROOT/.venv"
        fi
        PYTHON="$ROOT/.venv/bin/python"
    fi
    stamp="$("$PYTHON" -c 'import sys; print(sys.prefix)')/.prefix-tuning-$extras"
    if ! cat "$ROOT"/requirements.* "$ROOT/pyproject.toml" | cmp -s - "$stamp"; then
        "$PYTHON" -c 'import torch' 2>/dev/null || install_torch
        echo "installing requirements, which takes minutes ..."
        pip_install -c "$ROOT/requirements.lock" -r "$ROOT/requirements.txt" \
            -e "$ROOT[research${extras:+,$extras}]"
        cat "$ROOT"/requirements.* "$ROOT/pyproject.toml" >"$stamp"
    fi
    # Nothing here is worth an error message about an optional image library.
    export TRANSFORMERS_VERBOSITY="${TRANSFORMERS_VERBOSITY:-error}"
    export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
}
