#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs the built library into a folder other than its prefix, and has programs of another build system or language
find it there, link it and run.

    CC=cc CXX=c++ run.py KIND BUILD_FOLDER SOURCE_ROOT [static]

KIND is pkg-config, cmake, meson, cpp or rust. "static": CC can make static programs, too. The consumer of Meson's also builds
the library itself, as a subproject: for the CPU's plain C kernels, static, without OpenMP. Exit status 77: a tool is not here,
or is for another C library than CC. Nothing is written but to a temporary folder.
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
SMALL = ["openmp=disabled", "isas=", "cuda=disabled", "opencl=disabled", "vulkan=disabled", "null=disabled"]


def skip(reason):
    print(reason)
    sys.exit(77)


def run(*command, **more):
    """What a command prints. Where it fails, all of that is shown, and the test ends."""
    environment = {**os.environ, **more.pop("env", {})}
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def compiler(variable):
    """A compiler with its flags. Which cache stands before it is of no interest here."""
    words = shlex.split(os.environ.get(variable, ""))
    return [word for word in words if pathlib.Path(word).name != "ccache"]


def has_glibc(command, language):
    done = subprocess.run([*command, "-E", "-P", "-x", language, "-"], input="#include <stdint.h>\n__GLIBC__\n", text=True,
                          capture_output=True, check=True)
    return "__GLIBC__" not in done.stdout


class Stage:
    """The library as it is installed, below a folder of DESTDIR."""

    def __init__(self, folder, build, source, static):
        self.folder, self.source, self.build, self.static = folder, source, build, static
        self.here = source / "tests" / "consumers"
        run("meson", "install", "-C", build, "--no-rebuild", "--quiet", env={"DESTDIR": str(folder / "stage")})
        found = list((folder / "stage").rglob("fastattn.pc"))
        if len(found) != 1:
            sys.exit(f"{len(found)} files fastattn.pc were installed, expected one")
        self.libraries = found[0].parent.parent
        text = found[0].read_text()
        self.prefix = folder / "stage" / re.search(r"^prefix=/*(.*)", text, re.M).group(1)
        found[0].write_text(re.sub(r"^prefix=.*", f"prefix={self.prefix}", text, flags=re.M))
        self.kinds = [kind for kind, name in (("shared", "libfastattn.so"), ("static", "libfastattn.a"))
                      if (self.libraries / name).exists()]
        # The same again with nothing but the static library, so that -lfastattn cannot mean the shared one.
        self.alone = folder / "alone"
        if "static" in self.kinds:
            self.alone.mkdir()
            shutil.copy(self.libraries / "libfastattn.a", self.alone)
        os.environ["PKG_CONFIG_PATH"] = str(found[0].parent)

    def flags(self, kind):
        words = ["--cflags", "--libs", "fastattn"]
        if kind != "shared":
            words += ["--static", f"--define-variable=libdir={self.alone}"]
        return shlex.split(run("pkg-config", *words))

    def execute(self, name, program, *arguments):
        output = run(program, *arguments, env={"LD_LIBRARY_PATH": str(self.libraries), "FASTATTN_BACKEND": "openmp"})
        print(f"{name}: {output.strip()}")

    def compile(self, name, kind, command, sources, *arguments):
        """Builds sources into a program, with the flags that pkg-config has for this kind, and runs it."""
        program = self.folder / "program"
        extra = ["-static"] if kind == "static program" else []
        run(*command, *WARNINGS, *sources, "-x", "none", "-o", program, *self.flags(kind), *extra, "-lm")
        self.execute(f"{name}, {kind}", program, *arguments)


def check_reproducible(stage):
    """Where this was built is in no file that is installed, so that another folder gives the same bytes."""
    folders = [stage.build, *(stage.source / name for name in ("backends", "core", "include", "shaders"))]
    for path in (stage.folder / "stage").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for folder in folders:
            if b".debug_info" not in data and str(folder).encode() in data:
                sys.exit(f"{path.name} has the name of {folder} in it")


def pkg_config(stage):
    check_reproducible(stage)
    if not run("pkg-config", "--modversion", "fastattn").strip():
        sys.exit("fastattn.pc has no version")
    kinds = stage.kinds + (["static program"] if stage.static and "static" in stage.kinds else [])
    source = stage.here / "consumer.c"
    for kind in kinds:
        stage.compile("C", kind, [*compiler("CC"), "-std=c11", "-x", "c"], [source], "openmp")
    cxx = compiler("CXX")
    if cxx and has_glibc(cxx, "c++") == has_glibc(compiler("CC"), "c"):
        for kind in stage.kinds:
            stage.compile("C++", kind, [*cxx, "-std=c++17", "-x", "c++"], [source], "openmp")


def cpp(stage):
    cxx = compiler("CXX")
    if not cxx:
        skip("there is no C++ compiler here")
    if has_glibc(cxx, "c++") != has_glibc(compiler("CC"), "c"):
        skip("the C++ compiler is for another C library")
    for source in (stage.here / "handles.cpp", stage.source / "examples" / "plan.cpp"):
        stage.compile(source.name, stage.kinds[0], [*cxx, "-std=c++17", "-x", "c++"], [source])


def cmake(stage):
    if not shutil.which("cmake"):
        skip("there is no CMake here")
    build = stage.folder / "cmake"
    # A compiler for another C library than the system's does not tell CMake of folders such as lib/x86_64-linux-gnu.
    where = f"-DCMAKE_PREFIX_PATH={stage.prefix}"
    if not has_glibc(compiler("CC"), "c"):
        where = f"-Dfastattn_DIR={stage.libraries / 'cmake' / 'fastattn'}"
    run("cmake", "-G", "Ninja", "-S", stage.here / "cmake", "-B", build, where, f"-DKINDS={';'.join(stage.kinds)}",
        env={"CC": shlex.join(compiler("CC"))})
    run("cmake", "--build", build)
    for kind in stage.kinds + ["default"]:
        stage.execute(f"CMake, {kind}", build / f"consumer-{kind}", "openmp")


def meson(stage):
    project = stage.folder / "meson"
    shutil.copytree(stage.here / "meson", project)
    shutil.copy(stage.here / "consumer.c", project)
    environment = {"CC": shlex.join(compiler("CC"))}
    run("meson", "setup", project / "installed", project, "--wrap-mode=nofallback", env=environment)
    run("meson", "compile", "-C", project / "installed")
    stage.execute("Meson, installed", project / "installed" / "consumer", "openmp")

    (project / "subprojects" / "fastattn").symlink_to(stage.source, target_is_directory=True)
    options = [f"-Dfastattn:{option}" for option in SMALL]
    built = project / "built"
    run("meson", "setup", built, project, "--wrap-mode=forcefallback", "-Doptimization=0", *options,
        env=environment)
    run("meson", "compile", "-C", built)
    names = sorted(path.name for path in (built / "subprojects" / "fastattn").rglob("*") if os.access(path, os.X_OK)
                   and path.is_file())
    if names:
        sys.exit(f"the subproject builds {', '.join(names)}, expected the static library alone")
    stage.execute("Meson, subproject", built / "consumer", "openmp")


def rust(stage):
    if not shutil.which("cargo") or not shutil.which("rustc"):
        skip("there is no Rust here")
    host = re.search(r"^host: (.*)$", run("rustc", "-vV"), re.M).group(1)
    if host.endswith("-gnu") != has_glibc(compiler("CC"), "c"):
        skip(f"Rust's target is {host}, of another C library")
    crate = stage.folder / "rust"
    shutil.copytree(stage.source / "examples" / "rust", crate)
    for kind in stage.kinds:
        environment = {"CARGO_TARGET_DIR": str(stage.folder / f"target-{kind}")}
        if kind == "static":
            environment["FASTATTN_STATIC"] = "1"
        run("cargo", "build", "--offline", "--quiet", env={**environment, "RUSTFLAGS": "-Dwarnings"}, cwd=crate)
        program = stage.folder / f"target-{kind}" / "debug" / "fastattn-example"
        stage.execute(f"Rust, {kind}", program, "openmp")
    layout = run(program, "--layout", env={"LD_LIBRARY_PATH": str(stage.libraries)})
    (stage.folder / "layout.c").write_text(layout)
    run(*compiler("CC"), "-std=c11", "-fsyntax-only", f"-I{stage.prefix / 'include'}", stage.folder / "layout.c")
    print(f"Rust: {layout.count('_Static_assert')} sizes and offsets as C has them")


def main():
    kinds = {"pkg-config": pkg_config, "cmake": cmake, "meson": meson, "cpp": cpp, "rust": rust}
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in kinds or sys.argv[4:] not in ([], ["static"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        build, source = (pathlib.Path(name).resolve() for name in sys.argv[2:4])
        kinds[sys.argv[1]](Stage(pathlib.Path(folder).resolve(), build, source, sys.argv[4:] == ["static"]))


if __name__ == "__main__":
    main()
