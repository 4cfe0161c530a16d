//! Has the linker lay the kernel out as the architecture's `link.ld` says.

fn main() {
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
    let script = format!("{}/src/arch/{arch}/link.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed={script}");
    for argument in
        ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections"]
    {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
