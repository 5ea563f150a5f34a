//! Numbers of a run as a person reads them.

use crate::report::human::{bytes, percent};

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// A fraction that is shown in percent.
    Percent,
    Seconds,
    Bytes,
}

impl Form {
    /// Returns how values of a metric are shown.
    pub(super) fn of_metric(name: &str) -> Form {
        if name == "accuracy" || name.starts_with("top_") { Form::Percent } else { Form::Plain }
    }

    /// Returns the name that the page's script knows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Plain => "plain",
            Form::Percent => "percent",
            Form::Seconds => "seconds",
            Form::Bytes => "bytes",
        }
    }

    /// Returns a value with four digits, and its unit.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "not finite".into(),
            Form::Plain => number(value),
            Form::Percent => format!("{:.2}\u{a0}%", 100.0 * value),
            Form::Seconds => seconds(value),
            Form::Bytes => size(whole(value)),
        }
    }

    /// Returns a label of an axis with ticks that are `step` apart.
    pub(super) fn tick(self, value: f64, step: f64) -> String {
        match self {
            Form::Plain => decimals(value, step),
            Form::Percent => format!("{} %", decimals(100.0 * value, 100.0 * step)),
            Form::Seconds => format!("{} s", decimals(value, step)),
            Form::Bytes => bytes(whole(value)),
        }
    }
}

/// Returns the whole number next to a value, 0 where it is not one.
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

/// Returns a value with as many decimals as tell ticks apart, and a prefix for many digits.
fn decimals(value: f64, step: f64) -> String {
    let size = value.abs().max(step.abs());
    if size >= 1e12 || size > 0.0 && size < 1e-4 {
        return short(format!("{value:.2e}"));
    }
    for (least, scale, name) in [(1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")] {
        if size >= least && value != 0.0 {
            return format!("{} {name}", short(format!("{:.3}", value / scale)));
        }
    }
    short(format!("{value:.6}"))
}

/// Returns a number without zeros after its last decimal.
fn short(text: String) -> String {
    let (digits, power) = text.split_once('e').map_or((text.as_str(), None), |(digits, power)| (digits, Some(power)));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    let digits = if digits == "-0" { "0" } else { digits };
    power.map_or_else(|| digits.to_string(), |power| format!("{digits}e{power}"))
}

/// Returns a number with four digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "not finite".into(),
        0.0 => "0".into(),
        _ if !(1e-4..1e7).contains(&size) => format!("{value:.3e}"),
        _ => digits(value, 4),
    }
}

fn digits(value: f64, count: u8) -> String {
    let before = value.abs().max(f64::MIN_POSITIVE).log10().floor();
    format!("{value:.*}", (f64::from(count) - 1.0 - before).clamp(0.0, 7.0) as usize)
}

/// Returns bytes with their unit, which stays in the same line.
pub(super) fn size(count: u64) -> String {
    bytes(count).replace(' ', "\u{a0}")
}

/// Returns a fraction in percent; it may be below 0.
pub(super) fn share(fraction: f64) -> String {
    if fraction.is_finite() { percent(fraction).replace(' ', "\u{a0}") } else { "-".into() }
}

/// Returns a time, such as `12.3 ms`, `4.21 s`, `3 min 20 s` or `2 h 05 min`.
pub(super) fn seconds(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        size if size < 1e-12 => "0\u{a0}s".into(),
        size if size < 1.0 => format!("{}\u{a0}ms", digits(value * 1e3, 3)),
        size if size < 100.0 => format!("{}\u{a0}s", digits(value, 3)),
        size if size < 5999.5 => {
            let whole = value.round();
            format!("{:.0}\u{a0}min\u{a0}{:02.0}\u{a0}s", (whole / 60.0).trunc(), (whole % 60.0).abs())
        }
        _ => {
            let whole = (value / 60.0).round();
            format!("{:.0}\u{a0}h\u{a0}{:02.0}\u{a0}min", (whole / 60.0).trunc(), (whole % 60.0).abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.5000"),
            (12.345, "12.35"),
            (-1234.5, "-1234"),
            (99999.4, "99999"),
            (0.000_012_34, "1.234e-5"),
            (3e9, "3.000e9"),
            (f64::NAN, "not finite"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn times_are_told_in_their_unit() {
        let cases = [
            (0.0, "0 s"),
            (0.012_34, "12.3 ms"),
            (4.2, "4.20 s"),
            (200.4, "3 min 20 s"),
            (5999.0, "99 min 59 s"),
            (7512.0, "2 h 05 min"),
            (f64::INFINITY, "-"),
        ];
        for (value, expected) in cases {
            assert_eq!(seconds(value).replace('\u{a0}', " "), expected, "{value}");
        }
    }

    #[test]
    fn ticks_are_as_short_as_they_can_be() {
        let cases = [
            (Form::Plain, 0.25, 0.05, "0.25"),
            (Form::Plain, 250_000.0, 50_000.0, "250 k"),
            (Form::Plain, 1_500_000.0, 500_000.0, "1.5 M"),
            (Form::Plain, 2e-5, 1e-5, "2e-5"),
            (Form::Plain, -0.0, 0.5, "0"),
            (Form::Percent, 0.975, 0.025, "97.5 %"),
            (Form::Seconds, 20.0, 10.0, "20 s"),
            (Form::Bytes, 1.5e9, 5e8, "1.50 GB"),
        ];
        for (form, value, step, expected) in cases {
            assert_eq!(form.tick(value, step), expected, "{value}");
        }
    }
}
