//! Relocations in their packed form (DT_RELR, glibc 2.36 and later): every process reads all of
//! them when it starts, and packed they are a fraction of the size.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
