//! JSON Schemas (draft 2020-12) of the files that are read and written, for editors and other tools.
//!
//! They are made from the types that the files are read into, with the documentation of those types as descriptions.
//! A job takes no key that it does not know; to the other files fields may be added at any time, so their schemas let
//! unknown ones pass.
//!
//! What this module does not do: validate. A schema tells names, types and ranges of single values; what else a file is
//! refused for is known by its reader.

mod by_hand;
mod settings;

use crate::classic::{PHASES_FORMAT, Phases};
use crate::data::FORMATS;
use crate::plan::{self, FreezePlan};
use crate::report::{DIFF_FORMAT, PlanDiff};
use crate::runner::{Job, Timed};
use crate::training::{CONTRACT_FORMAT, Contract};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// A kind of file.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A plan file, `plan.json` in the folder of a run.
    Plan,
    /// `contract.json` beside the graphs of a phase.
    Contract,
    /// A job file, as TOML or as JSON.
    Job,
    /// One line of the `events.jsonl` of a run.
    Events,
    /// `phases.json` beside the training artifacts of ONNX Runtime.
    Phases,
    /// What differs between two plans.
    Diff,
}

impl FileKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: &[FileKind] =
        &[FileKind::Plan, FileKind::Contract, FileKind::Job, FileKind::Events, FileKind::Phases, FileKind::Diff];

    /// Returns the name that a command uses.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Plan => "plan",
            FileKind::Contract => "contract",
            FileKind::Job => "job",
            FileKind::Events => "events",
            FileKind::Phases => "phases",
            FileKind::Diff => "diff",
        }
    }
}

/// Returns the schema of a kind of file.
pub fn schema(kind: FileKind) -> Value {
    let mut schema = match kind {
        FileKind::Plan => of::<FreezePlan>(),
        FileKind::Contract => of::<Contract>(),
        FileKind::Job => of::<Job>(),
        FileKind::Events => of::<Timed>(),
        FileKind::Phases => of::<Phases>(),
        FileKind::Diff => of::<PlanDiff>(),
    };
    tidy(&mut schema, kind != FileKind::Job);
    let title = match kind {
        FileKind::Plan => "Plan file of freeze-plan",
        FileKind::Contract => "Contract of the graphs that freeze-plan writes",
        FileKind::Job => "Job file of freeze-plan",
        FileKind::Events => "Event of a run of freeze-plan: one line of events.jsonl",
        FileKind::Phases => "Phases of the training artifacts that freeze-plan writes",
        FileKind::Diff => "Difference of two plans of freeze-plan",
    };
    schema["title"] = title.into();
    let format = |schema: &mut Value, format: &str| schema["properties"]["format"] = json!({ "const": format });
    match kind {
        FileKind::Plan => format(&mut schema, plan::FORMAT),
        FileKind::Contract => format(&mut schema, CONTRACT_FORMAT),
        FileKind::Job => {
            settings::add(&mut schema["$defs"]["PlanOptions"]);
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
            schema["$defs"]["DataSection"]["properties"]["format"]["enum"] = json!(names);
        }
        FileKind::Phases => format(&mut schema, PHASES_FORMAT),
        FileKind::Diff => format(&mut schema, DIFF_FORMAT),
        FileKind::Events => {}
    }
    schema
}

fn of<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>().to_value()
}

/// Turns links of the documentation into plain text, and drops what validators do not know of: formats of numbers, and
/// defaults that JSON has no value for. Without `nulls`, which TOML does not have, they go as well.
fn tidy(value: &mut Value, nulls: bool) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| tidy(value, nulls)),
        Value::Object(object) => {
            if !nulls {
                without_null(object);
            }
            if object.get("format").is_some_and(Value::is_string) {
                object.remove("format");
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = plain(text);
            }
            object.values_mut().for_each(|value| tidy(value, nulls));
        }
        _ => {}
    }
}

fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(kinds)) = object.get_mut("anyOf") {
        kinds.retain(|kind| *kind != json!({ "type": "null" }));
        if let [Value::Object(only)] = kinds.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// Returns a documentation text without links, each paragraph on one line.
fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut rest = paragraphs.collect::<Vec<_>>().join("\n\n");
    let mut out = String::with_capacity(rest.len());
    while let Some(start) = rest.find("[`") {
        let Some(end) = rest[start..].find("`]").map(|end| start + end) else { break };
        out += &rest[..start];
        out += &rest[start + 1..=end];
        let after = &rest[end + 2..];
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after).to_string();
    }
    out + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_loses_its_links() {
        let text = "Default [`X`](super::X), of\n[`y()`], 0 in [0, 1].\n\nMore.";
        assert_eq!(plain(text), "Default `X`, of `y()`, 0 in [0, 1].\n\nMore.");
        assert_eq!(plain("an open [`end"), "an open [`end");
    }

    #[test]
    fn a_job_has_no_null_and_nothing_has_formats_of_numbers() {
        for &kind in FileKind::ALL {
            let text = schema(kind).to_string();
            assert!(!text.contains("\"uint64\"") && !text.contains("\"double\""), "{}", kind.name());
            assert!(!text.contains("](") && !text.contains("[`"), "{}: {text}", kind.name());
        }
        assert!(!schema(FileKind::Job).to_string().contains("null"));
    }
}
