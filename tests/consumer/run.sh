#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the built library into a staging folder, builds consumer.c against it through pkg-config, as C
# and as C++ (where CXX is set), with the shared and with the static library, and runs the four programs.
#
#   CC=cc CXX=c++ run.sh BUILD_FOLDER CONSUMER_C BACKEND
set -eu

build=$1
source=$2
backend=$3
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

DESTDIR=$stage meson install -C "$build" --no-rebuild --quiet
pc=$(find "$stage" -name fastattn.pc)
[ -n "$pc" ] || { echo "no fastattn.pc was installed"; exit 1; }
# The prefix as configured, found from where the file lies, is what DESTDIR was put in front of.
prefix=$stage$(sed -n 's/^prefix=//p' "$pc")
library=$(dirname "$(dirname "$pc")")

# The same again with nothing but the static library, so that -lfastattn cannot mean the shared one.
cp -R "$library" "$stage/static"
rm -f "$stage"/static/*.so "$stage"/static/*.so.* "$stage"/static/*.dylib

query()
{
    PKG_CONFIG_PATH=$library/pkgconfig pkg-config --define-variable=prefix="$prefix" "$@" fastattn
}

# try NAME LIBRARY_FOLDER PKG_CONFIG_FLAG COMPILER...
try()
{
    name=$1
    folder=$2
    flag=$3
    shift 3
    # The flags are lists, split on purpose.
    # shellcheck disable=SC2046
    "$@" -Wall -Wextra -Werror $(query --cflags) "$source" -x none -o "$stage/consumer" \
        $(query --define-variable=libdir="$folder" "$flag" --libs)
    echo "$name: $(LD_LIBRARY_PATH=$folder "$stage/consumer" "$backend")"
}

[ "$(query --modversion)" ] || exit 1
for kind in shared static; do
    case $kind in
    shared) folder=$library; flag=--libs ;;
    static) folder=$stage/static; flag=--static ;;
    esac
    # CC and CXX may be a compiler with flags, or behind ccache.
    # shellcheck disable=SC2086
    try "C, $kind" "$folder" "$flag" $CC -std=c11 -x c
    if [ -n "${CXX:-}" ]; then
        # shellcheck disable=SC2086
        try "C++, $kind" "$folder" "$flag" $CXX -std=c++17 -x c++
    fi
done
