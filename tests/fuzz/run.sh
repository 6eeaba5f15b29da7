#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A short run of a fuzz target over its corpus, which libFuzzer would otherwise add its finds to.
#
#   run.sh TARGET RUNS CORPUS_FOLDER
set -eu
finds=$(mktemp -d)
trap 'rm -rf "$finds"' EXIT
"$1" "-runs=$2" -seed=1 "$finds" "$3"
