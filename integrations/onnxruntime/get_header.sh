#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# get_header.sh FOLDER: puts ONNX Runtime's headers into FOLDER, from Debian 13's package libonnxruntime-dev, and prints
# what to give to -Donnxruntime. Installs nothing and leaves the system's package lists as they are. For Debian, of any
# release: the system's own sources are asked, for release 13.
set -eu
folder=${1:?usage: get_header.sh FOLDER}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt reads as a user of its own
mkdir -p "$work/sources" "$work/state/lists/partial" "$work/cache/archives/partial" "$folder"

release=$(. /etc/os-release && echo "$VERSION_CODENAME")
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -f "$list" ] && grep -Eq '/debian/?( |$)' "$list" && grep -q "\b$release\b" "$list"; then
        sed -e "s/\b$release-updates\b//g; s/\b$release\b/trixie/g" "$list" > "$work/sources/${list##*/}"
    fi
done
cat > "$work/apt.conf" <<END
Dir::State "$work/state";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
END
if [ "$(id -u)" = 0 ]; then
    echo 'APT::Sandbox::User "root";' >> "$work/apt.conf"
fi
export APT_CONFIG="$work/apt.conf"
apt-get -q update >&2
(cd "$work" && apt-get -q download libonnxruntime-dev >&2)
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/package"
cp "$work"/package/usr/include/onnxruntime/onnxruntime_*.h "$folder"
cd "$folder" && pwd
