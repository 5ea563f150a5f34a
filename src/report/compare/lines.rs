//! A chart with one line a plan over the epochs. Shapes are SVG that stretches with the page, text is HTML that does
//! not.

use crate::report::page::escape;
use crate::report::plan_html::axis;
use std::fmt::Write;

/// Height of the drawing in its own units; its width is the number of epochs.
const HEIGHT: f64 = 100.0;
/// Least distance of two labels, in percent of the height.
const APART: f64 = 6.0;
/// Colours, and ways in which a line is broken: together they tell 40 lines apart.
const COLOURS: usize = 8;
const DASHES: [&str; 5] = ["", "7 3", "2 3", "10 3 2 3", "14 4"];

/// A chart of fractions.
pub(super) struct Lines<'a> {
    pub(super) title: &'a str,
    pub(super) about: &'a str,
    pub(super) lines: Vec<Line<'a>>,
}

/// One line.
pub(super) struct Line<'a> {
    /// Number of the plan, from 0.
    pub(super) index: usize,
    pub(super) label: &'a str,
    /// A fraction for each epoch.
    pub(super) values: &'a [f64],
}

/// Returns the class and the dashes of a plan's line.
pub(in crate::report) fn look(index: usize) -> (usize, &'static str) {
    // Neighbours differ in both, so that they differ in grey too.
    (index % COLOURS, DASHES.get((index + index / COLOURS) % DASHES.len()).copied().unwrap_or_default())
}

/// Appends a short piece of a plan's line.
pub(in crate::report) fn sample(page: &mut String, index: usize) {
    let (colour, dashes) = look(index);
    let _ = write!(
        page,
        "<svg class=\"key\" viewBox=\"0 0 34 8\" aria-hidden=\"true\"><path class=\"l l{colour}\" \
         stroke-dasharray=\"{dashes}\" d=\"M0 4H34\"/></svg>"
    );
}

impl Lines<'_> {
    /// Appends the chart.
    pub(super) fn draw(&self, page: &mut String, epochs: usize) {
        let most = self.lines.iter().flat_map(|line| line.values.iter().copied()).fold(1.0, f64::max);
        let y = |value: f64| HEIGHT - value / most * HEIGHT;
        let _ = write!(
            page,
            "<figure class=\"chart\">\n<figcaption><b>{}</b> <span class=\"dim\">{}</span></figcaption>\n\
             <div class=\"plot lines\">",
            self.title, self.about
        );
        for quarter in [4, 3, 2, 1, 0] {
            let _ = write!(
                page,
                "<span class=\"y\" style=\"bottom:{}%\">{:.0} %</span>",
                25 * quarter,
                most * 25.0 * f64::from(quarter)
            );
        }
        let _ = write!(
            page,
            "<div class=\"area\"><svg viewBox=\"0 0 {epochs} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{}\">",
            escape(&self.told())
        );
        for line in [0.0, 25.0, 50.0, 75.0, 100.0] {
            let _ = write!(page, "<path class=\"grid\" d=\"M0 {line}H{epochs}\"/>");
        }
        for Line { index, values, .. } in &self.lines {
            let (colour, dashes) = look(*index);
            let _ =
                write!(page, "<path class=\"l l{colour}\" stroke-dasharray=\"{dashes}\" d=\"{}\"/>", steps(values, y));
        }
        page.push_str("</svg>");
        for (index, place) in self.places(|value| 100.0 - y(value)) {
            let _ = write!(page, "<b class=\"end\" style=\"bottom:{place:.1}%\">{}</b>", index + 1);
        }
        page.push_str("</div></div>\n");
        axis(page, epochs, "axis");
        page.push_str("</figure>\n");
    }

    /// Returns what the chart shows, in words.
    fn told(&self) -> String {
        let ends = self.lines.iter().filter_map(|line| {
            let (first, last) = (line.values.first()?, line.values.last()?);
            Some(format!("{} from {:.0} % to {:.0} %", line.label, 100.0 * first, 100.0 * last))
        });
        format!("{}: {}", self.title, ends.collect::<Vec<_>>().join("; "))
    }

    /// Returns where the lines' numbers stand at the right edge, in percent from below and without overlaps.
    fn places(&self, height: impl Fn(f64) -> f64) -> Vec<(usize, f64)> {
        let end = |line: &Line<'_>| Some((line.index, height(*line.values.last()?)));
        let mut places: Vec<(usize, f64)> = self.lines.iter().filter_map(end).collect();
        places.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        spread(&mut places);
        places
    }
}

/// Moves places apart, as little as the order from below allows, within 0 to 100 where they fit.
pub(in crate::report) fn spread(places: &mut [(usize, f64)]) {
    let apart = APART.min(100.0 / places.len().max(1) as f64);
    let mut least = 0.0;
    for (_, place) in places.iter_mut() {
        *place = place.max(least);
        least = *place + apart;
    }
    let mut most = 100.0;
    for (_, place) in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - apart;
    }
}

/// Returns a line with one level for each epoch.
fn steps(values: &[f64], y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut x = 0;
    for run in values.chunk_by(|a, b| a == b) {
        let Some(value) = run.first() else { continue };
        let _ = write!(path, "{}{:.2}H{}", if x == 0 { "M0 " } else { "V" }, y(*value), x + run.len());
        x += run.len();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap() {
        for heights in [vec![0.0, 0.0, 0.0], vec![100.0, 100.0, 99.0], vec![50.0, 51.0, 52.0, 100.0], vec![7.0; 40]] {
            let mut places: Vec<(usize, f64)> = heights.into_iter().enumerate().collect();
            let apart = APART.min(100.0 / places.len() as f64) - 1e-9;
            spread(&mut places);
            let fine = places.windows(2).all(|pair| pair[1].1 - pair[0].1 >= apart);
            assert!(fine && places.iter().all(|place| (0.0..=100.0).contains(&place.1)), "{places:?}");
        }
    }

    #[test]
    fn a_line_has_one_level_an_epoch() {
        assert_eq!(steps(&[0.0, 0.0, 0.5, 1.0], |value| 100.0 - 100.0 * value), "M0 100.00H2V50.00H3V0.00H4");
        let looks: std::collections::HashSet<_> = (0..COLOURS * DASHES.len()).map(look).collect();
        assert_eq!(looks.len(), COLOURS * DASHES.len());
    }
}
