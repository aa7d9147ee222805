#!/usr/bin/env bash
# Set up what is needed and reproduce a table of the papers. Arguments go to experiments/reproduce.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/experiments/reproduce.py" "$@"
