//! Tells the linker in which order functions lie in the program (`first-functions.ld`). Generates nothing, and changes nothing but places.

use std::env;
use std::path::Path;

/// Set it for a linker that knows no such scripts: the program is as good, and takes more memory.
const OFF: &str = "LONGSHORE_NO_ORDER";

/// A file for the linker's map, from which the script is made (`chaos-tests/scripts/first-functions.sh`).
const MAP: &str = "LONGSHORE_MAP";

fn main() {
    println!("cargo:rerun-if-env-changed={OFF}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("first-functions.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    println!("cargo:rerun-if-env-changed={MAP}");
    if let Ok(map) = env::var(MAP) {
        println!("cargo:rustc-link-arg-bins=-Wl,-Map={map}");
    }
    let target = |name: &str| env::var(name).unwrap_or_default();
    // Only what is shipped: other builds have other functions, and are linked all the time.
    let is_meant =
        target("CARGO_CFG_TARGET_OS") == "linux" && target("PROFILE") == "release" && env::var_os(OFF).is_none();
    if is_meant {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}
