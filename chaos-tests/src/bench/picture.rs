//! A picture of the cases of a benchmark that lie on an axis: one line for each side, as SVG that is readable on light and dark
//! pages. Draws medians, with the least and the most as bars.

use std::fmt::Write as _;

use super::figures::short;
use super::{Outcome, Spread};

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// The file, beside the page.
    pub file: &'static str,
    /// The axis of the cases.
    pub x: Axis,
    /// The axis of the first goal's figures.
    pub y: Axis,
}

/// An axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What it shows, with the unit.
    pub name: &'static str,
    /// Whether each step is ten times the one before. Nothing on it may be 0 then.
    pub logarithmic: bool,
}

/// The whole picture, and the part with the lines: left, top, right, bottom.
const SIZE: (f64, f64) = (640.0, 360.0);
const PLOT: [f64; 4] = [70.0, 40.0, 620.0, 300.0];

/// Marks of a linear axis.
const STEPS: usize = 5;

/// Colours that stand out from white and from black, and from each other for people who see no red or no green.
const COLOURS: [&str; 2] = ["#2f81d6", "#d98324"];

/// What an axis covers.
#[derive(Debug, Clone)]
struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
    marks: Vec<f64>,
}

impl Scale {
    /// For these values. A linear one begins at 0, so that lengths can be compared.
    fn of(axis: Axis, values: &[f64]) -> Self {
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if axis.logarithmic {
            let least = values.iter().copied().filter(|value| *value > 0.0).fold(most, f64::min);
            let (from, to) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
            let marks = (from as i32..=to as i32).map(|power| 10_f64.powi(power)).collect();
            return Self { from, to, logarithmic: true, marks };
        }
        // The step is 1, 2 or 5 of some power of ten.
        let rough = most / STEPS as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let number = (most / step).ceil();
        let marks = (0..=number as usize).map(|mark| mark as f64 * step).collect();
        Self { from: 0.0, to: number * step, logarithmic: false, marks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// The picture of an outcome.
pub(super) fn svg(picture: &Picture, outcome: &Outcome) -> String {
    let points = |of: fn(&super::Verdict) -> Option<Spread>| {
        let cases = outcome.cases.iter();
        cases.filter_map(|case| Some((case.at?, of(case.verdicts.first()?)?))).collect::<Vec<_>>()
    };
    let mut lines = vec![("Longshore", points(|verdict| verdict.ours))];
    let reference = points(|verdict| verdict.reference);
    if !reference.is_empty() {
        lines.push(("reference", reference));
    }
    let all = || lines.iter().flat_map(|(_, points)| points);
    let x = Scale::of(picture.x, &all().map(|(at, _)| *at).collect::<Vec<_>>());
    let y = Scale::of(picture.y, &all().flat_map(|(_, spread)| [spread.least, spread.most]).collect::<Vec<_>>());

    let [left, top, right, bottom] = PLOT;
    let to_x = |at: f64| left + x.place(at) * (right - left);
    let to_y = |figure: f64| bottom - y.place(figure) * (bottom - top);
    let mut out = head(picture, outcome);
    for mark in &x.marks {
        let at = to_x(*mark);
        let _ = writeln!(out, r#"<line class="grid" x1="{at:.1}" y1="{top}" x2="{at:.1}" y2="{bottom}"/>"#);
        let _ = writeln!(
            out,
            r#"<text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            mark_text(*mark)
        );
    }
    for mark in &y.marks {
        let at = to_y(*mark);
        let _ = writeln!(out, r#"<line class="grid" x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/>"#);
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 8.0,
            at + 4.0,
            mark_text(*mark)
        );
    }
    for ((name, points), (number, colour)) in lines.iter().zip(COLOURS.iter().enumerate()) {
        let path: Vec<_> =
            points.iter().map(|(at, spread)| format!("{:.1},{:.1}", to_x(*at), to_y(spread.median))).collect();
        let _ =
            writeln!(out, r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#, path.join(" "));
        for (at, spread) in points {
            let (at, least, median, most) = (to_x(*at), to_y(spread.least), to_y(spread.median), to_y(spread.most));
            let _ =
                writeln!(out, r#"<line stroke="{colour}" x1="{at:.1}" y1="{least:.1}" x2="{at:.1}" y2="{most:.1}"/>"#);
            let _ = writeln!(out, r#"<circle fill="{colour}" cx="{at:.1}" cy="{median:.1}" r="3.5"/>"#);
        }
        let from = left + 120.0 * number as f64;
        let _ = writeln!(out, r#"<rect fill="{colour}" x="{from}" y="24" width="14" height="4"/>"#);
        let _ = writeln!(out, r#"<text x="{}" y="30">{name}</text>"#, from + 20.0);
    }
    out.push_str("</svg>\n");
    out
}

fn head(picture: &Picture, outcome: &Outcome) -> String {
    let (width, height) = SIZE;
    let [left, top, right, bottom] = PLOT;
    let (middle, centre) = ((left + right) / 2.0, (top + bottom) / 2.0);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="12">
<title>{}</title>
<style>text {{ fill: #333 }} .grid {{ stroke: #ccc }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .grid {{ stroke: #444 }} }}</style>
<text x="{middle}" y="{}" text-anchor="middle">{}</text>
<text x="16" y="{centre}" text-anchor="middle" transform="rotate(-90 16 {centre})">{}</text>
"##,
        escaped(outcome.what),
        height - 16.0,
        escaped(picture.x.name),
        escaped(picture.y.name)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Marks are round: no digits behind the point where there are none.
fn mark_text(mark: f64) -> String {
    if mark.fract() == 0.0 && mark < 10_000.0 { format!("{mark:.0}") } else { short(mark) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn axis(logarithmic: bool) -> Axis {
        Axis { name: "x", logarithmic }
    }

    #[test]
    fn marks_are_round_and_cover_every_value() {
        let linear = Scale::of(axis(false), &[3.0, 12_300.0]);
        assert_eq!(linear.marks, [0.0, 5_000.0, 10_000.0, 15_000.0]);
        let powers = Scale::of(axis(true), &[4.0, 70_000.0]);
        assert_eq!(powers.marks, [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
        assert!((powers.place(1_000.0) - 0.6).abs() < 1e-9 && (linear.place(7_500.0) - 0.5).abs() < 1e-9);
        // One value alone still has an axis.
        assert_eq!(Scale::of(axis(true), &[10.0]).marks, [10.0, 100.0]);
        assert!(Scale::of(axis(false), &[0.0]).place(0.0).abs() < 1e-9);
    }
}
