//! The settings of a policy: what exists, what is allowed, what was given.

use super::PlanError;
use crate::error::nearest;
use serde_json::{Map, Value};

/// A setting of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// Its name in a job file and on the command line.
    pub name: &'static str,
    /// What it does and its unit, in one line.
    pub about: &'static str,
    /// What it may be.
    pub range: Range,
    /// What it is where it is not given.
    pub default: Preset,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// A number in [0, 1].
    Fraction,
    /// A number from the first to the second, both included.
    Between(f64, f64),
    /// A number above 0.
    Positive,
    /// A whole number, this or more.
    Count(u64),
    /// True or false.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
    /// Whatever the policy can read.
    Any,
}

/// What a setting is where it is not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// A number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// True or false.
    Flag(bool),
    /// A word.
    Word(&'static str),
    /// Nothing; the policy then does as the text says.
    Unset(&'static str),
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Range::Fraction => f.write_str("a fraction in [0, 1]"),
            Range::Between(least, most) => write!(f, "a number in [{least}, {most}]"),
            Range::Positive => f.write_str("a number above 0"),
            Range::Count(least) => write!(f, "a whole number of {least} or more"),
            Range::Flag => f.write_str("true or false"),
            Range::Word(words) => write!(f, "one of {}", words.join(", ")),
            Range::Any => f.write_str("a value"),
        }
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Preset::Number(number) => write!(f, "{number}"),
            Preset::Count(count) => write!(f, "{count}"),
            Preset::Flag(flag) => write!(f, "{flag}"),
            Preset::Word(word) => f.write_str(word),
            Preset::Unset(text) => f.write_str(text),
        }
    }
}

impl Range {
    /// Returns whether a value lies in the range.
    pub fn holds(&self, value: &Value) -> bool {
        let number = value.as_f64();
        match self {
            Range::Fraction => number.is_some_and(|number| (0.0..=1.0).contains(&number)),
            Range::Between(least, most) => number.is_some_and(|number| (*least..=*most).contains(&number)),
            Range::Positive => number.is_some_and(|number| number.is_finite() && number > 0.0),
            Range::Count(least) => value.as_u64().is_some_and(|count| count >= *least),
            Range::Flag => value.is_boolean(),
            Range::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Range::Any => true,
        }
    }
}

/// The settings of one policy: each within its range.
#[derive(Clone, Copy, Debug)]
pub struct Knobs<'a> {
    known: &'static [Knob],
    given: &'a Map<String, Value>,
}

impl<'a> Knobs<'a> {
    /// Returns the settings of the policy `policy`, which knows those of `known`.
    ///
    /// # Errors
    /// A setting is unknown to the policy or out of its range.
    pub fn new(policy: &str, known: &'static [Knob], given: &'a Map<String, Value>) -> Result<Knobs<'a>, PlanError> {
        for (name, value) in given {
            let Some(knob) = known.iter().find(|knob| knob.name == name) else {
                if super::options::COMMON.contains(&name.as_str()) {
                    return Err(PlanError::OptionAsKnob { policy: policy.into(), name: name.clone() });
                }
                let names = || known.iter().map(|knob| knob.name).chain(super::options::COMMON.iter().copied());
                return Err(PlanError::UnknownKnob {
                    policy: policy.into(),
                    name: name.clone(),
                    nearest: nearest(name, names()).map(String::from),
                    known: names().map(String::from).collect(),
                });
            };
            if !knob.range.holds(value) {
                let (found, expected) = (shown(value), knob.range.to_string());
                return Err(PlanError::Knob { name: knob.name, found, expected });
            }
        }
        Ok(Knobs { known, given })
    }

    /// Returns a setting as it was given; `None` where it was not.
    pub fn given(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name)
    }

    /// Returns a number.
    pub fn number(&self, name: &str) -> f64 {
        let default = match self.default(name) {
            Preset::Number(number) => number,
            Preset::Count(count) => count as f64,
            _ => f64::NAN,
        };
        self.given(name).and_then(Value::as_f64).unwrap_or(default)
    }

    /// Returns a whole number.
    pub fn count(&self, name: &str) -> usize {
        let default = match self.default(name) {
            Preset::Count(count) => count,
            _ => 0,
        };
        let count = self.given(name).and_then(Value::as_u64).unwrap_or(default);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Returns a whole number where one was given.
    pub fn optional_count(&self, name: &str) -> Option<usize> {
        self.given(name).and_then(Value::as_u64).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Returns a truth value.
    pub fn flag(&self, name: &str) -> bool {
        self.given(name).and_then(Value::as_bool).unwrap_or(matches!(self.default(name), Preset::Flag(true)))
    }

    /// Returns a word.
    pub fn word(&self, name: &str) -> &'a str {
        let default = match self.default(name) {
            Preset::Word(word) => word,
            _ => "",
        };
        self.given(name).and_then(Value::as_str).unwrap_or(default)
    }

    fn default(&self, name: &str) -> Preset {
        let knob = self.known.iter().find(|knob| knob.name == name);
        knob.expect("invariant: a policy reads the knobs that it lists").default
    }

    /// Returns every setting that has a value, for the plan file.
    pub fn settings(&self) -> Map<String, Value> {
        let value = |knob: &Knob| {
            let default = match knob.default {
                Preset::Number(number) => Some(Value::from(number)),
                Preset::Count(count) => Some(Value::from(count)),
                Preset::Flag(flag) => Some(Value::from(flag)),
                Preset::Word(word) => Some(Value::from(word)),
                Preset::Unset(_) => None,
            };
            let given = self.given(knob.name).map(|given| match (knob.range, given.as_f64()) {
                (Range::Fraction | Range::Between(..) | Range::Positive, Some(number)) => Value::from(number),
                _ => given.clone(),
            });
            Some((knob.name.to_string(), given.or(default)?))
        };
        self.known.iter().filter_map(value).collect()
    }
}

/// Returns a value as a person would write it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static KNOBS: &[Knob] = &[
        Knob { name: "start", about: "", range: Range::Fraction, default: Preset::Number(0.5) },
        Knob { name: "every", about: "", range: Range::Count(1), default: Preset::Count(20) },
        Knob { name: "scaled", about: "", range: Range::Flag, default: Preset::Flag(true) },
        Knob { name: "how", about: "", range: Range::Word(&["linear", "cubic"]), default: Preset::Word("cubic") },
        Knob { name: "steps", about: "", range: Range::Any, default: Preset::Unset("none") },
    ];

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let map = given(json!({"every": 3, "start": 1}));
        let knobs = Knobs::new("p", KNOBS, &map).unwrap();
        assert_eq!((knobs.number("start"), knobs.count("every")), (1.0, 3));
        assert_eq!((knobs.flag("scaled"), knobs.word("how"), knobs.given("steps")), (true, "cubic", None));
        let settings = serde_json::to_string(&knobs.settings()).unwrap();
        assert_eq!(settings, r#"{"start":1.0,"every":3,"scaled":true,"how":"cubic"}"#);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        struct Case {
            given: Value,
            text: &'static str,
        }
        let cases = [
            Case { given: json!({"start": 1.5}), text: "start is 1.5, expected a fraction in [0, 1]" },
            Case { given: json!({"start": "x"}), text: "start is \"x\", expected a fraction in [0, 1]" },
            Case { given: json!({"every": 0}), text: "every is 0, expected a whole number of 1 or more" },
            Case { given: json!({"every": 1.5}), text: "every is 1.5, expected a whole number of 1 or more" },
            Case { given: json!({"how": "square"}), text: "how is \"square\", expected one of linear, cubic" },
            Case { given: json!({"scaled": 1}), text: "scaled is 1, expected true or false" },
            Case {
                given: json!({"keep": "fc"}),
                text: "\"keep\" is an option of all policies and no setting of policy \"p\": it is given on its own",
            },
            Case { given: json!({"strat": 1}), text: "policy \"p\" has no setting \"strat\" (nearest: \"start\")" },
        ];
        for Case { given: value, text } in cases {
            let map = given(value);
            assert_eq!(Knobs::new("p", KNOBS, &map).unwrap_err().to_string(), text);
        }
    }
}
