#!/usr/bin/env bash
# Set up what is needed and fetch data sets. Arguments go to data/download/download_data.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up ""
exec "$PYTHON" "$ROOT/data/download/download_data.py" "$@"
