//! The policies there are, in a terminal of 80 columns.

use crate::plan::Knob;
use crate::plan::policies::{Entry, POLICIES};

const WIDTH: usize = 80;

/// Returns every policy with the first sentence of its card and its settings with their defaults, as text of at most
/// 80 columns.
pub fn policies_table() -> String {
    let indent = 2 + POLICIES.iter().map(|entry| entry.name.len()).max().unwrap_or_default();
    POLICIES.iter().map(|entry| about(entry, indent)).collect()
}

fn about(entry: &Entry, indent: usize) -> String {
    let setting = |knob: &Knob| format!("{} = {}", knob.name, knob.default);
    let settings = entry.knobs.iter().map(setting).collect::<Vec<_>>().join(", ");
    let mut text = column(&entry.about(), indent);
    if !settings.is_empty() {
        text += &column(&settings, indent);
    }
    format!("{:indent$}{}", entry.name, text.trim_start())
}

/// Returns a text in lines that start at a column.
fn column(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &format!("{:indent$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{:indent$}{line}\n", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_and_setting_is_listed_within_the_width() {
        let table = policies_table();
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        for entry in POLICIES {
            assert!(table.lines().any(|line| line.split(' ').next() == Some(entry.name)), "{}", entry.name);
            for knob in entry.knobs {
                let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(words.contains(&format!("{} = {}", knob.name, knob.default)), "{} {}", entry.name, knob.name);
            }
        }
    }

    #[test]
    fn a_policy_is_a_sentence_and_its_settings() {
        let entry = POLICIES.iter().find(|entry| entry.name == "linear").unwrap();
        let expected = "\
linear    Freezes from the input side, linearly in time: Composer's
          LayerFreezing.
          freeze_start = 0.5, freeze_level = 1, arithmetic = composer
";
        assert_eq!(about(entry, 10), expected);
    }
}
