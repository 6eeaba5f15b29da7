#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fastattn beside PyTorch and OpenBLAS on this machine. See --help.
set -eu

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "compare: needs Python 3.9 or later as python3 (Debian, Ubuntu: apt-get install python3-venv)" >&2
    exit 1
fi
exec python3 "$(dirname "$0")/compare.py" "$@"
