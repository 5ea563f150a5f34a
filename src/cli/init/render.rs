//! The text of the job file: what the draft sets, and every other key commented out with its default.

use super::super::failure::Failure;
use super::super::printable::line;
use super::draft::{Draft, Key, Section, options_of};
use super::keys::{OPTIONAL, SECTIONS, about};
use crate::error::ErrorKind;
use crate::runner::Job;
use std::path::Path;
use toml::{Table, Value};

/// Columns of the file.
const WIDTH: usize = 100;

/// Returns the text of the job file.
///
/// # Errors
/// The draft is no job.
pub fn text(draft: &Draft) -> Result<String, Failure> {
    let defaults = defaults(draft)?;
    let mut text = String::new();
    for name in std::iter::once("").chain(SECTIONS) {
        let default = if name.is_empty() { Some(&defaults) } else { defaults.get(name).and_then(Value::as_table) };
        text += &match draft.sections.iter().find(|section| section.name == name) {
            Some(section) => written(section, default),
            None => unset(name, default.unwrap_or(&Table::new())),
        };
    }
    let others = defaults.iter().filter(|(name, _)| !SECTIONS.contains(&name.as_str()));
    let others = others.filter_map(|(name, value)| Some((name, value.as_table()?)));
    others.for_each(|(name, default)| text += &unset(name, default));
    Ok(text)
}

/// Returns a section of which nothing is set.
fn unset(name: &str, default: &Table) -> String {
    let defaults = default.iter().map(|(key, value)| off(key, &inline(value), about(&path(name, key))));
    let keys: String = defaults.chain(optional(name, &|_| false)).collect();
    if keys.is_empty() { keys } else { format!("\n# [{name}]\n{keys}") }
}

/// Returns the lines of keys without a default, but for those that are `known`.
fn optional<'a>(section: &'a str, known: &'a dyn Fn(&str) -> bool) -> impl Iterator<Item = String> + 'a {
    OPTIONAL.iter().filter_map(move |(path, value, about)| {
        let (of, name) = path.split_once('.')?;
        (of == section && !known(name)).then(|| off(name, value, Some(&format!("no default; {about}"))))
    })
}

/// Returns the job that the draft sets, with every default written out.
fn defaults(draft: &Draft) -> Result<Table, Failure> {
    let internal =
        |text: String| Failure::new(ErrorKind::Internal, format!("the job that was written is refused: {text}"));
    let set = draft.sections.iter().filter(|section| !section.keys.is_empty()).map(|section| {
        let header = if section.name.is_empty() { String::new() } else { format!("[{}]\n", section.name) };
        header + &section.keys.iter().map(on).collect::<String>()
    });
    let job = Job::parse(Path::new("job.toml"), &set.collect::<String>(), &[])
        .map_err(|error| internal(error.to_string()))?;
    job.resolved().parse().map_err(|error: toml::de::Error| internal(error.to_string()))
}

fn written(section: &Section, default: Option<&Table>) -> String {
    let mut text = String::new();
    if section.name.is_empty() {
        section.comments.iter().for_each(|comment| text += &prose(comment));
        text.push('\n');
    } else {
        let header = if section.keys.is_empty() { "# " } else { "" };
        text += &format!("\n{header}[{}]\n", section.name);
        section.comments.iter().for_each(|comment| text += &prose(comment));
    }
    for key in &section.keys {
        key.comments.iter().for_each(|comment| text += &prose(comment));
        text += &on(key);
    }
    section.without.iter().for_each(|key| text += &off(key.name, &inline(&key.value), None));
    let known = |name: &str| section.keys.iter().chain(&section.without).any(|key| key.name == name);
    // Options of a loss are many, and most go with another kind.
    let rest = default.into_iter().flatten().filter(|(name, value)| {
        !known(name) && section.name != "loss" && !(section.name.is_empty() && value.is_table())
    });
    for (name, value) in rest {
        text += &off(name, &inline(value), about(&path(section.name, name)));
    }
    if !section.keys.is_empty() {
        optional(section.name, &known).for_each(|line| text += &line);
    }
    if section.name == "loss" {
        let kind = section.keys.iter().find(|key| key.name == "kind").and_then(|key| key.value.as_str());
        for (name, value, about) in kind.map(options_of).into_iter().flatten() {
            text += &off(name, value, Some(&format!("no default; {about}")));
        }
    }
    text
}

fn path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_string() } else { format!("{section}.{key}") }
}

fn inline(value: &Value) -> String {
    value.to_string()
}

/// Returns the line of a key.
fn on(key: &Key) -> String {
    format!("{} = {}\n", key.name, inline(&key.value))
}

/// Returns the line of a key that is commented out.
fn off(name: &str, value: &str, about: Option<&str>) -> String {
    let line = format!("# {name} = {value}");
    match about {
        Some(about) => format!("{line:<30} # {about}\n"),
        None => format!("{line}\n"),
    }
}

/// Returns a sentence as comment lines.
fn prose(text: &str) -> String {
    let text = line(text);
    let indent = text.len() - text.trim_start().len();
    let mut lines = vec![" ".repeat(indent)];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("invariant: there is a first line");
        if last.trim().is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{}{word}", " ".repeat(indent + 2)));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::model;
    use super::super::draft::Paths;
    use super::*;

    fn written(name: &str) -> String {
        let loaded = model::load(&Path::new("fixtures").join(name), (&[], &[])).unwrap();
        let paths = Paths { model: "m.onnx".into(), train: None };
        text(&Draft::of(&loaded, &paths, None, None).unwrap()).unwrap()
    }

    /// Returns the key of a line that is commented out.
    fn is_off(line: &str) -> bool {
        let Some((name, _)) = line.strip_prefix("# ").and_then(|line| line.split_once(" = ")) else { return false };
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    }

    /// Returns the text with those commented keys that `wanted` tells by their number, of sections that are there.
    fn with(text: &str, wanted: impl Fn(usize, &str) -> bool) -> String {
        let mut there = true;
        let mut out = String::new();
        for (number, line) in text.lines().enumerate() {
            there = if line.starts_with("# [") { false } else { there || line.starts_with('[') };
            let on = there && is_off(line) && wanted(number, line);
            out += if on { &line[2..] } else { line };
            out.push('\n');
        }
        out
    }

    #[test]
    fn what_is_commented_out_is_the_default_or_a_value_that_is_taken() {
        let job = |text: &str| Job::parse(Path::new("job.toml"), text, &[]);
        for name in ["digits/model.onnx", "models/gpt2.dynamo.onnx", "classic/convnet", "training_info/mlp_adam.onnx"] {
            let text = written(name);
            let plain = job(&text).unwrap();
            let all = with(&text, |_, line| !line.contains("# no default"));
            let mut all = job(&all).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(all.freeze.knobs.remove("arithmetic").is_some() && all.freeze.unit.take().is_some(), "{name}");
            let schedule = |job: &Job| job.schedule.clone();
            assert_eq!(schedule(&all), schedule(&plain), "{name}");
            assert_eq!(all.resolved(), plain.resolved(), "{name}");
            let examples = text.lines().enumerate().filter(|(_, line)| is_off(line) && line.contains("# no default"));
            let mut tried = 0;
            for (number, line) in examples {
                let one = with(&text, |other, _| other == number);
                if one == text {
                    continue;
                }
                tried += 1;
                let changed = job(&one).unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
                assert!(changed != plain, "{name}: {line} changes nothing");
            }
            assert!(tried >= 4, "{name}: {tried}");
        }
    }

    #[test]
    fn all_that_is_commented_out_goes_together() {
        let written = written("digits/model.onnx");
        let mut text = String::new();
        for line in written.lines() {
            let on = line.starts_with("# [") || is_off(line);
            text += if on { &line[2..] } else { line };
            text.push('\n');
        }
        let job = Job::parse(Path::new("job.toml"), &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(job.data.eval.is_some() && job.eval.early_stopping.is_some() && job.freeze.rollback.is_some());
        assert!(job.ema.is_some() && job.checkpoint.every.is_some());
    }

    #[test]
    fn no_line_of_comments_is_much_too_wide() {
        let text = written("digits/model.onnx");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 20), "{text}");
    }
}
