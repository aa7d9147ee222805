#!/usr/bin/env bash
# Run as many rows of full_e2e and full_webnlg as fit into --minutes (8 without it) and publish what is
# finished. The same command goes on. Arguments go to experiments/reproduce.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
set_up ""
both=full_e2e,full_webnlg
settings=(--scale study --inputs 1862 --minutes 8 "$@")
status=0
"$PYTHON" "$ROOT/experiments/reproduce.py" "$both" "${settings[@]}" || status=$?
"$PYTHON" "$ROOT/experiments/reproduce.py" "$both" "${settings[@]}" --publish
exit "$status"
