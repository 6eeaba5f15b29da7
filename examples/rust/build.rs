// SPDX-License-Identifier: Apache-2.0
//! Links libfastattn as pkg-config says. FASTATTN_STATIC=1 in the environment takes the static library.
use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=FASTATTN_STATIC");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let fixed = env::var_os("FASTATTN_STATIC").is_some();
    let mut command = Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()));
    command.args(["--libs", "fastattn"]);
    if fixed {
        command.arg("--static");
    }
    let output = command.output().expect("pkg-config does not run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pkg-config knows no fastattn: {errors}");
    let flags = String::from_utf8(output.stdout).expect("pkg-config's output is UTF-8");
    for flag in flags.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if flag == "-lfastattn" && fixed {
            println!("cargo:rustc-link-lib=static=fastattn");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib={library}");
        } else {
            println!("cargo:rustc-link-arg={flag}"); // such as -fopenmp, which rustc's linker, a C compiler, knows
        }
    }
}
