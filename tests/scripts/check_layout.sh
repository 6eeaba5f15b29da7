#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check_layout.sh CLANG_FORMAT SOURCE_ROOT: fails where a C file is not laid out as .clang-format says.
set -eu
cd "$2"
find backends core examples include integrations python shaders tests tools transports -name '*.[ch]' -exec "$1" --dry-run -Werror {} +
