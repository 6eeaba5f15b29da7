#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a bare machine to attention on real tensors, or to passed tests. See --help.
set -eu
cd "$(dirname "$0")/.."
logs=build-logs
sysroot=$PWD/build-sysroot

usage()
{
    cat <<'EOF'
Usage: tools/quickstart.sh          set up, build in build/, compute attention on real tensors and check it
       tools/quickstart.sh test     set up, build and pass all tests
       tools/quickstart.sh --help   print this

Set-up installs what is missing with apt-get (as root, or through sudo) and nothing where all is there.
Without apt-get it names what is missing.

The tests are, each in a build folder of its own: all of them with gcc and warnings as errors (build/);
unit tests, conformance and fuzzing with clang's AddressSanitizer and UndefinedBehaviorSanitizer
(build-asan/); threads with ThreadSanitizer (build-tsan/); the NEON kernels, cross-compiled and emulated
(build-arm64/). What a stage printed is kept in build-logs/. The last line sums up: N passed, N failed,
N skipped. A stage whose tools cannot be had here is skipped, or failed where CI is set to true.

Exit status: 0 done, 1 failed, 2 the command line is wrong.
EOF
}

die()
{
    echo "quickstart: $*" >&2
    exit 1
}

have()
{
    command -v "$1" >/dev/null 2>&1
}

# --- Set-up ------------------------------------------------------------------------------------------

as_root()
{
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "installing packages takes root or sudo; run as root: $*"
    fi
}

# compiles COMPILER FLAG...: the compiler is there, and makes a program with these flags.
compiles()
{
    have "$1" && echo 'int main(void) { return 0; }' | "$@" -x c - -o /dev/null
}

has_openmp()
{
    have "$1" && printf '#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' |
        "$1" -fopenmp -x c - -o /dev/null
}

has_meson()
{
    # Distributions of 2022 and earlier carry a 0.x.
    have meson && case $(meson --version) in 0.*) false ;; esac
}

# want WHAT DEBIAN_PACKAGES COMMAND...: notes what is missing when the command fails.
want()
{
    what=$1
    debs=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    missing="$missing
  - $what"
    packages="$packages $debs"
}

look_for_build_tools()
{
    missing=
    packages=
    want "a C11 compiler with OpenMP (gcc, or clang with libomp)" "gcc libc6-dev" has_openmp "${CC:-cc}"
    want "Meson 1.0 or later" "meson" has_meson
    want "Ninja" "ninja-build" have ninja
    want "pkg-config" "pkg-config" have pkg-config
    want "jansson with its headers" "libjansson-dev" pkg-config --exists jansson
}

# A folder with something in it.
has_file()
{
    [ -n "$(ls -A "$1" 2>/dev/null)" ]
}

look_for_test_tools()
{
    look_for_build_tools
    want "Python 3" "python3" have python3
    want "a C++17 compiler, as c++" "g++" have c++
    want "gcc" "gcc" has_openmp gcc
    want "Check, the unit test framework" "check" pkg-config --exists check
    want "clang with its sanitizers" "clang libclang-rt-dev" compiles clang -fsanitize=address,undefined
    want "libomp, clang's OpenMP runtime" "libomp-dev" has_openmp clang
    want "glslangValidator" "glslang-tools" have glslangValidator
    want "OpenCL headers" "opencl-headers" test -e /usr/include/CL/cl.h
    want "an OpenCL driver" "ocl-icd-libopencl1 pocl-opencl-icd" has_file /etc/OpenCL/vendors/
    want "Vulkan headers" "libvulkan-dev" test -e /usr/include/vulkan/vulkan_core.h
    want "a Vulkan driver" "libvulkan1 mesa-vulkan-drivers" has_file /usr/share/vulkan/icd.d/
    want "Vulkan's validation layer" "vulkan-validationlayers" \
        test -e /usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
    want "spirv-val" "spirv-tools" have spirv-val
    want "shellcheck" "shellcheck" have shellcheck
    if [ "$(uname -m)" != aarch64 ]; then
        want "aarch64-linux-gnu-gcc" "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" \
            has_openmp aarch64-linux-gnu-gcc
        want "qemu-aarch64" "qemu-user" have qemu-aarch64
    fi
}

install_packages()
{
    echo "Installing:$packages"
    as_root apt-get -q update
    wanted=
    for package in $packages; do
        case $package in
        meson)
            # An old one is of no use; Python can fetch a newer.
            apt-cache policy meson | grep -qE 'Candidate: (0\.|\(none\))' && package="python3-venv"
            ;;
        esac
        # Older releases have no libclang-rt-dev: there, clang itself brings what is in it.
        if apt-cache show "$package" >/dev/null 2>&1; then
            wanted="$wanted $package"
        else
            echo "There is no package $package here; going on without it."
        fi
    done
    # The list is meant to be split.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $wanted
}

# Meson is Python: where the system's is too old, one in a folder of our own serves.
fetch_meson()
{
    PATH=$PWD/build-venv/bin:$PATH
    has_meson && return
    have python3 || return 0
    echo "The system has no Meson 1.0 or later: installing one in build-venv/ with pip."
    if ! { python3 -m venv build-venv && build-venv/bin/pip install --quiet 'meson>=1.0'; }; then
        die "pip could not install Meson; install Meson 1.0 or later, then run this again"
    fi
}

# set_up LOOK_FUNCTION
set_up()
{
    "$1"
    [ -z "$missing" ] && return
    if have apt-get; then
        install_packages
    else
        echo "Missing here:$missing"
    fi
    has_meson || fetch_meson
    look_for_build_tools
    [ -z "$missing" ] || die "still missing; please install, then run this again:$missing"
}

# --- Building ----------------------------------------------------------------------------------------

# configure FOLDER OPTION...
configure()
{
    folder=$1
    shift
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$@"
    else
        meson setup "$folder" "$@"
    fi
}

main_job()
{
    for tensors in minilm-layer0 minilm-layer5 "minilm-batch --keep-name keep"; do
        file=${tensors%% *}
        echo
        echo "$file, real tensors of all-MiniLM-L6-v2, against the oracle and against PyTorch's output:"
        # What follows the file's name are options of their own.
        # shellcheck disable=SC2086
        build/tools/fastattn run --file tests/data/$file.safetensors ${tensors#"$file"} --check --expect-name o \
            --out "build/$file-o.npy"
    done
    echo
    echo "The outputs are in build/*-o.npy. Next: build/tools/fastattn --help"
}

quickstart()
{
    set_up look_for_build_tools
    # nvcc would take minutes for each kind of GPU; what one of them needs is compiled when it is first used.
    configure build -Dnvcc_archs=none
    meson compile -C build
    main_job
}

# --- Testing -----------------------------------------------------------------------------------------

test_release()
{
    # Every kernel for one GPU, where nvcc is here; a release has more, and the test of run-time compilation others.
    CC=gcc CXX=c++ configure build -Dwerror=true -Dtests=enabled -Dtools=enabled -Dfuzz=enabled -Dnvcc_archs=80
    meson compile -C build
    main_job
    meson test -C build --no-rebuild --print-errorlogs
}

test_asan()
{
    CC=clang CXX=clang++ configure build-asan -Dwerror=true -Dtests=enabled -Dtools=enabled -Dfuzz=enabled \
        -Dcuda=enabled -Dnvcc_archs=none -Dopencl=enabled -Dvulkan=enabled -Dbuildtype=debugoptimized \
        -Db_sanitize=address,undefined -Db_lundef=false
    meson compile -C build-asan
    # LeakSanitizer at times crashes over threads that libomp or PoCL keep: leaks are looked for without them, and
    # libomp's threads are tested without looking for leaks. It also takes thread-local memory of libraries for what it is
    # not where that begins 16 bytes into a page (as clang 14 does): that memory is left out. So is the stub driver, in processes by the hundred, which
    # count what they allocate themselves; its tests name it, whatever the library is here.
    export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 FASTATTN_CUDA_LIBRARY=none FASTATTN_OPENCL_LIBRARY=none \
        FASTATTN_VULKAN_LIBRARY=none
    status=0
    ASAN_OPTIONS=halt_on_error=1:detect_leaks=0 \
        meson test -C build-asan --no-rebuild --print-errorlogs --suite conform --suite cuda --suite opencl --suite vulkan || status=1
    ASAN_OPTIONS=halt_on_error=1:detect_leaks=1:intercept_tls_get_addr=0 OMP_NUM_THREADS=1 \
        meson test -C build-asan --no-rebuild --print-errorlogs --suite unit --suite command --suite fuzz \
        --logbase testlog-leaks || status=1
    return $status
}

test_tsan()
{
    CC=clang CXX=clang++ configure build-tsan -Dwerror=true -Dtests=enabled -Dtools=enabled \
        -Dcuda=enabled -Dnvcc_archs=none -Dopencl=enabled -Dvulkan=enabled -Dbuildtype=debugoptimized \
        -Db_sanitize=thread -Db_lundef=false
    meson compile -C build-tsan
    # libomp is not instrumented: Archer tells ThreadSanitizer where OpenMP synchronises. Nor is an OpenCL driver,
    # of which nobody tells: the stub stands for it.
    archer=$(clang -print-resource-dir)/../../libarcher.so
    [ -f "$archer" ] || die "no libarcher.so beside libomp, expected $archer"
    # Where addresses are randomised by more bits than ThreadSanitizer expects, it stops at once.
    fixed=
    setarch "$(uname -m)" -R true 2>/dev/null && fixed="setarch $(uname -m) -R"
    # shellcheck disable=SC2086
    OMP_TOOL_LIBRARIES=$archer TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 FASTATTN_THREADS=4 \
        FASTATTN_CUDA_LIBRARY=none FASTATTN_OPENCL_LIBRARY=none FASTATTN_VULKAN_LIBRARY=none \
        $fixed meson test -C build-tsan --no-rebuild --print-errorlogs \
        --suite unit --suite cuda --suite opencl --suite vulkan --suite conform
}

# The arm64 libraries that the tests link, unpacked in a folder: the machine's own apt is left as it is.
fetch_arm64()
{
    [ -f "$sysroot/cross.txt" ] && return
    have apt-get || die "the arm64 libraries are fetched with apt-get, which is not here"
    # shellcheck source=/dev/null
    . /etc/os-release
    mkdir -p "$sysroot/apt/lists/partial" "$sysroot/apt/cache/archives/partial"
    : >"$sysroot/apt/status"
    case $ID in
    ubuntu) from="http://ports.ubuntu.com/ubuntu-ports $VERSION_CODENAME main universe" ;;
    *)
        # One mirror serves every architecture: the machine's own, where apt has its lists. $(SITE) is
        # apt's to expand.
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Component: main' \
            "Release: $VERSION_CODENAME" | head -n 1)
        [ -n "$mirror" ] || die "apt has no source of $VERSION_CODENAME main to fetch arm64 libraries from"
        from="$mirror $VERSION_CODENAME main"
        ;;
    esac
    echo "deb [signed-by=/usr/share/keyrings/${ID}-archive-keyring.gpg] $from" >"$sysroot/apt/sources.list"
    cat >"$sysroot/apt/apt.conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
Dir::State "$sysroot/apt";
Dir::State::status "$sysroot/apt/status";
Dir::Cache "$sysroot/apt/cache";
Dir::Etc::sourcelist "$sysroot/apt/sources.list";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
APT::Sandbox::User "";
EOF
    APT_CONFIG=$sysroot/apt/apt.conf apt-get -q update
    (cd "$sysroot/apt" && APT_CONFIG=$sysroot/apt/apt.conf apt-get -q download check libsubunit-dev libsubunit0 \
        libjansson-dev libjansson4)
    for deb in "$sysroot"/apt/*.deb; do
        dpkg-deb -x "$deb" "$sysroot"
    done
    cat >"$sysroot/cross.txt" <<EOF
[properties]
sys_root = '$sysroot'
pkg_config_libdir = '$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig'
EOF
}

test_neon()
{
    fetch_arm64
    configure build-arm64 --cross-file cross/aarch64-linux.txt --cross-file "$sysroot/cross.txt" \
        -Dwerror=true -Dtests=enabled -Dtools=enabled -Dnvcc_archs=none
    meson compile -C build-arm64
    meson test -C build-arm64 --no-rebuild --print-errorlogs --suite unit --suite conform --timeout-multiplier 4
}

total_passed=0
total_failed=0
total_skipped=0
report=

# add NAME RESULT_LINE
add()
{
    # "N passed, N failed, N skipped" as words 1, 3 and 5.
    # shellcheck disable=SC2086
    set -- "$1" $2
    total_passed=$((total_passed + $2))
    total_failed=$((total_failed + $4))
    total_skipped=$((total_skipped + $6))
    report="$report
$(printf '%-28s %6s passed %4s failed %4s skipped' "$1" "$2" "$4" "$6")"
}

# stage NAME BUILD_FOLDER FUNCTION NEEDED_COMMAND...
stage()
{
    name=$1
    folder=$2
    function=$3
    shift 3
    printf '== %s\n' "$name"
    for tool in "$@"; do
        have "$tool" && continue
        echo "   not run: $tool is not here"
        if [ "${CI:-}" = true ]; then
            add "$name" "0 passed, 1 failed, 0 skipped"
        else
            add "$name" "0 passed, 0 failed, 1 skipped"
        fi
        return
    done

    log=$logs/$folder.log
    rm -f "$folder"/meson-logs/testlog*.json
    began=$(date +%s)
    # Not "... || status=$?": in what is tested, "set -e" would be off and a failed build go unnoticed.
    set +e
    (
        set -e
        "$function"
    ) >"$log" 2>&1
    status=$?
    set -e
    line="0 passed, 0 failed, 0 skipped"
    if [ -f "$folder/meson-logs/testlog.json" ]; then
        line=$(python3 tests/scripts/sum_results.py "$folder"/meson-logs/testlog*.json)
    fi
    case $status,$line in
    0,0\ passed* | [1-9]*,*\ 0\ failed,*)
        # The stage broke outside any test, or ran none.
        line=$(echo "$line" | sed 's/ 0 failed/ 1 failed/')
        ;;
    esac
    add "$name" "$line"
    echo "   $line, $(($(date +%s) - began)) s"
    case $line in
    *\ 0\ failed,*) ;;
    *)
        echo "   the end of $log:"
        tail -n 80 "$log" | sed 's/^/   | /'
        ;;
    esac
}

run_tests()
{
    set_up look_for_test_tools
    mkdir -p "$logs"
    stage "gcc, all tests" build test_release gcc c++ python3
    stage "clang, ASan + UBSan" build-asan test_asan clang
    stage "clang, TSan" build-tsan test_tsan clang
    if [ "$(uname -m)" != aarch64 ]; then
        stage "NEON under qemu" build-arm64 test_neon aarch64-linux-gnu-gcc qemu-aarch64
    fi
    echo "$report"
    echo
    echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
    [ "$total_failed" -eq 0 ]
}

case $#,${1:-} in
0,) quickstart ;;
1,test) run_tests ;;
1,--help | 1,-h) usage ;;
*)
    echo "quickstart: unknown arguments '$*', expected nothing, 'test' or '--help'" >&2
    usage >&2
    exit 2
    ;;
esac
