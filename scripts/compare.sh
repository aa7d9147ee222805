#!/usr/bin/env bash
# Set up what is needed and compare tuning modes. Arguments go to scripts/compare.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up lora
exec "$PYTHON" "$ROOT/scripts/compare.py" "$@"
