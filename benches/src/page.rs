//! `report`: one page of everything that was measured last, with nothing to be fetched.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::chart;
use crate::run::{self, Run};
use crate::sheet::{Chart, Sheet};

/// Order of the sections; runs of other names follow.
const ORDER: [&str; 10] = [
    "endurance",
    "pair64",
    "batch",
    "larson",
    "ipc",
    "messages",
    "latency",
    "trace",
    "overhead",
    "flat",
];
const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;\
    color:#222}h2{margin-top:2.5em;border-bottom:1px solid #ccc}table{border-collapse:collapse;\
    font-size:12px;margin:1em 0;display:block;overflow-x:auto}td,th{padding:2px 8px;\
    text-align:right;white-space:nowrap;border-bottom:1px solid #eee}td:first-child,\
    th:first-child,.two td:nth-child(2),.two th:nth-child(2){text-align:left}\
    svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:1px 4px}.bad{color:#b00}\
    .small{color:#666;font-size:13px}";

/// Options of the report.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Files of raw figures [default: all in bench/ in the target folder]
    files: Vec<PathBuf>,
    /// The page [default: bench/report.html in the target folder]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Writes the page.
///
/// # Errors
/// When there are no files, one cannot be read, or the page cannot be written.
pub fn report(options: &Options) -> Result<()> {
    let files =
        if options.files.is_empty() { files_in(&run::folder()?)? } else { options.files.clone() };
    ensure!(!files.is_empty(), "nothing was measured yet");
    let mut runs = files.iter().map(|file| Run::read(file)).collect::<Result<Vec<_>>>()?;
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    runs.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
    let page = page(&runs)?;
    let path = match &options.html {
        Some(path) => path.clone(),
        None => run::folder()?.join("report.html"),
    };
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    println!("Report: {}", path.display());
    Ok(())
}

/// Returns the files of raw figures in a folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    Ok(entries.into_iter().map(|entry| entry.path()).filter(is_json).collect())
}

fn page(runs: &[Run]) -> Result<String> {
    let mut html = format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\">\
         <title>AtomicMatrix beside its peers</title><style>{STYLE}</style>\
         <h1>AtomicMatrix beside its peers</h1>\
         <p>Medians of interleaved rounds; whiskers and brackets are the smallest and the largest. \
         Bars are <em>ours ÷ peer</em>, taken per round: green where AtomicMatrix is ahead, brown \
         where the peer is.</p><ul>"
    );
    for run in runs {
        let name = escape(&run.name);
        write!(html, "<li><a href=\"#{name}\">{name}</a></li>")?;
    }
    html.push_str("</ul>");
    for run in runs {
        section(&mut html, run)?;
    }
    Ok(html)
}

fn section(html: &mut String, run: &Run) -> Result<()> {
    let (name, machine) = (escape(&run.name), &run.machine);
    let program = "cargo run --release --manifest-path=benches/Cargo.toml --";
    let words = machine.command.strip_prefix("peers").unwrap_or(&machine.command);
    write!(
        html,
        "<h2 id=\"{name}\">{name}</h2><p class=\"small\">{}, {} cores, Linux {}, transparent huge \
         pages {}; {}; again: <code>{program}{}</code></p>",
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        escape(&machine.huge_pages),
        escape(&run.date),
        escape(words),
    )?;
    if run.quick {
        html.push_str(
            "<p class=\"bad\">A quick run: it shows that all works, and measures nothing.</p>",
        );
    }
    for note in &run.notes {
        write!(html, "<p>{}</p>", escape(note))?;
    }
    for fault in &run.faults {
        write!(html, "<p class=\"bad\">Failed: {}</p>", escape(fault))?;
    }
    for sheet in &run.sheets {
        write!(
            html,
            "<h3>{}</h3>{}",
            escape(&sheet.title),
            chart::draw(sheet)?.unwrap_or_default()
        )?;
        table(html, sheet)?;
    }
    Ok(())
}

fn table(html: &mut String, sheet: &Sheet) -> Result<()> {
    let (header, lines) = sheet.table();
    let class = if sheet.chart == Chart::Ratios { "two" } else { "one" };
    write!(html, "<table class=\"{class}\"><tr>")?;
    for title in header {
        write!(html, "<th>{}</th>", escape(&title))?;
    }
    html.push_str("</tr>");
    for line in lines {
        html.push_str("<tr>");
        for text in line {
            write!(html, "<td>{}</td>", escape(&text))?;
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
    Ok(())
}

/// Makes a text safe to stand in the page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_no_markup() {
        assert_eq!(escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
