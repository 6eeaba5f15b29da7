#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Which of llama.cpp's own cases of flash attention the backend leaves to ggml's CPU backend, and why. Nothing is computed.
#   declined.sh TEST_BACKEND_OPS libggml-fastattn.so
set -eu
answers=$(mktemp)
trap 'rm -f "$answers"' EXIT
GGML_BACKEND_PATH=$2 "$1" support -o FLASH_ATTN_EXT -b FASTATTN --output csv >"$answers" 2>"$answers.log"
reasons() { grep 'FASTATTN: leaves' "$answers.log" | sed 's/.*others: //' | sort | uniq -c; }
echo "taken: $(grep -c '"support","1"' "$answers" || true)"
echo "left to others: $(grep -c '"support","0"' "$answers" || true)"
grep '"support","0"' "$answers" | cut -d'"' -f6 || true
echo "reasons, each time that they were asked for:"
reasons
rm -f "$answers.log"
