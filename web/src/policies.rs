//! The policies and their settings, from which the page makes its fields.

use freeze_plan::plan::{Knob, Preset, Range, policies::POLICIES};
use serde_json::{Value, json};

/// Returns every policy: name, first sentence, card, settings.
pub fn told() -> Value {
    let policy = |entry: &&freeze_plan::plan::policies::Entry| {
        let settings: Vec<Value> = entry.knobs.iter().map(setting).collect();
        json!({ "name": entry.name, "about": entry.about(), "card": entry.text(), "settings": settings })
    };
    POLICIES.iter().map(policy).collect()
}

fn setting(knob: &Knob) -> Value {
    let mut told = json!({
        "name": knob.name,
        "about": knob.about,
        "range": knob.range.to_string(),
        "default": knob.default.to_string(),
        "unset": matches!(knob.default, Preset::Unset(_)),
    });
    let field = match knob.range {
        Range::Fraction => json!({ "kind": "number", "least": 0, "most": 1 }),
        Range::Between(least, most) => json!({ "kind": "number", "least": least, "most": most }),
        Range::Positive => json!({ "kind": "number", "least": 0 }),
        Range::Count(least) => json!({ "kind": "count", "least": least }),
        Range::Flag => json!({ "kind": "word", "words": ["true", "false"] }),
        Range::Word(words) => json!({ "kind": "word", "words": words }),
        Range::Any => json!({ "kind": "any" }),
    };
    if let (Value::Object(told), Value::Object(field)) = (&mut told, field) {
        told.extend(field);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_told_with_what_its_settings_may_be() {
        let told = told();
        let policies = told.as_array().unwrap();
        assert_eq!(policies.len(), POLICIES.len());
        let linear = policies.iter().find(|policy| policy["name"] == "linear").unwrap();
        let start = linear["settings"].as_array().unwrap().iter().find(|knob| knob["name"] == "freeze_start").unwrap();
        assert_eq!((&start["kind"], &start["most"], &start["default"]), (&json!("number"), &json!(1), &json!("0.5")));
    }
}
