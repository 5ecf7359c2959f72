//! What the figures were measured on.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine and the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Transparent huge pages for private memory: `always`, `madvise` or `never`.
    pub huge_pages: String,
    /// The command line, without the program's directory.
    pub command: String,
}

impl Machine {
    /// Looks at the machine; what cannot be found out is `unknown`.
    pub fn detect() -> Self {
        let words = std::env::args().skip(1);
        Self {
            cpu: cpu_model().unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            huge_pages: huge_pages().unwrap_or_else(unknown),
            command: std::iter::once("peers".to_owned()).chain(words).collect::<Vec<_>>().join(" "),
        }
    }

    /// Prints the machine line and the command.
    pub fn print(&self) {
        let Self { cpu, cores, kernel, huge_pages, command } = self;
        println!(
            "Machine: {cpu}, {cores} cores, Linux {kernel}, transparent huge pages {huge_pages}"
        );
        println!("Command: `{command}`");
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn cpu_model() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

fn huge_pages() -> Option<String> {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    // The mode in force stands in brackets: "always [madvise] never".
    modes.split_once('[')?.1.split_once(']').map(|(mode, _)| mode.to_owned())
}
