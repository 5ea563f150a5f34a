//! Numbers of a run as a person reads them, and lines in the columns of a terminal.

/// Returns a loss with four decimals, or in powers of ten where these say nothing.
pub fn loss(value: f64) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-3..1e5).contains(&value.abs());
    if plain { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// Returns a metric's value: of those that are fractions as a percentage.
pub fn metric_value(name: &str, value: f64) -> String {
    let fraction = name == "accuracy" || name.starts_with("top_");
    if fraction { format!("{:.2} %", value * 100.0) } else { loss(value) }
}

/// Returns a metric on the eval data with its name.
pub fn metric(name: &str, value: f64) -> String {
    format!("eval {name} {}", metric_value(name, value))
}

/// Returns a fraction as a percentage.
pub fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    if percent.abs() < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// Returns `1 step` or `2 steps`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Returns something a second, such as `768` or `12.3k`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e6 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1}k", rate / 1e3),
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate => format!("{rate:.2}"),
    }
}

/// Returns bytes, such as `118 MB`; a MB is a million bytes.
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.1} GB", bytes / 1e9) } else { format!("{:.0} MB", bytes / 1e6) }
}

/// Returns seconds as `0:42`, `12:05` or `3:07:22`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).ceil() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{rest:02}") } else { format!("{minutes}:{rest:02}") }
}

/// Returns seconds of a step, such as `8.13 ms`.
pub fn step_seconds(seconds: f64) -> String {
    let (number, unit) = if seconds < 1.0 { (seconds * 1e3, "ms") } else { (seconds, "s") };
    match number {
        number if number >= 100.0 => format!("{number:.0} {unit}"),
        number if number >= 10.0 => format!("{number:.1} {unit}"),
        number => format!("{number:.2} {unit}"),
    }
}

/// Returns a text in lines of at most `width` columns; later ones are indented. A word that is longer stands alone.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let measure = console::measure_text_width;
    if measure(text) <= width {
        return vec![text.to_string()];
    }
    let indent = text.len() - text.trim_start().len();
    let mut lines = Vec::new();
    let mut line = " ".repeat(indent);
    let mut empty = true;
    // A sign stays with its number.
    for word in text.trim_start().replace(" %", "\u{a0}%").split(' ') {
        let gap = usize::from(!empty);
        if !empty && measure(&line) + gap + measure(word) > width {
            lines.push(line.trim_end().replace('\u{a0}', " "));
            (line, empty) = (" ".repeat(indent + 2), true);
        }
        // Two spaces between words part fields; none start a line.
        if word.is_empty() && empty {
            continue;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    lines.push(line.replace('\u{a0}', " "));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let losses =
            [(0.0, "0.0000"), (0.1234567, "0.1235"), (1.2e-7, "1.200e-7"), (f64::NAN, "NaN"), (2e9, "2.000e9")];
        losses.iter().for_each(|(value, expected)| assert_eq!(&loss(*value), expected));
        let times = [(0.2, "0:01"), (42.0, "0:42"), (725.0, "12:05"), (11_242.0, "3:07:22")];
        times.iter().for_each(|(seconds, expected)| assert_eq!(&duration(*seconds), expected));
        let rates = [(0.5, "0.50"), (768.4, "768"), (12_345.0, "12.3k"), (3.2e6, "3.2M")];
        rates.iter().for_each(|(value, expected)| assert_eq!(&rate(*value), expected));
        assert_eq!((bytes(118_400_000), bytes(2_340_000_000)), ("118 MB".into(), "2.3 GB".into()));
        assert_eq!((step_seconds(0.00813), step_seconds(2.5)), ("8.13 ms".into(), "2.50 s".into()));
        assert_eq!((metric("top_5", 0.5), metric("r2", 0.5)), ("eval top_5 50.00 %".into(), "eval r2 0.5000".into()));
    }

    #[test]
    fn lines_are_broken_between_words() {
        let cases: [(&str, usize, &[&str]); 6] = [
            ("cost 77 % here", 9, &["cost 77 %", "  here"]),
            ("short", 40, &["short"]),
            ("one two three", 8, &["one two", "  three"]),
            ("  one two three", 10, &["  one two", "    three"]),
            ("loss 1  eval loss 2", 8, &["loss 1", "  eval", "  loss 2"]),
            ("a verylongword b", 6, &["a", "  verylongword", "  b"]),
        ];
        for (text, width, expected) in cases {
            assert_eq!(wrap(text, width), expected, "{text:?} in {width} columns");
        }
    }
}
