//! Compiles the shims of the peers that are installed: Boost.Interprocess and DPDK.

/// Looked at again on every build while Boost is absent, so that installing it is noticed.
const BOOST_VERSION_HEADER: &str = "/usr/include/boost/version.hpp";
/// DPDK's library as pkg-config knows it.
const DPDK: &str = "libdpdk";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    // What decides where the headers are looked for; the silent probe does not say so itself.
    for variable in ["CXX", "CXXFLAGS", "CPATH", "CPLUS_INCLUDE_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    boost();
    dpdk();
}

fn boost() {
    if !boost_is_installed() {
        println!("cargo::rerun-if-changed={BOOST_VERSION_HEADER}");
        println!(
            "cargo::warning=Boost headers absent: the Boost.Interprocess peer will be skipped"
        );
        return;
    }
    // From here on a compile error is a fault of the shim and must stop the build.
    cpp("shim/boost.cpp").file("shim/queue.cpp").compile("am_boost");
    println!("cargo::rustc-link-lib=rt"); // shm_open, in older C libraries
    println!("cargo::rustc-cfg=have_boost");
}

/// Tells whether a file that includes nothing but the needed header compiles.
fn boost_is_installed() -> bool {
    cpp("shim/probe.cpp")
        .cargo_metadata(false)
        .cargo_warnings(false)
        .try_compile("am_probe")
        .is_ok()
}

fn cpp(file: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file(file).define("NDEBUG", None);
    // Boost's own headers are not ours to keep free of warnings.
    build.warnings(false);
    build
}

fn dpdk() {
    // It links dozens of libraries of which the shim needs three; those are named below.
    let Ok(found) = pkg_config::Config::new().cargo_metadata(false).probe(DPDK) else {
        println!("cargo::warning=DPDK absent: the DPDK mempool peer will be skipped");
        return;
    };
    let mut build = cc::Build::new();
    build.file("shim/dpdk.c").includes(&found.include_paths).warnings(false);
    // What pkg-config says beyond folders: the configuration, and the instructions it is written for.
    build.flag("-include").flag("rte_config.h").flag_if_supported("-march=corei7");
    build.compile("am_dpdk");
    for path in &found.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for library in ["rte_mempool", "rte_ring", "rte_eal"] {
        println!("cargo::rustc-link-lib={library}");
    }
    println!("cargo::rustc-cfg=have_dpdk");
}
