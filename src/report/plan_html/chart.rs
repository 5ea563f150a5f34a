//! A stacked chart over epochs. Shapes are SVG that stretches with the page, text is HTML that does not.

use std::fmt::Write;

/// One band of a stack.
pub(super) struct Layer {
    pub(super) name: &'static str,
    /// CSS class of the colour.
    pub(super) class: &'static str,
    /// Epochs of each run and the value in them.
    pub(super) values: Vec<(usize, u64)>,
}

/// A stack of bands with one line above or in them.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What is shown, escaped.
    pub(super) about: String,
    pub(super) unit: fn(u64) -> String,
    pub(super) layers: Vec<Layer>,
    /// Name and a value for each epoch.
    pub(super) line: Option<(&'static str, Vec<u64>)>,
}

/// Height of the drawing in its own units; its width is the number of epochs.
const HEIGHT: f64 = 100.0;

impl Chart {
    /// Appends the chart.
    pub(super) fn draw(&self, page: &mut String, epochs: usize) {
        let totals = self.totals();
        let peak = totals.iter().copied().max().unwrap_or(0).max(1);
        let top = round_up(peak);
        let y = |value: u64| HEIGHT - value as f64 / top as f64 * HEIGHT;
        let _ = write!(
            page,
            "<figure class=\"chart\">\n<figcaption><b>{}</b> <span class=\"dim\">{}</span></figcaption>\n<div class=\"legend\">",
            self.title, self.about
        );
        for layer in &self.layers {
            let _ = write!(page, "<span><i class=\"{}\"></i>{}</span>", layer.class, layer.name);
        }
        if let Some((name, _)) = &self.line {
            let _ = write!(page, "<span><i class=\"line\"></i>{name}</span>");
        }
        page.push_str("</div>\n<div class=\"plot\">");
        for part in [4, 2, 0] {
            let value = top / 4 * part;
            let _ = write!(page, "<span class=\"y\" style=\"bottom:{}%\">{}</span>", 25 * part, (self.unit)(value));
        }
        let (first, last) = (totals.first().copied().unwrap_or(0), totals.last().copied().unwrap_or(0));
        let _ = write!(
            page,
            "<div class=\"area\" data-plot=\"{epochs}\"><svg viewBox=\"0 0 {epochs} {HEIGHT}\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"{}: from {} in the first epoch to {} in the last\">",
            self.title,
            (self.unit)(first),
            (self.unit)(last)
        );
        for line in [0.0, 25.0, 50.0, 75.0] {
            let _ = write!(page, "<path class=\"grid\" d=\"M0 {line}H{epochs}\"/>");
        }
        let mut below: Vec<u64> = vec![0; totals.len()];
        for layer in &self.layers {
            let path = band(&layer.values, &mut below, &y);
            let _ = write!(page, "<path class=\"{}\" d=\"{path}\"/>", layer.class);
        }
        if let Some((_, points)) = &self.line {
            let _ = write!(page, "<path class=\"line\" d=\"{}\"/>", steps(points, &y));
        }
        page.push_str("</svg><i class=\"marker\"></i></div></div>\n");
        axis(page, epochs, "axis");
        page.push_str("</figure>\n");
    }

    fn totals(&self) -> Vec<u64> {
        let runs = self.layers.first().map_or(0, |layer| layer.values.len());
        let value = |layer: &Layer, run: usize| layer.values.get(run).map_or(0, |(_, value)| *value);
        (0..runs).map(|run| self.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(value(layer, run)))).collect()
    }
}

/// Returns the outline of a band on top of `below`, which becomes its upper edge.
fn band(values: &[(usize, u64)], below: &mut [u64], y: &impl Fn(u64) -> f64) -> String {
    let (mut upper, mut lower) = (String::new(), String::new());
    let mut x = 0;
    for ((epochs, value), below) in values.iter().zip(below) {
        let end = x + epochs;
        let floor = *below;
        *below = below.saturating_add(*value);
        let start = if x == 0 { "M0 " } else { "V" };
        let _ = write!(upper, "{start}{:.2}H{end}", y(*below));
        lower = format!("V{:.2}H{x}{lower}", y(floor));
        x = end;
    }
    format!("{upper}{lower}Z")
}

/// Returns a line with one level for each epoch.
fn steps(points: &[u64], y: &impl Fn(u64) -> f64) -> String {
    let mut path = String::new();
    let mut x = 0;
    for run in points.chunk_by(|a, b| a == b) {
        let Some(value) = run.first() else { continue };
        let _ = write!(path, "{}{:.2}H{}", if x == 0 { "M0 " } else { "V" }, y(*value), x + run.len());
        x += run.len();
    }
    path
}

/// Returns a multiple of four with at most two digits before its zeros that is not below `value`.
fn round_up(value: u64) -> u64 {
    let mut step = 1u64;
    while value / step >= 100 {
        step = step.saturating_mul(10);
    }
    value.div_ceil(4 * step).saturating_mul(4).saturating_mul(step)
}

/// Appends the epoch numbers below or above a drawing over epochs.
pub(in crate::report) fn axis(page: &mut String, epochs: usize, class: &str) {
    const MOST: usize = 10;
    let _ = write!(page, "<div class=\"{class}\" aria-hidden=\"true\">");
    let every = [1, 2, 5].into_iter().cycle().zip((0..7).flat_map(|power| [10usize.pow(power); 3]));
    let every = every.map(|(digit, power)| digit * power).find(|every| epochs / every <= MOST).unwrap_or(epochs);
    let ticks = (1..=epochs).filter(|epoch| epoch % every == 0 || *epoch == 1 && every > 2);
    for epoch in ticks {
        let place = (epoch as f64 - 0.5) / epochs as f64 * 100.0;
        let _ = write!(page, "<span style=\"left:{place:.2}%\">{epoch}</span>");
    }
    page.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_round_quarters() {
        let cases =
            [(1, 4), (4, 4), (5, 8), (39, 40), (41, 44), (100, 120), (2_732_810, 2_800_000), (4_108_692, 4_400_000)];
        for (value, expected) in cases {
            assert_eq!(round_up(value), expected, "{value}");
            assert!(round_up(value) >= value);
        }
    }

    #[test]
    fn bands_lie_on_each_other() {
        let y = |value: u64| 10.0 - value as f64;
        let mut below = vec![0, 0];
        assert_eq!(band(&[(2, 4), (1, 1)], &mut below, &y), "M0 6.00H2V9.00H3V10.00H2V10.00H0Z");
        assert_eq!(below, [4, 1]);
        assert_eq!(band(&[(2, 2), (1, 0)], &mut below, &y), "M0 4.00H2V9.00H3V9.00H2V6.00H0Z");
        assert_eq!(steps(&[3, 3, 1], &y), "M0 7.00H2V9.00H3");
    }
}
