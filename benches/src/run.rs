//! A run: measured, printed, written down, judged.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::campaign::{self, Cell, Common, Record};
use crate::machine::Machine;
use crate::sheet::{Seen, Sheet};

/// Everything about one run, as its file holds it.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// The name of the file, and of the section in the report.
    pub name: String,
    /// When it ended, in UTC.
    pub date: String,
    /// Where, and by which command.
    pub machine: Machine,
    /// Whether it was too short to measure anything.
    pub quick: bool,
    /// What is needed to read the figures.
    pub notes: Vec<String>,
    /// The tables.
    pub sheets: Vec<Sheet>,
    /// What must not have happened to AtomicMatrix.
    pub faults: Vec<String>,
    /// What was to be done.
    pub cells: Vec<Cell>,
    /// What came of it.
    pub records: Vec<Record>,
}

/// What was found wrong with AtomicMatrix, and how much was looked at. Speed never decides it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not have happened.
    faults: Vec<String>,
    /// The names of the runs.
    runs: Vec<String>,
    cells: usize,
    rounds: u32,
}

impl Verdict {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.runs.extend(other.runs);
        self.cells += other.cells;
        self.rounds = other.rounds;
    }

    /// Prints the last line; returns whether all is well.
    pub fn print(&self) -> bool {
        let Self { faults, runs, cells, rounds } = self;
        let counts = format!("runs={} cells={cells} rounds={rounds}", runs.join(","));
        if faults.is_empty() {
            println!("verdict: ok {counts} failed=0");
            return true;
        }
        println!("verdict: FAILED {counts} failed={}: {}", faults.len(), faults.join("; "));
        false
    }
}

/// Measures `cells`, makes sheets of what was seen, and prints, writes and judges them.
///
/// # Errors
/// When no child process can be started, or the file of raw figures cannot be written.
pub fn run(
    name: &str,
    common: &Common,
    cells: Vec<Cell>,
    notes: Vec<String>,
    sheets: impl FnOnce(&[Seen<'_>]) -> Vec<Sheet>,
) -> Result<Verdict> {
    // Before the run, so that a bad path costs nothing.
    let path = common.json.clone().map_or_else(|| default_path(name), Ok)?;
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let rounds = common.rounds();
    let records = campaign::run(&cells, rounds)?;
    let seen = Seen::all(&cells, &records);
    let ours = seen.iter().filter(|seen| seen.cell.peer.is_ours());
    let run = Run {
        name: name.to_owned(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        machine: Machine::detect(),
        quick: common.quick,
        notes,
        sheets: sheets(&seen),
        faults: ours.flat_map(Seen::faults).collect(),
        cells: cells.clone(),
        records: records.clone(),
    };
    run.print();
    run.write(file).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nRaw figures: {}", path.display());
    Ok(Verdict { faults: run.faults, runs: vec![run.name], cells: cells.len(), rounds })
}

impl Run {
    fn print(&self) {
        self.machine.print();
        for note in &self.notes {
            println!("{note}");
        }
        for sheet in &self.sheets {
            sheet.print();
        }
    }

    fn write(&self, file: File) -> Result<()> {
        let mut writer = BufWriter::new(file);
        serde_json::to_writer(&mut writer, self)?;
        Ok(writer.flush()?)
    }

    /// Reads a file of raw figures.
    ///
    /// # Errors
    /// When it cannot be read, or another version wrote it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a run of this version", path.display()))
    }
}

/// Returns the folder of raw figures and report, in the target folder that holds this program.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("the program lies in no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn default_path(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{name}.json")))
}
