#!/usr/bin/env bash
# Set up what is needed and hold this project against what it did not write itself (docs/fidelity.md).
# Arguments go to scripts/verify.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up lora
cd "$ROOT"
exec "$PYTHON" -m scripts.verify "$@"
