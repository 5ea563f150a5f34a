//! The settings of the policies, which stand in `[freeze]` beside the options of all policies.

use crate::plan::policies::{Entry, POLICIES};
use crate::plan::{Knob, PlanOptions, Preset, Range};
use serde_json::{Map, Value, json};

/// Adds the settings of every policy to the schema of the plan options, and refuses those of another policy.
pub(super) fn add(options: &mut Value) {
    let names: Vec<&str> = POLICIES.iter().map(|entry| entry.name).collect();
    options["properties"]["policy"] = json!({
        "description": options["properties"]["policy"]["description"],
        "enum": names,
        "default": PlanOptions::default().policy,
    });
    let Some(properties) = options["properties"].as_object_mut() else { return };
    let knobs = || POLICIES.iter().copied().flat_map(|entry| entry.knobs.iter().map(move |knob| (entry, knob)));
    for (_, knob) in knobs() {
        let mut kinds: Vec<Value> = Vec::new();
        for (entry, knob) in knobs().filter(|(_, other)| other.name == knob.name) {
            let mut kind = described(entry, knob);
            let same = |kind: &Value, other: &Value| {
                let range = |kind: &Value| without(kind, &["description", "default"]);
                range(kind) == range(other)
            };
            match kinds.iter_mut().find(|other| same(other, &kind)) {
                Some(other) => {
                    let text = |kind: &Value| kind["description"].as_str().unwrap_or_default().to_string();
                    *other = without(other, &["default"]);
                    other["description"] = format!("{}\n\n{}", text(other), text(&kind)).into();
                }
                None => kinds.push(kind.take()),
            }
        }
        let any = match kinds.len() {
            1 => kinds.remove(0),
            _ => json!({ "anyOf": kinds }),
        };
        properties.insert(knob.name.into(), any);
    }
    options["allOf"] = POLICIES.iter().map(|entry| of_policy(entry, &knobs)).collect();
    options["additionalProperties"] = false.into();
}

/// Returns what holds where a policy is asked for: its settings in their ranges and no others.
fn of_policy<'a, I: Iterator<Item = (&'a Entry, &'a Knob)>>(entry: &Entry, knobs: &dyn Fn() -> I) -> Value {
    let mut settings = Map::new();
    for (_, knob) in knobs() {
        let own = entry.knobs.iter().find(|own| own.name == knob.name);
        settings.insert(knob.name.into(), own.map_or(false.into(), |own| range(&own.range)));
    }
    let is_default = entry.name == PlanOptions::default().policy;
    let named = if is_default { json!([]) } else { json!(["policy"]) };
    json!({
        "if": { "properties": { "policy": { "const": entry.name } }, "required": named },
        "then": { "properties": settings },
    })
}

fn described(entry: &Entry, knob: &Knob) -> Value {
    let mut kind = range(&knob.range);
    let default = match knob.default {
        Preset::Number(number) => Some(number.into()),
        Preset::Count(count) => Some(count.into()),
        Preset::Flag(flag) => Some(flag.into()),
        Preset::Word(word) => Some(word.into()),
        Preset::Unset(_) => None,
    };
    let text = match knob.default {
        Preset::Unset(text) => format!("{}: {}; by default {text}", entry.name, knob.about),
        _ => format!("{}: {}", entry.name, knob.about),
    };
    kind["description"] = text.into();
    if let Some(default) = default {
        kind["default"] = default;
    }
    kind
}

/// Returns the schema of a range.
fn range(range: &Range) -> Value {
    match range {
        Range::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Range::Between(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Range::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Range::Count(least) => json!({ "type": "integer", "minimum": least }),
        Range::Flag => json!({ "type": "boolean" }),
        Range::Word(words) => json!({ "enum": words }),
        Range::Any => json!({}),
    }
}

fn without(kind: &Value, keys: &[&str]) -> Value {
    let mut kind = kind.clone();
    if let Some(object) = kind.as_object_mut() {
        keys.iter().for_each(|key| drop(object.shift_remove(*key)));
    }
    kind
}
