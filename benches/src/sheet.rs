//! Sheets: what a run has to say about one workload, as a table on the terminal and in the page.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::campaign::{Cell, Record, VERIFY_ROUND};
use crate::child::{Outcome, Reading};
use crate::stats::{Spread, figure};

/// Stands where there is no figure.
pub const NONE: &str = "–";

/// How a sheet is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chart {
    /// A bar per row: the ratio of ours to the row
    Ratios,
    /// A line per label over the groups
    Lines,
}

/// One table of figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sheet {
    /// What was measured, in a line or two.
    pub title: String,
    /// What the groups are: `threads`, `segment MiB`, ….
    pub axis: String,
    /// The figure's unit.
    pub unit: String,
    /// Whether more is better.
    pub more_is_better: bool,
    /// How it is drawn.
    pub chart: Chart,
    /// Titles of the further columns.
    pub columns: Vec<String>,
    /// The rows, groups together, the reference first in each.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The place on the axis.
    pub group: String,
    /// Whose figures.
    pub label: String,
    /// The rounds that ran to their end, and their figures.
    pub rounds: Vec<(u32, f64)>,
    /// Why there are no figures, or not from all rounds.
    pub remark: Option<String>,
    /// What stands in the further columns.
    pub extra: Vec<String>,
}

impl Row {
    /// Returns the spread over the rounds.
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|&(_, value)| value))
    }

    /// Returns `reference / self` of every round in which both ran.
    pub fn ratio(&self, reference: &Row) -> Option<Spread> {
        self.paired(reference, |mine, theirs| theirs / mine)
    }

    /// Returns the spread of `combine(mine, theirs)` over the rounds in which both ran.
    pub fn paired(&self, other: &Row, combine: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|&(round, mine)| {
            let &(_, theirs) = other.rounds.iter().find(|&&(their, _)| their == round)?;
            Some(combine(mine, theirs))
        }))
    }
}

/// Everything that was recorded of one cell.
pub struct Seen<'r> {
    /// The cell.
    pub cell: &'r Cell,
    records: Vec<&'r Record>,
}

impl<'r> Seen<'r> {
    /// Sorts the records by their cells.
    pub fn all(cells: &'r [Cell], records: &'r [Record]) -> Vec<Self> {
        let of = |number| records.iter().filter(move |record| record.cell == number).collect();
        cells.iter().enumerate().map(|(n, cell)| Seen { cell, records: of(n) }).collect()
    }

    /// Returns the measuring rounds that ran to their end.
    pub fn readings(&self) -> impl Iterator<Item = (u32, &'r Reading)> {
        self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Ran(reading) if record.round != VERIFY_ROUND => Some((record.round, reading)),
            _ => None,
        })
    }

    /// Returns the spread of a figure over the rounds.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        Spread::of(self.readings().filter_map(|(_, reading)| reading.figures.get(name).copied()))
    }

    /// Returns the row with the figure `name` of every round, and `extra` in the further columns.
    pub fn row(&self, name: &str, extra: Vec<String>) -> Row {
        let values = self.readings().filter_map(|(round, r)| Some((round, *r.figures.get(name)?)));
        Row {
            group: self.cell.group.clone(),
            label: self.cell.label.clone(),
            rounds: values.collect(),
            remark: self.cell.task.as_ref().err().cloned().or_else(|| self.deaths()),
            extra,
        }
    }

    /// Says how often and how the rounds died.
    fn deaths(&self) -> Option<String> {
        let hows = |record: &&Record| match &record.outcome {
            Outcome::Died { how, .. } if record.round != VERIFY_ROUND => Some(how.clone()),
            _ => None,
        };
        let mut hows: Vec<String> = self.records.iter().filter_map(hows).collect();
        let count = hows.len();
        hows.sort_unstable();
        hows.dedup();
        (count > 0).then(|| format!("died {count}×: {}", hows.join(", ")))
    }

    /// Says how many allocations and frees were refused, in all runs.
    pub fn refusals(&self) -> String {
        let sum = |name| -> f64 {
            let ran = |record: &&&Record| match &record.outcome {
                Outcome::Ran(reading) => reading.figures.get(name).copied(),
                Outcome::Died { .. } => None,
            };
            self.records.iter().filter_map(|record| ran(&record)).sum()
        };
        match (sum("allocs_refused"), sum("frees_refused")) {
            (0.0, 0.0) => "0".to_owned(),
            (allocs, 0.0) => format!("{allocs} allocs"),
            (0.0, frees) => format!("{frees} frees"),
            (allocs, frees) => format!("{allocs} allocs, {frees} frees"),
        }
    }

    /// Says what the verifying run saw: `ok`, or everything that was wrong.
    pub fn verified(&self) -> String {
        let Some(run) = self.records.iter().find(|record| record.round == VERIFY_ROUND) else {
            return NONE.to_owned();
        };
        match &run.outcome {
            Outcome::Ran(reading) => match reading.figures.get("corrupted") {
                Some(&count) if count > 0.0 => format!("corrupted {count}"),
                _ => "ok".to_owned(),
            },
            Outcome::Died { how, after_s, corrupted: 0 } => format!("{how} after {after_s:.2} s"),
            Outcome::Died { how, after_s, corrupted } => {
                format!("corrupted ≥ {corrupted}, {how} after {after_s:.2} s")
            }
        }
    }

    /// Lists what must not happen, each thing once.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for record in &self.records {
            match &record.outcome {
                Outcome::Ran(reading) => faults.extend(reading.faults.iter().cloned()),
                Outcome::Died { how, corrupted: 0, .. } => faults.push(how.clone()),
                Outcome::Died { how, corrupted, .. } => {
                    faults.push(format!("{how} after {corrupted} or more blocks were corrupted"));
                }
            }
        }
        faults.sort_unstable();
        faults.dedup();
        let place = format!("{}, {}", self.cell.label, self.cell.group);
        faults.into_iter().map(|fault| format!("{place}: {fault}")).collect()
    }
}

impl Sheet {
    /// Returns the row that ratios are taken of: the first of the group.
    pub fn reference(&self, group: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.group == group)
    }

    /// Returns the groups in their order.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group.as_str()) {
                groups.push(&row.group);
            }
        }
        groups
    }

    /// Returns the labels in their order.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !labels.contains(&row.label.as_str()) {
                labels.push(&row.label);
            }
        }
        labels
    }

    /// Returns the table: its header and its lines.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        match self.chart {
            Chart::Ratios => self.long_table(),
            Chart::Lines => self.wide_table(),
        }
    }

    /// One line per row.
    fn long_table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut header: Vec<String> =
            [&self.axis, "peer", &self.unit, "min–max", "ours ÷ peer"].map(String::from).into();
        header.extend(self.columns.iter().cloned());
        let line = |row: &Row| {
            let mut line = vec![row.group.clone(), row.label.clone()];
            let spread = row.spread();
            line.push(value_or_remark(row));
            line.push(spread.map_or_else(|| NONE.to_owned(), |spread| spread.range()));
            let reference = self.reference(&row.group).filter(|first| first.label != row.label);
            line.push(ratio_text(reference.and_then(|first| row.ratio(first))));
            line.extend(row.extra.iter().cloned());
            line
        };
        (header, self.rows.iter().map(line).collect())
    }

    /// One line per group, one column per label, and the further columns of the first label.
    fn wide_table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let labels = self.labels();
        let mut header = vec![format!("{} ({})", self.axis, self.unit)];
        header.extend(labels.iter().map(|&label| label.to_owned()));
        header.extend(self.columns.iter().cloned());
        let line = |group: &str| {
            let row =
                |label: &str| self.rows.iter().find(|row| row.group == group && row.label == label);
            let text = |row: Option<&Row>| match row.map(|row| (row, row.spread())) {
                Some((row, Some(spread))) if row.remark.is_none() => {
                    format!("{} [{}]", figure(spread.median), spread.range())
                }
                Some((row, _)) => value_or_remark(row),
                None => NONE.to_owned(),
            };
            let mut line = vec![group.to_owned()];
            line.extend(labels.iter().map(|&label| text(row(label))));
            line.extend(self.reference(group).into_iter().flat_map(|row| row.extra.clone()));
            line
        };
        (header, self.groups().into_iter().map(line).collect())
    }

    /// Prints the sheet as a Markdown table.
    pub fn print(&self) {
        let (header, lines) = self.table();
        let left = if self.chart == Chart::Ratios { 2 } else { 1 };
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(header);
        for column in table.column_iter_mut().skip(left) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.add_rows(lines);
        println!("\n{}; median [min–max]\n\n{table}", self.title);
    }
}

fn value_or_remark(row: &Row) -> String {
    match (row.spread(), &row.remark) {
        (Some(spread), None) => figure(spread.median),
        (Some(spread), Some(remark)) => format!("{}; {remark}", figure(spread.median)),
        (None, Some(remark)) => remark.clone(),
        (None, None) => NONE.to_owned(),
    }
}

/// Formats a ratio with its range.
fn ratio_text(ratio: Option<Spread>) -> String {
    ratio.map_or_else(
        || NONE.to_owned(),
        |ratio| format!("{} [{}]", figure(ratio.median), ratio.range()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, rounds: &[(u32, f64)]) -> Row {
        Row {
            group: "1".to_owned(),
            label: label.to_owned(),
            rounds: rounds.to_vec(),
            remark: None,
            extra: Vec::new(),
        }
    }

    #[test]
    fn ratio_pairs_the_rounds_in_which_both_ran() {
        let ours = row("ours", &[(1, 10.0), (2, 20.0), (3, 90.0)]);
        let peer = row("peer", &[(2, 10.0), (3, 30.0), (4, 1.0)]);
        assert_eq!(peer.ratio(&ours), Some(Spread { median: 2.5, min: 2.0, max: 3.0 }));
    }

    #[test]
    fn ratio_of_rows_that_never_ran_together_is_none() {
        assert_eq!(row("peer", &[(1, 1.0)]).ratio(&row("ours", &[(2, 1.0)])), None);
    }
}
