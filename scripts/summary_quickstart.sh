#!/usr/bin/env bash
# Set up what is needed and run the quick start of BART. Arguments go to summary_quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/scripts/summary_quickstart.py" "$@"
