#!/usr/bin/env bash
# Set up what is needed and run the quick start. Arguments go to scripts/quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/scripts/quickstart.py" "$@"
