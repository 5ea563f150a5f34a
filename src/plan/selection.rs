//! What the user freezes and keeps by name.

use super::PlanError;
use crate::error::nearest;
use crate::modules::Unit;
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use std::collections::{HashMap, HashSet};

/// What a pattern says about one parameter, over the policy's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing: the policy decides.
    #[default]
    Policy,
    /// Frozen in all epochs.
    Freeze,
    /// Never frozen.
    Keep,
}

/// Returns one wish per parameter, in the order of the units.
///
/// A pattern that matches a unit's path speaks for all its parameters. One for a unit that only uses a
/// parameter of another keeps it; it freezes it when all units that use it match.
///
/// # Errors
/// A pattern is no glob or matches nothing, or a parameter is both frozen and kept.
pub(super) fn wishes(units: &[Unit], freeze: &[String], keep: &[String]) -> Result<Vec<Vec<Wish>>, PlanError> {
    let mut wishes: Vec<Vec<Wish>> = units.iter().map(|unit| vec![Wish::Policy; unit.parameters.len()]).collect();
    let freeze = patterns(units, "freeze", freeze)?;
    let keep = patterns(units, "keep", keep)?;
    let mut users: HashMap<&str, Vec<&Unit>> = HashMap::new();
    for unit in units {
        unit.shared.iter().for_each(|name| users.entry(name).or_default().push(unit));
    }
    for (unit, wishes) in units.iter().zip(&mut wishes) {
        for (parameter, wish) in unit.parameters.iter().zip(wishes) {
            let users = users.get(parameter.as_str()).map(Vec::as_slice).unwrap_or_default();
            let speaks = |p: &&Pattern| p.speaks_for(unit, parameter);
            let frozen = freeze.iter().find(speaks).filter(|p| {
                let also = |user: &&Unit| freeze.iter().any(|p| p.matches(&user.path));
                p.matches(parameter) || users.iter().all(also)
            });
            let used = |p: &&Pattern| users.iter().any(|user| p.matches(&user.path));
            let kept = keep.iter().find(|p| speaks(p) || used(p));
            *wish = match (frozen, kept) {
                (Some(freeze), Some(keep)) => {
                    let (freeze, keep, parameter) = (freeze.text.clone(), keep.text.clone(), parameter.clone());
                    return Err(PlanError::FreezeAndKeep { freeze, keep, parameter });
                }
                (Some(_), None) => Wish::Freeze,
                (None, Some(_)) => Wish::Keep,
                (None, None) => Wish::Policy,
            };
        }
    }
    Ok(wishes)
}

/// Returns the patterns that freeze each of `names` in all epochs, without those that a keep pattern
/// speaks for or that are in no unit.
///
/// # Errors
/// A keep pattern is no glob or matches nothing.
pub fn frozen_unless_kept(units: &[Unit], names: &[String], keep: &[String]) -> Result<Vec<String>, PlanError> {
    let keep = patterns(units, "keep", keep)?;
    let freezes = |name: &&String| {
        let owner = units.iter().find(|unit| unit.parameters.contains(name));
        owner.is_some_and(|unit| !keep.iter().any(|pattern| pattern.speaks_for(unit, name)))
    };
    Ok(names.iter().filter(freezes).map(|name| globset::escape(name)).collect())
}

/// Returns the parameters that each of `texts` speaks for: those that it matches, and those of a unit
/// that it matches by path. `argument` is its name in errors.
///
/// # Errors
/// A pattern is no glob or matches nothing.
pub fn spoken_for(units: &[Unit], argument: &'static str, texts: &[String]) -> Result<HashSet<String>, PlanError> {
    let patterns = patterns(units, argument, texts)?;
    let mut found = HashSet::new();
    for unit in units {
        let speaks = |name: &&String| patterns.iter().any(|pattern| pattern.speaks_for(unit, name));
        found.extend(names_of(unit).filter(speaks).cloned());
    }
    Ok(found)
}

/// A glob, a regular expression after `re:`, or a name as it is.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Glob(GlobMatcher),
    Regex(Regex),
}

impl Pattern {
    /// Returns the pattern of a text. A regular expression matches where it is found anywhere in a name, as
    /// Python's `re.search`.
    ///
    /// # Errors
    /// It is no glob, or no regular expression.
    pub(crate) fn new(argument: &'static str, text: &str) -> Result<Pattern, PlanError> {
        let refused = |kind, reason| PlanError::Pattern { argument, pattern: text.to_string(), kind, reason };
        let form = match text.strip_prefix("re:") {
            Some(expression) => Form::Regex(Regex::new(expression).map_err(|error| {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                refused("regular expression", last.trim_start_matches("error: ").to_string())
            })?),
            None => {
                let glob = GlobBuilder::new(text).backslash_escape(true).build();
                Form::Glob(glob.map_err(|error| refused("glob", error.kind().to_string()))?.compile_matcher())
            }
        };
        Ok(Pattern { text: text.to_string(), form })
    }

    /// Returns true when the pattern is or matches a name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.text == name
            || match &self.form {
                Form::Glob(glob) => glob.is_match(name),
                Form::Regex(regex) => regex.is_match(name),
            }
    }

    fn speaks_for(&self, unit: &Unit, parameter: &str) -> bool {
        self.matches(&unit.path) || self.matches(parameter)
    }
}

fn patterns(units: &[Unit], argument: &'static str, texts: &[String]) -> Result<Vec<Pattern>, PlanError> {
    let compile = |text: &String| {
        let pattern = Pattern::new(argument, text)?;
        let used = units.iter().any(|unit| names_of(unit).any(|name| pattern.speaks_for(unit, name)));
        if used {
            return Ok(pattern);
        }
        Err(PlanError::NoMatch { argument, pattern: text.clone(), near: near(units, text) })
    };
    texts.iter().map(compile).collect()
}

fn names_of(unit: &Unit) -> impl Iterator<Item = &String> {
    unit.parameters.iter().chain(&unit.shared)
}

fn near(units: &[Unit], pattern: &str) -> Vec<String> {
    let paths = units.iter().map(|unit| unit.path.as_str());
    nearby(paths.chain(units.iter().flat_map(|unit| unit.parameters.iter().map(String::as_str))), pattern)
}

/// Returns up to three names that `pattern` may have meant: those that contain its longest plain
/// part, else those that are spelled almost like it, else those of which a part between dots, or all before a
/// dot, is.
pub(crate) fn nearby<'a>(names: impl Iterator<Item = &'a str>, pattern: &str) -> Vec<String> {
    const MOST: usize = 3;
    let mut seen: HashSet<&str> = HashSet::new();
    let mut known: Vec<&str> = names.filter(|name| !name.is_empty() && seen.insert(name)).collect();
    let pattern = pattern.strip_prefix("re:").unwrap_or(pattern);
    let plain = pattern
        .split(['*', '?', '[', ']', '{', '}', '(', ')', '|', '^', '$', '+', '\\'])
        .max_by_key(|part| part.len())
        .unwrap_or_default();
    let plain = plain.trim_matches('.').to_lowercase();
    let mut near: Vec<String> = Vec::new();
    if !plain.is_empty() {
        let holds = |name: &&&str| name.to_lowercase().contains(&plain);
        near.extend(known.iter().filter(holds).take(MOST).map(|name| name.to_string()));
    }
    while near.is_empty() || (near.len() < MOST && !near[0].to_lowercase().contains(&plain)) {
        match nearest(pattern, known.iter().copied()) {
            Some(name) => {
                known.retain(|known| *known != name);
                near.push(name.to_string());
            }
            None => break,
        }
    }
    if near.is_empty() && !plain.is_empty() {
        let before_dots = known.iter().flat_map(|name| name.match_indices('.').map(|(dot, _)| &name[..dot]));
        let parts = known.iter().flat_map(|name| name.split('.'));
        if let Some(part) = nearest(&plain, before_dots.chain(parts)) {
            near.extend(known.iter().filter(|name| name.contains(part)).take(MOST).map(|name| name.to_string()));
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units() -> Vec<Unit> {
        let unit = |index, path: &str, parameters: &[&str]| Unit {
            index,
            path: path.into(),
            class: "Conv".into(),
            parameters: parameters.iter().map(|name| format!("{path}.{name}")).collect(),
            shared: Vec::new(),
        };
        vec![
            unit(0, "stem.conv", &["weight"]),
            unit(1, "stem.bn", &["weight", "bias"]),
            unit(2, "layer1.0.conv", &["weight"]),
            unit(3, "fc[0]", &["weight", "bias"]),
            Unit { shared: vec!["layer1.0.conv.weight".into()], ..unit(4, "head", &[]) },
        ]
    }

    fn shown(freeze: &[&str], keep: &[&str]) -> Result<String, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let wishes = wishes(&units(), &owned(freeze), &owned(keep)).map_err(|error| error.to_string())?;
        let letter = |wish: &Wish| match wish {
            Wish::Policy => '.',
            Wish::Freeze => 'f',
            Wish::Keep => 'k',
        };
        Ok(wishes
            .iter()
            .map(|unit| unit.iter().map(letter).collect::<String>())
            .collect::<Vec<_>>()
            .join(" ")
            .trim()
            .to_string())
    }

    #[test]
    fn patterns_speak_for_units_and_parameters() {
        struct Case {
            freeze: &'static [&'static str],
            keep: &'static [&'static str],
            expected: &'static str,
        }
        let cases = [
            Case { freeze: &[], keep: &[], expected: ". .. . .." },
            Case { freeze: &["stem.*"], keep: &[], expected: "f ff . .." },
            Case { freeze: &["*.bias"], keep: &[], expected: ". .f . .f" },
            Case { freeze: &["stem.conv"], keep: &["*.bias"], expected: "f .k . .k" },
            Case { freeze: &["fc[0]"], keep: &[], expected: ". .. . ff" },
            Case { freeze: &[r"fc\[0\].weight"], keep: &[], expected: ". .. . f." },
            Case { freeze: &["{stem,layer1}.*conv*"], keep: &[], expected: "f .. f .." },
            Case { freeze: &["*"], keep: &[], expected: "f ff f ff" },
            Case { freeze: &[r"re:^(stem|layer1)\..*conv"], keep: &[], expected: "f .. f .." },
            Case { freeze: &[r"re:bias$"], keep: &[], expected: ". .f . .f" },
            Case { freeze: &[r"re:\.conv"], keep: &[r"re:fc\[\d\]"], expected: "f .. f kk" },
            Case { freeze: &["layer1.0.conv"], keep: &[], expected: ". .. . .." },
            Case { freeze: &["layer1.0.conv", "head"], keep: &[], expected: ". .. f .." },
            Case { freeze: &["layer1.0.conv.weight"], keep: &[], expected: ". .. f .." },
            Case { freeze: &[], keep: &["head"], expected: ". .. k .." },
        ];
        for Case { freeze, keep, expected } in cases {
            assert_eq!(shown(freeze, keep).as_deref(), Ok(expected), "freeze {freeze:?} keep {keep:?}");
        }
    }

    #[test]
    fn errors_name_the_pattern_and_what_is_near() {
        struct Case {
            freeze: &'static [&'static str],
            keep: &'static [&'static str],
            expected: &'static str,
        }
        let cases = [
            Case {
                freeze: &["conv"],
                keep: &[],
                expected: "freeze pattern \"conv\" matches no unit and no parameter (near: \"stem.conv\", \
                           \"layer1.0.conv\", \"stem.conv.weight\")",
            },
            Case {
                freeze: &[],
                keep: &["stme.bn"],
                expected: "keep pattern \"stme.bn\" matches no unit and no parameter (near: \"stem.bn\", \"stem.conv\")",
            },
            Case {
                freeze: &[r"re:^laier1\.\d"],
                keep: &[],
                expected: "freeze pattern \"re:^laier1\\.\\d\" matches no unit and no parameter (near: \
                           \"layer1.0.conv\", \"layer1.0.conv.weight\")",
            },
            Case {
                freeze: &["re:a("],
                keep: &[],
                expected: "freeze pattern \"re:a(\" is no regular expression: unclosed group",
            },
            Case {
                freeze: &["zzzzzz*"],
                keep: &[],
                expected: "freeze pattern \"zzzzzz*\" matches no unit and no parameter",
            },
            Case { freeze: &[""], keep: &[], expected: "freeze pattern \"\" matches no unit and no parameter" },
            Case {
                freeze: &["a[b"],
                keep: &[],
                expected: "freeze pattern \"a[b\" is no glob: unclosed character class; missing ']'",
            },
            Case {
                freeze: &["stem.*"],
                keep: &["layer1.*", "*.bias"],
                expected: "freeze pattern \"stem.*\" and keep pattern \"*.bias\" both match parameter \"stem.bn.bias\"",
            },
        ];
        for Case { freeze, keep, expected } in cases {
            assert_eq!(shown(freeze, keep), Err(expected.to_string()));
        }
    }
}
