#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the built library into a staging folder, then builds and runs each example there by the command that its first
# comment gives, so that what a reader copies works. An example that exits with 77 lacks its device.
#
#   run.sh BUILD_FOLDER EXAMPLES_FOLDER NAME...
set -eu

build=$1
examples=$2
shift 2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

DESTDIR=$stage meson install -C "$build" --no-rebuild --quiet
pc=$(find "$stage" -name fastattn.pc)
[ -n "$pc" ] || { echo "no fastattn.pc was installed"; exit 1; }
sed -i "s,^prefix=,&$stage," "$pc"
library=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH="$library/pkgconfig" LD_LIBRARY_PATH="$library:/usr/local/cuda/lib64"

cp "$examples"/*.[ch] "$stage"
cd "$stage"
for name in "$@"; do
    # The lines of the first comment from " *   cc " on, as long as each ends in a backslash.
    command=$(sed -n '/^ \*   cc /,/[^\\]$/s/^ \* *//p' "$name.c")
    [ -n "$command" ] || { echo "$name.c: no line \" *   cc ...\", expected how to build it"; exit 1; }
    printf '%s\n' "$command"
    status=0
    sh -euc "$command" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || { echo "$name: exit status $status"; exit 1; }
done
