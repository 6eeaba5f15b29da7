#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the library shows to the world: exported are exactly the functions that the public headers mark
# FA_API, the static library's other names start with fa_ too, and nothing but libc, libm, the OpenMP
# runtime and what every program has is linked.
#
#   check_symbols.sh SHARED STATIC HEADER...
set -eu
LC_ALL=C
export LC_ALL

shared=$1
static=$2
shift 2
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# complain WHAT FILE: FILE holds the offenders, one a line; none is fine.
complain()
{
    if [ -s "$2" ]; then
        echo "$1:"
        sed 's/^/  /' "$2"
        failed=1
    fi
}

sed -n 's/.*FA_API [^(]*\(fa_[a-z0-9_]*\)(.*/\1/p' "$@" | sort -u >"$work/declared"
${NM:-nm} -D --defined-only "$shared" | awk '{ print $NF }' | sed 's/@.*//' | sort -u >"$work/exported"
[ -s "$work/declared" ] || { echo "no FA_API function in: $*"; exit 1; }

comm -13 "$work/declared" "$work/exported" >"$work/extra"
complain "exported from $shared, but FA_API in no public header" "$work/extra"
comm -23 "$work/declared" "$work/exported" >"$work/absent"
complain "FA_API in a public header, but not exported from $shared" "$work/absent"

${NM:-nm} -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | sort -u >"$work/global"
[ -s "$work/global" ] || { echo "no symbol found in $static"; exit 1; }
grep -v '^fa_' "$work/global" >"$work/foreign" || true
complain "global in $static without the prefix fa_" "$work/foreign"

${READELF:-readelf} -d "$shared" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >"$work/needed"
grep -vE '^(lib(c|m|gcc_s)\.so\.[0-9]+|lib(gomp|omp5?|omp5-[0-9]+)\.so(\.[0-9.]+)*|ld-linux.*)$' \
    "$work/needed" >"$work/unexpected" || true
complain "linked by $shared, but neither libc, libm nor the OpenMP runtime" "$work/unexpected"

echo "$(wc -l <"$work/exported") exported, $(wc -l <"$work/global") global in the static library," \
    "linked: $(tr '\n' ' ' <"$work/needed")"
exit "$failed"
