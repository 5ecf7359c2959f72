//! Pictures of sheets, as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::sheet::{Chart, Row, Sheet};
use crate::stats::{Spread, figure};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Width of every picture, in pixels.
const WIDTH: i32 = 960;
/// Height of a row of a bar chart, and of a bar in it.
const ROW: i32 = 19;
const BAR: i32 = 11;
/// Where the bars begin and end; names stand before them, figures behind.
const BARS_LEFT: i32 = 260;
const BARS_RIGHT: i32 = 790;
/// Room for the scale of a bar chart.
const SCALE: i32 = 24;
/// A line chart's height, and the width of its legend.
const LINES_HEIGHT: i32 = 400;
const LEGEND: i32 = 280;
/// Sizes of letters.
const TEXT: i32 = 13;
const SMALL: i32 = 11;

const OURS: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Bars where ours is ahead, and where the other is.
const AHEAD: RGBColor = RGBColor(0x2e, 0x7d, 0x5b);
const BEHIND: RGBColor = RGBColor(0xb0, 0x6a, 0x2c);
/// Lines of the peers, in turn; colours that the colour-blind tell apart.
const LINES: [RGBColor; 12] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x6b, 0x4c, 0x9a),
    RGBColor(0x8c, 0x6d, 0x31),
    RGBColor(0x33, 0x33, 0x33),
    RGBColor(0x9a, 0xb9, 0x2e),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x1b, 0x4f, 0x4a),
    RGBColor(0xa8, 0xa8, 0xa8),
];

/// Draws the sheet; `None` where there is nothing to draw.
///
/// # Errors
/// When the picture cannot be made.
pub fn draw(sheet: &Sheet) -> Result<Option<String>> {
    match sheet.chart {
        Chart::Ratios => ratios(sheet),
        Chart::Lines => lines(sheet),
    }
}

/// Draws into a white picture of that height.
fn picture(height: i32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let size = (WIDTH as u32, height as u32);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

fn text(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    h: HPos,
    size: i32,
    c: RGBColor,
) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&c).pos(Pos::new(h, VPos::Center));
    area.draw_text(words, &style, at).map_err(failed)
}

fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<()> {
    area.draw(&PathElement::new(vec![from, to], color.stroke_width(1))).map_err(failed)
}

/// A logarithmic scale of ratios.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Returns the scale on which all `ratios` and 1 have a place.
    fn of(ratios: &[Spread]) -> Self {
        let low = ratios.iter().map(|ratio| ratio.min).fold(0.5, f64::min);
        let high = ratios.iter().map(|ratio| ratio.max).fold(2.0, f64::max);
        // A little air, and never so much that a stray figure squeezes all others.
        Self { low: (low / 1.1).max(1e-4), high: (high * 1.1).min(1e4) }
    }

    fn x(&self, ratio: f64) -> i32 {
        let share =
            (ratio.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        BARS_LEFT + (share * f64::from(BARS_RIGHT - BARS_LEFT)) as i32
    }

    /// Returns 1, 2 and 5 times the powers of ten on the scale; on a long one the powers alone.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low > 500.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        (-4..=4)
            .flat_map(|exponent| steps.iter().map(move |step| step * 10f64.powi(exponent)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }
}

/// A bar per row from 1 to the ratio, with a whisker over the rounds.
fn ratios(sheet: &Sheet) -> Result<Option<String>> {
    let ratio = |row: &Row| {
        let reference = sheet.reference(&row.group)?;
        (reference.label != row.label).then(|| row.ratio(reference))?
    };
    let known: Vec<Spread> = sheet.rows.iter().filter_map(ratio).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let scale = Scale::of(&known);
    let shown: Vec<(&Row, Option<Spread>)> = sheet.rows.iter().map(|r| (r, ratio(r))).collect();
    let height = SCALE + ROW * (shown.len() + sheet.groups().len()) as i32 + ROW / 2;
    let svg = picture(height, |area| {
        for tick in scale.ticks() {
            let x = scale.x(tick);
            line(area, (x, SCALE), (x, height), if tick == 1.0 { GREY } else { PALE })?;
            text(area, &format!("{tick}"), (x, SCALE / 2), HPos::Center, SMALL, GREY)?;
        }
        let mut y = SCALE;
        for group in sheet.groups() {
            let heading = format!("{}: {group}", sheet.axis);
            text(area, &heading, (6, y + ROW / 2), HPos::Left, TEXT, BLACK)?;
            y += ROW;
            for (row, ratio) in shown.iter().filter(|(row, _)| row.group == group) {
                bar(area, sheet, &scale, y, row, *ratio)?;
                y += ROW;
            }
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

fn bar(
    area: &Area<'_>,
    sheet: &Sheet,
    scale: &Scale,
    y: i32,
    row: &Row,
    ratio: Option<Spread>,
) -> Result<()> {
    let middle = y + ROW / 2;
    text(area, &row.label, (BARS_LEFT - 8, middle), HPos::Right, TEXT, BLACK)?;
    let value = row.spread().map(|spread| format!("{} {}", figure(spread.median), sheet.unit));
    let Some(ratio) = ratio else {
        let words = value.or_else(|| row.remark.clone()).unwrap_or_default();
        return text(area, &words, (scale.x(1.0) + 6, middle), HPos::Left, SMALL, GREY);
    };
    let color = if (ratio.median > 1.0) == sheet.more_is_better { AHEAD } else { BEHIND };
    let (one, end) = (scale.x(1.0), scale.x(ratio.median));
    let corners = [(one.min(end), middle - BAR / 2), (one.max(end), middle + BAR / 2)];
    area.draw(&Rectangle::new(corners, color.filled())).map_err(failed)?;
    let (low, high) = (scale.x(ratio.min), scale.x(ratio.max));
    line(area, (low, middle), (high, middle), BLACK)?;
    for x in [low, high] {
        line(area, (x, middle - 3), (x, middle + 3), BLACK)?;
    }
    let value = row.remark.clone().or(value).unwrap_or_default();
    let words = format!("{} ({value})", figure(ratio.median));
    text(area, &words, (BARS_RIGHT + 10, middle), HPos::Left, SMALL, BLACK)
}

/// Returns the colour of line number `number`.
fn color_of(label: &str, number: usize) -> RGBColor {
    if label.starts_with("AtomicMatrix") && number == 0 {
        OURS
    } else {
        LINES[number % LINES.len()]
    }
}

/// A line per label over the groups, on a logarithmic scale.
fn lines(sheet: &Sheet) -> Result<Option<String>> {
    let (groups, labels) = (sheet.groups(), sheet.labels());
    let spreads: Vec<Spread> = sheet.rows.iter().filter_map(Row::spread).collect();
    let low = spreads.iter().map(|s| s.min).filter(|&low| low > 0.0).fold(f64::MAX, f64::min);
    let high = spreads.iter().map(|spread| spread.max).fold(0.0, f64::max);
    if high <= 0.0 || groups.len() < 2 {
        return Ok(None);
    }
    let svg = picture(LINES_HEIGHT, |area| {
        let (left, legend) = area.split_horizontally(WIDTH - LEGEND);
        let last = groups.len() as i32 - 1;
        let mut chart = ChartBuilder::on(&left)
            .margin(10)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0..last, (low / 1.2..high * 1.2).log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(PALE)
            .x_labels(groups.len())
            .x_label_formatter(&|&at| groups.get(at as usize).map_or("", |name| name).to_owned())
            .y_label_formatter(&|value| figure(*value))
            .y_desc(&sheet.unit)
            .label_style(("sans-serif", SMALL))
            .draw()
            .map_err(failed)?;
        for (number, label) in labels.iter().enumerate() {
            let color = color_of(label, number);
            let at =
                |group: &str| groups.iter().position(|name| *name == group).unwrap_or(0) as i32;
            let points: Vec<(i32, Spread)> = sheet
                .rows
                .iter()
                .filter(|row| row.label == *label)
                .filter_map(|row| Some((at(&row.group), row.spread()?)))
                .collect();
            // A difference may be nothing or less, for which the scale has no place but its end.
            let medians = points.iter().map(|&(x, spread)| (x, spread.median.max(low)));
            chart
                .draw_series(LineSeries::new(medians.clone(), color.stroke_width(2)))
                .map_err(failed)?;
            let dots = medians.map(|point| Circle::new(point, 3, color.filled()));
            chart.draw_series(dots).map_err(failed)?;
            let whiskers = points.iter().map(|&(x, s)| {
                let ends = vec![(x, s.min.max(low)), (x, s.max.max(low))];
                PathElement::new(ends, color.stroke_width(1))
            });
            chart.draw_series(whiskers).map_err(failed)?;
            let y = 30 + 20 * number as i32;
            let sample = [(4, y - 2), (24, y + 2)];
            legend.draw(&Rectangle::new(sample, color.filled())).map_err(failed)?;
            text(&legend, label, (32, y), HPos::Left, TEXT, BLACK)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}
