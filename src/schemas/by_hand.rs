//! The types of a job that read themselves: a word, a number or a table.

use crate::data::Extent;
use crate::metrics::{METRICS, Metric};
use crate::plan::BatchNorm;
use crate::runner::job::Limit;
use crate::training::{Dropout, Recompute};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

impl JsonSchema for Dropout {
    fn schema_name() -> Cow<'static, str> {
        "Dropout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["as-exported", "on"] },
            { "description": "A ratio for every Dropout.", "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
        ] })
    }
}

impl JsonSchema for Recompute {
    fn schema_name() -> Cow<'static, str> {
        "Recompute".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["none", "auto"] },
            { "description": "Patterns of module paths.", "type": "array", "items": { "type": "string" } },
        ] })
    }
}

impl JsonSchema for BatchNorm {
    fn schema_name() -> Cow<'static, str> {
        "BatchNorm".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["train", "frozen"] },
            {
                "type": "object",
                "properties": {
                    "affine": {
                        "description": "Scale and bias; frozen by default.", "enum": ["train", "frozen"],
                    },
                    "statistics": {
                        "description": "The running statistics; train by default.", "enum": ["train", "frozen"],
                    },
                },
                "additionalProperties": false,
            },
        ] })
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "description": "Bytes.", "type": "integer", "minimum": 0 },
            {
                "description": "A number with its unit, such as 4GB.",
                "type": "string",
                "pattern": "^ *[0-9.]+ *([kKmMgGtT][iI]?)?[bB]$",
            },
        ] })
    }
}

impl JsonSchema for Extent {
    fn schema_name() -> Cow<'static, str> {
        "Extent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pixels = json_schema!({ "type": "integer", "minimum": 1 });
        json_schema!({ "anyOf": [
            pixels,
            { "description": "Height and width.", "type": "array", "items": pixels, "minItems": 2, "maxItems": 2 },
        ] })
    }
}

impl JsonSchema for Metric {
    fn schema_name() -> Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let of_training = "train_loss";
        let names = METRICS.iter().map(|entry| entry.name).chain([of_training]);
        let (numbered, plain): (Vec<&str>, Vec<&str>) = names.partition(|name| name.ends_with('K'));
        let pattern = |name: &&str| name.replace('_', "[-_]").replace('K', "0*[1-9][0-9]*");
        let any = plain.iter().chain(&numbered).map(pattern).collect::<Vec<_>>().join("|");
        json_schema!({
            "description": "A metric; `-` and `_` mean the same in its name.",
            "type": "string",
            "anyOf": [{ "enum": plain }, { "pattern": format!("^({any})$") }],
        })
    }
}
