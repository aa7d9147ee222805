#!/usr/bin/env bash
# Run as many rows of full_e2e and full_webnlg as fit into --minutes (8 without it) and publish what is
# finished. The same command goes on. Arguments, rows first, go to experiments/reproduce.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
set_up ""
# Defaults stand before what is given, so that it wins; rows have to follow their table.
run=("$PYTHON" "$ROOT/experiments/reproduce.py" --scale study --inputs 1862 --minutes 8
    full_e2e,full_webnlg "$@")
status=0
"${run[@]}" || status=$?
"${run[@]}" --publish
exit "$status"
