//! A policy with its settings in one word: `linear`, `linear:freeze_start=0.3,freeze_level=0.9`.

use super::failure::Failure;
use super::options::value_of;
use crate::error::ErrorKind;
use serde_json::{Map, Value};

/// A policy and its settings, as they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// Name of the policy.
    pub name: String,
    /// Settings by name.
    pub settings: Map<String, Value>,
}

impl PolicySpec {
    /// Reads `NAME` or `NAME:KEY=VALUE,KEY=VALUE`. A comma starts the next setting where `KEY=` follows it, outside of
    /// quotes and brackets; any other comma belongs to the value, as in `steps:steps=3:4,6:0`.
    ///
    /// # Errors
    /// A setting is not `KEY=VALUE`, or one is given twice.
    pub fn read(text: &str) -> Result<PolicySpec, Failure> {
        let wrong = |reason: String| {
            Failure::new(ErrorKind::Usage, format!("--policy \"{text}\": {reason}"))
                .hint("--policy linear:freeze_start=0.3,freeze_level=0.9")
        };
        let Some((name, rest)) = text.split_once(':') else {
            return Ok(PolicySpec { name: text.trim().into(), settings: Map::new() });
        };
        let mut settings = Map::new();
        for item in items(rest) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            let key = key.trim();
            if !is_key(key) || value.is_empty() {
                return Err(wrong(format!("\"{item}\" is not KEY=VALUE")));
            }
            if settings.insert(key.to_string(), value_of(value)).is_some() {
                return Err(wrong(format!("{key} is given twice")));
            }
        }
        Ok(PolicySpec { name: name.trim().into(), settings })
    }
}

/// Returns the settings, each with its key.
fn items(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut from, mut depth, mut quoted, mut escaped) = (0, 0usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 && starts_a_setting(&text[at + 1..]) => {
                items.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items.push(&text[from..]);
    items
}

fn starts_a_setting(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, _)| is_key(key.trim()))
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_comma_separates_settings_where_a_key_follows() {
        let cases = [
            ("linear", "linear", json!({})),
            ("linear:freeze_start=0.3", "linear", json!({"freeze_start": 0.3})),
            ("freezeout:t_0=0.5,how=linear", "freezeout", json!({"t_0": 0.5, "how": "linear"})),
            ("freezeout: t_0=0.5, how=linear", "freezeout", json!({"t_0": 0.5, "how": "linear"})),
            ("steps:steps=3:4,6:0", "steps", json!({"steps": "3:4,6:0"})),
            (
                r#"steps:steps=[{"epoch": 2, "frozen": ["a,b=c", "x]"]}, {"epoch": 3, "frozen": 1}]"#,
                "steps",
                json!({"steps": [{"epoch": 2, "frozen": ["a,b=c", "x]"]}, {"epoch": 3, "frozen": 1}]}),
            ),
            ("x:a=1,2,b=3,4", "x", json!({"a": "1,2", "b": "3,4"})),
            (r#"x:a="q\",b=1",c=2"#, "x", json!({"a": "q\",b=1", "c": 2})),
        ];
        for (text, name, settings) in cases {
            let spec = PolicySpec::read(text).unwrap();
            assert_eq!((spec.name.as_str(), Value::from(spec.settings)), (name, settings), "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for text in ["linear:", "linear:0.3", "linear:freeze_start", "linear:a=", "linear:a=1,a=2", "linear:=1"] {
            assert!(PolicySpec::read(text).is_err(), "{text}");
        }
    }
}
