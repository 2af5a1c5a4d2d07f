//! Charts of time over size, as SVG: one panel for each operation, one line for each implementation.
//!
//! Comparisons draw what they print. The one invariant that matters: a chart is readable on a light and on a dark page, so
//! it has no background, and every colour in it stands out from both.

use std::fmt;
use std::ops::Range;

use plotters::prelude::*;

use crate::size;

/// Width and height of a panel, in pixels.
const PANEL: (u32, u32) = (560, 420);
/// Letters and axes: as far from white as from black.
const INK: RGBColor = RGBColor(0x80, 0x88, 0x90);
/// Lines, in this order; the first is drawn thicker, because it is the one that the chart is about.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0xe4, 0x57, 0x2e),
    RGBColor(0x3b, 0x82, 0xf6),
    RGBColor(0x22, 0xa0, 0x6b),
    RGBColor(0x9b, 0x5d, 0xe5),
    RGBColor(0xc9, 0x95, 0x14),
    RGBColor(0x17, 0x9f, 0xb5),
    RGBColor(0xd1, 0x4d, 0x8b),
    RGBColor(0x8d, 0x6e, 0x63),
    RGBColor(0x7a, 0x9a, 0x2e),
];

/// One chart of a drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What is drawn, and under which circumstances.
    pub title: String,
    /// The lines; the first is drawn thicker.
    pub lines: Vec<Line>,
}

/// A line of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Whose it is.
    pub name: String,
    /// Sizes in bytes and times in microseconds, in the order of sizes; all above 0.
    pub points: Vec<(u64, f64)>,
}

/// The chart could not be drawn: the reason of the drawing library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartError {
    /// What it said.
    pub reason: String,
}

impl fmt::Display for ChartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chart cannot be drawn: {}", self.reason)
    }
}

impl std::error::Error for ChartError {}

impl ChartError {
    fn of(problem: impl fmt::Display) -> ChartError {
        ChartError { reason: problem.to_string() }
    }
}

/// The panels side by side, as the text of an SVG file. Both axes are logarithmic.
///
/// # Errors
/// When there is nothing to draw.
pub fn svg(panels: &[Panel]) -> Result<String, ChartError> {
    let mut text = String::new();
    let columns = u32::try_from(panels.len()).map_err(ChartError::of)?;
    if columns == 0 {
        return Err(ChartError::of("there are no panels"));
    }
    let mut names: Vec<&str> = Vec::new();
    for line in panels.iter().flat_map(|panel| &panel.lines) {
        if !names.contains(&line.name.as_str()) {
            names.push(&line.name);
        }
    }
    let area = SVGBackend::with_string(&mut text, (PANEL.0 * columns, PANEL.1)).into_drawing_area();
    for (panel, place) in panels.iter().zip(area.split_evenly((1, panels.len()))) {
        draw(panel, &names, &place)?;
    }
    area.present().map_err(ChartError::of)?;
    drop(area);
    Ok(text)
}

/// A line has the colour of its name's place in `names`, so that it is the same in all panels.
fn draw(
    panel: &Panel,
    names: &[&str],
    place: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<(), ChartError> {
    let letters = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let points = panel.lines.iter().flat_map(|line| &line.points);
    let (sizes, times) =
        (range(points.clone().map(|point| point.0 as f64)), range(points.map(|point| point.1)));
    let (Some(sizes), Some(times)) = (sizes, times) else {
        return Err(ChartError::of(format!("{} has no points", panel.title)));
    };
    let mut chart = ChartBuilder::on(place)
        .caption(&panel.title, letters(15))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(sizes.log_scale().base(4.0), (times.start / 1.3..times.end * 1.3).log_scale())
        .map_err(ChartError::of)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.3))
        .light_line_style(INK.mix(0.0))
        .label_style(letters(12))
        .axis_desc_style(letters(13))
        .x_desc("bytes that each rank contributes")
        .y_desc("microseconds")
        .x_labels(9)
        .x_label_formatter(&|bytes| size::display(*bytes as u64))
        .y_label_formatter(&|time| time.to_string())
        .draw()
        .map_err(ChartError::of)?;
    for (index, line) in panel.lines.iter().enumerate() {
        let known = names.iter().position(|name| *name == line.name).unwrap_or(index);
        let colour = COLOURS[known % COLOURS.len()];
        let style = ShapeStyle::from(colour).stroke_width(if index == 0 { 4 } else { 2 });
        let points = line.points.iter().map(|(bytes, time)| (*bytes as f64, *time));
        chart
            .draw_series(LineSeries::new(points, style))
            .map_err(ChartError::of)?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(letters(12))
        .border_style(INK.mix(0.3))
        .draw()
        .map_err(ChartError::of)
}

/// From the least to the greatest; `None` without values.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let least = values.clone().reduce(f64::min)?;
    let greatest = values.reduce(f64::max)?;
    // A single value has no extent, and a logarithmic axis needs one.
    Some(if greatest > least { least..greatest } else { least / 2.0..least * 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let line = |name: &str, factor: f64| Line {
            name: name.to_string(),
            points: [64_u64, 1024, 65536].map(|bytes| (bytes, factor * bytes as f64 / 100.0)).to_vec(),
        };
        Panel { title: "all-reduce".to_string(), lines: vec![line("ours", 1.0), line("theirs", 2.0)] }
    }

    #[test]
    fn a_chart_names_its_lines_its_axes_and_its_units() {
        let text = svg(&[panel(), panel()]).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for word in ["all-reduce", "ours", "theirs", "microseconds", "bytes that each rank", "16KiB"] {
            assert!(text.contains(word), "{word} is missing");
        }
        assert!(!text.contains("#FFFFFF") && !text.contains("#000000"), "a colour that one page hides");
    }

    #[test]
    fn nothing_to_draw_is_an_error_and_one_point_is_not() {
        assert!(svg(&[]).is_err());
        assert!(svg(&[Panel { title: String::new(), lines: Vec::new() }]).is_err());
        let mut one = panel();
        one.lines.truncate(1);
        one.lines[0].points.truncate(1);
        assert!(svg(&[one]).is_ok());
    }
}
