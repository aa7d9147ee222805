#!/usr/bin/env bash
# Set up what is needed and print a table of results. Arguments go to experiments/table.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/experiments/table.py" "$@"
