//! Text with names out of a file, as it may go to a terminal.
//!
//! A name may hold anything: sequences that move the cursor or set the title, marks that turn the
//! direction of writing, line ends, or a hundred megabytes.

use std::borrow::Cow;

/// Longest line that is printed, in characters.
const MOST: usize = 2000;
/// How much of the end of a longer one is kept.
const TAIL: usize = 500;

/// Returns a text as one line: control characters escaped, the middle of a very long one left out.
pub fn line(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST && !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let from_end = |count: usize| text.char_indices().rev().nth(count - 1).map_or(0, |(at, _)| at);
    let head = text.char_indices().nth(MOST - TAIL).map_or(text.len(), |(at, _)| at);
    let tail = from_end(TAIL);
    Cow::Owned(match text.chars().nth(MOST) {
        Some(_) if head < tail => format!("{} .. {}", escaped(&text[..head]), escaped(&text[tail..])),
        _ => escaped(text),
    })
}

/// Returns a text of several lines, each as [`line`] returns it.
pub fn lines(text: &str) -> Cow<'_, str> {
    let fine = |text: &str| matches!(line(text), Cow::Borrowed(_));
    if text.split('\n').all(fine) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Returns true for what a terminal acts on: control characters, marks of the direction of
/// writing, separators of lines.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_no_control_character() {
        let cases = [
            ("layer1.0.conv1 – größer", "layer1.0.conv1 – größer"),
            ("a\u{1b}]0;title\u{7}b", "a\\u{1b}]0;title\\u{7}b"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("a\u{9b}31m\u{202e}b", "a\\u{9b}31m\\u{202e}b"),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\n\u{1b}b\n"), "a\n\\u{1b}b\n");
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        let text = format!("{}{}", "ä".repeat(100_000), "z".repeat(100_000));
        let shown = line(&text);
        assert_eq!(shown.chars().count(), MOST + 4);
        assert!(shown.starts_with('ä') && shown.ends_with('z') && shown.contains("ä .. z"));
        assert_eq!(line(&"ä".repeat(MOST)).chars().count(), MOST);
    }
}
