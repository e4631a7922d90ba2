//! Charts, drawn twice: as characters for an 80-column terminal, as SVG for a page. Nothing
//! is fetched from anywhere, and the same data give the same bytes.

mod curves;

use std::fmt::Write as _;

use serde::Serialize;

use self::curves::reach;
pub use self::curves::{
    chart_of_percentiles, floor, histogram_chart, percentile_chart, percentiles, shares,
    time_chart, tune_chart,
};
use super::text::wrap;
use crate::args::quantity::{Units, whole};
use crate::machine::clock::ratio;

/// One line or cloud of points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points; the second number is nanoseconds.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub line: Line,
    /// The colour, by number; series that belong together share one.
    pub colour: usize,
}

/// How the points of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Joined.
    Solid,
    /// Joined by dashes: beside a solid one of the same colour.
    Dashed,
    /// Each by itself.
    Points,
    /// Joined by steps down: the best that can be had.
    Front,
    /// A bar from the axis to each: how much of everything has this value.
    Bars,
}

/// Several series over one axis; the other is always time, logarithmic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x_name: String,
    /// Places on the axis with their names.
    pub x_ticks: Vec<(f64, String)>,
    /// What is drawn.
    pub series: Vec<Series>,
    /// The highest value that is drawn, in nanoseconds; none: as needed.
    pub y_max: Option<u64>,
}

/// Where the data lie: x from 0, y in decades.
#[derive(Debug, Clone, Copy)]
struct Frame {
    x_max: f64,
    decade_min: f64,
    decade_max: f64,
}

impl Chart {
    fn frame(&self) -> Frame {
        let limit = self.y_max.map_or(f64::INFINITY, |ns| ratio(ns, 1));
        let values = self
            .series
            .iter()
            .flat_map(|s| &s.points)
            .map(|(_, y)| y.max(1.0).min(limit));
        let (mut low, mut high) = (f64::INFINITY, 1.0_f64);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        let low = if low.is_finite() { low } else { 1.0 };
        let decade_min = low.log10().floor();
        Frame {
            x_max: reach(&self.series)
                .max(self.x_ticks.last().map_or(1.0, |t| t.0))
                .max(1e-9),
            decade_min,
            decade_max: high.log10().ceil().max(decade_min + 1.0),
        }
    }

    /// As characters, 80 columns wide.
    #[must_use]
    pub fn to_text(&self) -> String {
        const WIDTH: u32 = 68;
        const HEIGHT: u32 = 15;
        const MARKS: [char; 8] = ['●', '○', '▪', '+', 'x', '*', '◆', '~'];
        let frame = self.frame();
        let mut grid = vec![vec![' '; WIDTH as usize + 1]; HEIGHT as usize + 1];
        // The first series is drawn last: it lies on top.
        for (index, series) in self.series.iter().enumerate().rev() {
            if series.line == Line::Front {
                continue;
            }
            let mark = MARKS[index % MARKS.len()];
            for (column, y) in columns(series, frame, WIDTH) {
                let Some(row) = row_of(y, frame, HEIGHT) else {
                    continue;
                };
                match series.line {
                    Line::Bars => grid[row][..=column].fill(mark),
                    _ => grid[row][column] = mark,
                }
            }
        }
        let mut text = format!("{}\n", self.title);
        let decades = frame.decade_max - frame.decade_min;
        for (row, cells) in (0_u32..).zip(&grid) {
            let decade = frame.decade_max - decades * f64::from(row) / f64::from(HEIGHT);
            let name = if nearest_tick(frame, row, HEIGHT) {
                Units::Auto.show(whole(10_f64.powf(decade.round())))
            } else {
                String::new()
            };
            let line: String = cells.iter().collect();
            let _ = writeln!(text, "{name:>7} │{}", line.trim_end());
        }
        let _ = writeln!(text, "{:>7} └{}", "", "─".repeat(WIDTH as usize + 1));
        text.push_str(&self.tick_line(frame, WIDTH));
        let legend: Vec<String> = self
            .series
            .iter()
            .enumerate()
            .filter(|(_, series)| series.line != Line::Front)
            .map(|(index, series)| format!("{} {}", MARKS[index % MARKS.len()], series.name))
            .collect();
        let legend = wrap(&legend.join("   "), 70, "         ");
        let _ = writeln!(text, "{:>9}{legend}", "");
        text
    }

    /// The names of the series, each behind a piece of its line.
    fn legend(&self, svg: &mut String, left: f64, top: f64) {
        let mut cell = 0;
        for series in &self.series {
            let wide = series.name.chars().count().div_ceil(LEGEND_LETTERS);
            // A long name takes more than one place, and never runs over the edge.
            if cell % LEGEND_COLUMNS + wide > LEGEND_COLUMNS {
                cell += LEGEND_COLUMNS - cell % LEGEND_COLUMNS;
            }
            let x = left + 185.0 * ratio((cell % LEGEND_COLUMNS) as u64, 1);
            let y = top + 18.0 * ratio((cell / LEGEND_COLUMNS) as u64, 1);
            cell += wide;
            let colour = series.colour % COLOURS;
            let (from, to, middle) = (x - 6.0, x + 10.0, y - 4.0);
            let _ = match series.line {
                Line::Points => writeln!(
                    svg,
                    "<circle class=\"d c{colour}\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"5\"/>",
                    x + 2.0
                ),
                Line::Solid | Line::Bars => {
                    writeln!(
                        svg,
                        "<path class=\"s c{colour}\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>"
                    )
                }
                Line::Dashed => writeln!(
                    svg,
                    "<path class=\"s c{colour} a\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>"
                ),
                Line::Front => writeln!(
                    svg,
                    "<path class=\"s c{colour} f\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>"
                ),
            };
            let _ = writeln!(
                svg,
                "<text class=\"l\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                x + 15.0,
                escape(&series.name)
            );
        }
    }

    fn tick_line(&self, frame: Frame, width: u32) -> String {
        let mut line: Vec<char> = vec![' '; width as usize + 12];
        let mut free_from = 0;
        for (x, name) in &self.x_ticks {
            let column = index(x / frame.x_max * f64::from(width));
            let start = (column + 9).saturating_sub(name.chars().count() / 2);
            let end = start + name.chars().count();
            if start < free_from || end > line.len() {
                continue;
            }
            for (place, c) in line[start..end].iter_mut().zip(name.chars()) {
                *place = c;
            }
            free_from = end + 1;
        }
        let line: String = line.into_iter().collect();
        format!("{}\n", line.trim_end())
    }

    /// As SVG, 860 × 450.
    #[must_use]
    pub fn to_svg(&self) -> String {
        const LEFT: f64 = 80.0;
        const TOP: f64 = 40.0;
        const WIDTH: f64 = 740.0;
        const HEIGHT: f64 = 310.0;
        let frame = self.frame();
        let place_x = |x: f64| LEFT + x / frame.x_max * WIDTH;
        let place_y = |y: f64| {
            let decade = y.max(1.0).log10().clamp(frame.decade_min, frame.decade_max);
            TOP + (frame.decade_max - decade) / (frame.decade_max - frame.decade_min) * HEIGHT
        };
        let mut svg = String::from(SVG_HEAD);
        let _ = writeln!(
            svg,
            "<text class=\"t\" x=\"{LEFT}\" y=\"22\">{}</text>",
            escape(&self.title)
        );
        for decade in index(frame.decade_min)..=index(frame.decade_max) {
            let value = 10_f64.powi(i32::try_from(decade).unwrap_or(0));
            let y = place_y(value);
            let name = Units::Auto.show(whole(value));
            let right = LEFT + WIDTH;
            let _ = writeln!(
                svg,
                "<path class=\"g\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"l\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (x, name) in &self.x_ticks {
            let x = place_x(*x);
            let bottom = TOP + HEIGHT;
            let _ = writeln!(
                svg,
                "<path class=\"g\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"l\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 18.0,
                escape(name)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"l\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT + WIDTH / 2.0,
            TOP + HEIGHT + 36.0,
            escape(&self.x_name)
        );
        let place = |(x, y): (f64, f64)| (place_x(x), place_y(y));
        for series in &self.series {
            curve_of(&mut svg, series, place);
            marks_of(&mut svg, series, place);
        }
        // Below the axis, where no curve is.
        self.legend(&mut svg, LEFT + 5.0, TOP + HEIGHT + 60.0);
        svg.push_str("</svg>\n");
        svg
    }
}

/// Places for names in one line of the legend, and letters that one holds.
const LEGEND_COLUMNS: usize = 4;
const LEGEND_LETTERS: usize = 26;

/// What joins the points of a series.
fn curve_of(svg: &mut String, series: &Series, place: impl Fn((f64, f64)) -> (f64, f64)) {
    if series.line == Line::Points {
        return;
    }
    let mut path = String::new();
    for (number, point) in series.points.iter().enumerate() {
        let (x, y) = place(*point);
        let _ = match (number, series.line) {
            (0, _) => write!(path, "M{x:.1} {y:.1}"),
            (_, Line::Front) => write!(path, "H{x:.1}V{y:.1}"),
            (_, Line::Bars) => write!(path, "M{x:.1} {y:.1}"),
            _ => write!(path, "L{x:.1} {y:.1}"),
        };
        if series.line == Line::Bars {
            let (axis, _) = place((0.0, point.1));
            let _ = write!(path, "H{axis:.1}");
        }
    }
    let kind = match series.line {
        Line::Dashed => " a",
        Line::Front => " f",
        Line::Solid | Line::Points | Line::Bars => "",
    };
    let _ = writeln!(
        svg,
        "<path class=\"s c{}{kind}\" d=\"{path}\"><title>{}</title></path>",
        series.colour % COLOURS,
        escape(&series.name)
    );
}

/// Points that tell their value to whoever stays on them.
fn marks_of(svg: &mut String, series: &Series, place: impl Fn((f64, f64)) -> (f64, f64)) {
    let (every, radius) = match series.line {
        Line::Solid | Line::Dashed => (10, 2.5),
        Line::Points => (1, 5.0),
        Line::Bars => (1, 2.5),
        Line::Front => return,
    };
    for point in series.points.iter().step_by(every) {
        let (x, y) = place(*point);
        let _ = writeln!(
            svg,
            "<circle class=\"d c{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{} {}</title></circle>",
            series.colour % COLOURS,
            escape(&series.name),
            Units::Auto.show(whole(point.1))
        );
    }
}

/// Colours of the style sheet below.
const COLOURS: usize = 7;

const SVG_HEAD: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 450\" \
font-family=\"system-ui,sans-serif\" font-size=\"12\"><style>\
svg{background:#fff}.t{font-size:15px;font-weight:600;fill:#111}.l{fill:#444}.g{stroke:#ddd;fill:none}\
.s{fill:none;stroke-width:2}.d{stroke:none}.a{stroke-dasharray:6 4}.f{stroke-width:1.5;stroke-dasharray:2 4}\
.s.c0{stroke:#0b62d6}.s.c1{stroke:#e07b00}.s.c2{stroke:#777}.s.c3{stroke:#12843f}.s.c4{stroke:#b02a6f}.s.c5{stroke:#6a3fc9}.s.c6{stroke:#0a8f9c}\
.d.c0{fill:#0b62d6}.d.c1{fill:#e07b00}.d.c2{fill:#777}.d.c3{fill:#12843f}.d.c4{fill:#b02a6f}.d.c5{fill:#6a3fc9}.d.c6{fill:#0a8f9c}\
@media(prefers-color-scheme:dark){svg{background:#16181d}.t{fill:#eee}.l{fill:#bbb}.g{stroke:#333}\
.s.c0{stroke:#5b9bff}.s.c1{stroke:#ff9d2e}.s.c2{stroke:#999}.s.c3{stroke:#3fbf70}.s.c4{stroke:#ea6fae}.s.c5{stroke:#a98bff}.s.c6{stroke:#35c4d1}\
.d.c0{fill:#5b9bff}.d.c1{fill:#ff9d2e}.d.c2{fill:#999}.d.c3{fill:#3fbf70}.d.c4{fill:#ea6fae}.d.c5{fill:#a98bff}.d.c6{fill:#35c4d1}}\
</style>\n";

/// A whole index; what is negative is 0.
fn index(number: f64) -> usize {
    usize::try_from(whole(number)).unwrap_or(0)
}

/// The value of a series in each column that it reaches; the highest of those that share one.
fn columns(series: &Series, frame: Frame, width: u32) -> Vec<(usize, f64)> {
    let mut found: Vec<(usize, f64)> = Vec::new();
    let place = |x: f64| index(x / frame.x_max * f64::from(width)).min(width as usize);
    for (x, y) in &series.points {
        let column = place(*x);
        match found.last_mut() {
            Some((last, highest)) if *last == column && series.line != Line::Points => {
                *highest = highest.max(*y);
            }
            _ => found.push((column, *y)),
        }
    }
    found
}

fn row_of(y: f64, frame: Frame, height: u32) -> Option<usize> {
    let decade = y.max(1.0).log10();
    if decade > frame.decade_max {
        return None;
    }
    let share = (frame.decade_max - decade) / (frame.decade_max - frame.decade_min);
    Some(index(share * f64::from(height)).min(height as usize))
}

/// Whether `row` is the one that stands for a whole decade.
fn nearest_tick(frame: Frame, row: u32, height: u32) -> bool {
    let decades = frame.decade_max - frame.decade_min;
    (0..=index(decades)).any(|decade| {
        let at = ratio(decade as u64, 1) / decades * f64::from(height);
        index(at) == row as usize
    })
}

/// Text that is safe between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::curves::{arrival_wait, front, nines_ticks, round_ticks};
    use super::*;
    use crate::measure::recorder::histogram;

    fn chart() -> Chart {
        let mut response = histogram();
        for n in 0..10_000 {
            response.record(100 + n * n / 10_000).unwrap();
        }
        let series = vec![percentiles("response <all>", &response)];
        Chart {
            title: "a & b".to_owned(),
            x_name: "percentile".to_owned(),
            x_ticks: nines_ticks(&series),
            series,
            y_max: None,
        }
    }

    #[test]
    fn a_terminal_chart_fits_eighty_columns() {
        let text = chart().to_text();
        for line in text.lines() {
            assert!(
                line.chars().count() <= 80,
                "{} {line}",
                line.chars().count()
            );
        }
        assert!(text.contains("100ns") && text.contains("99.9"), "{text}");
    }

    #[test]
    fn an_svg_is_the_same_every_time_and_escapes_names() {
        assert_eq!(chart().to_svg(), chart().to_svg());
        let svg = chart().to_svg();
        assert!(svg.contains("response &lt;all&gt;") && svg.contains("a &amp; b"));
        assert!(
            !svg.contains("http://") || svg.matches("http://").count() == 1,
            "only the name space"
        );
        assert_eq!(svg.matches("<svg").count(), 1);
    }

    #[test]
    fn a_curve_ends_where_the_samples_do() {
        // 10,000 samples: 10 above the 99.9th percentile, which is three nines.
        let reach = reach(&chart().series);
        assert!((reach - 3.0).abs() < 1e-9, "{reach}");
    }

    #[test]
    fn axes_have_round_numbers() {
        let names = |reach| {
            let ticks = round_ticks(reach, "s").into_iter();
            ticks.map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(2.9), ["0.0s", "0.5s", "1.0s", "1.5s", "2.0s", "2.5s"]);
        assert_eq!(names(30.0), ["0s", "5s", "10s", "15s", "20s", "25s", "30s"]);
        assert_eq!(names(0.0), ["0.00s"]);
    }

    #[test]
    fn the_front_is_whom_nobody_beats_in_both() {
        let points = vec![(1.0, 9.0), (0.5, 10.0), (2.0, 9.5), (1.5, 2.0), (1.5, 3.0)];
        assert_eq!(front(points), [(0.5, 10.0), (1.0, 9.0), (1.5, 2.0)]);
    }

    #[test]
    fn an_empty_chart_is_a_chart() {
        let empty = Chart {
            series: Vec::new(),
            ..chart()
        };
        assert!(empty.to_text().contains("a & b"));
        assert!(empty.to_svg().ends_with("</svg>\n"));
    }

    #[test]
    fn counted_gaps_wait_as_single_ones_do() {
        // (10 ms - x) + (4 ms - x) = 10 ms at x = 2 ms.
        let gaps = [(10_000_000, 1), (4_000_000, 1)];
        assert_eq!(arrival_wait(&gaps, 1_000_000_000, 99.0), 2_000_000);
        assert_eq!(arrival_wait(&[], 1_000_000_000, 99.0), 0);
    }

    #[test]
    fn a_histogram_has_a_bar_for_each_step_and_all_events_in_them() {
        let mut response = histogram();
        for ns in [100, 100, 100, 30_000] {
            response.record(ns).unwrap();
        }
        let series = shares("response", &response);
        assert_eq!(series.points.len(), 2, "{series:?}");
        assert!((series.points[0].0 - 75.0).abs() < 1e-9, "{series:?}");
        let sum: f64 = series.points.iter().map(|(share, _)| share).sum();
        assert!((sum - 100.0).abs() < 1e-9);
        let chart = Chart {
            x_ticks: round_ticks(75.0, "%"),
            series: vec![series],
            ..chart()
        };
        // The longer bar is three times the shorter one.
        let text = chart.to_text();
        let lengths = text.lines().map(|line| line.matches('●').count());
        let mut lengths: Vec<usize> = lengths.filter(|length| *length > 2).collect();
        lengths.sort_unstable();
        let [short, long] = lengths[..] else {
            panic!("{text}");
        };
        assert!((short * 3).abs_diff(long) <= 4, "{text}");
        assert_eq!(chart.to_svg().matches("H80.0").count(), 2);
    }
}
