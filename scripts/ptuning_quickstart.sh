#!/usr/bin/env bash
# Set up what is needed and run the quick start of P-tuning v2. Arguments go to
# scripts/ptuning_quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/scripts/ptuning_quickstart.py" "$@"
