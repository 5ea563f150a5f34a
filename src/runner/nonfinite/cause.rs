//! Where a number that is not finite came from.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CauseKind {
    /// An input of the model: the data.
    Input,
    /// A parameter.
    Parameter,
    /// A running statistic, or other state that the train graph reads.
    State,
    /// A constant of the model.
    Constant,
    /// The result of an operator.
    Value,
}

/// A tensor that a result was computed from, with the least and the largest of its finite elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InputRange {
    /// Its name.
    pub tensor: String,
    /// Least finite element; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest finite element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// The first tensor that is not finite, of those that a loss or gradient follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// What it is.
    pub kind: CauseKind,
    /// Its name.
    pub tensor: String,
    /// Module path; empty for the root and for what belongs to no module.
    pub module: String,
    /// The operator that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The node that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `forward`, `loss`, `backward` or `update`: what the node is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// Elements that are NaN.
    pub nans: usize,
    /// Elements that are infinite.
    pub infinities: usize,
    /// Elements.
    pub elements: usize,
    /// What the node computed it from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRange>,
    /// The column of the data, for an input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The first such row of the data, from 0, for an input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<usize>,
}

impl Cause {
    fn holds(&self) -> &'static str {
        match (self.nans, self.infinities) {
            (_, 0) => "NaN",
            (0, _) => "infinite",
            _ => "NaN or infinite",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = if self.module.is_empty() { String::new() } else { format!(" of module {}", self.module) };
        let count = format!("{} in {} of {} elements", self.holds(), self.nans + self.infinities, self.elements);
        match self.kind {
            CauseKind::Input => {
                let row = self.row.map_or_else(String::new, |row| format!(", first in row {row} (from 0)"));
                match &self.column {
                    Some(column) => write!(f, "column \"{column}\" (input \"{}\") is {count}{row}", self.tensor),
                    None => write!(f, "input \"{}\" is {count}{row}", self.tensor),
                }
            }
            CauseKind::Parameter => write!(f, "parameter \"{}\"{module} is {count}", self.tensor),
            CauseKind::State => write!(f, "\"{}\"{module} is {count}", self.tensor),
            CauseKind::Constant => write!(f, "constant \"{}\" is {count}", self.tensor),
            CauseKind::Value => {
                let operator = self.operator.as_deref().unwrap_or("an operator");
                let pass = match self.pass.as_deref() {
                    Some("forward") | None => String::new(),
                    Some(pass) => format!(", {pass}"),
                };
                write!(f, "\"{}\" ({operator}{module}{pass}) is the first: {count}", self.tensor)?;
                for (index, range) in self.inputs.iter().enumerate() {
                    let word = if index == 0 { ", computed from" } else { " and" };
                    match (range.min, range.max) {
                        (Some(min), Some(max)) => {
                            write!(f, "{word} \"{}\" in [{}, {}]", range.tensor, short(min), short(max))?;
                        }
                        _ => write!(f, "{word} \"{}\"", range.tensor)?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Returns a number in a few digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e6).contains(&size) => format!("{}", (value * 1e4).round() / 1e4),
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_one_clause() {
        let value = Cause {
            kind: CauseKind::Value,
            tensor: "h".into(),
            module: "layer1.0".into(),
            operator: Some("Exp".into()),
            node: Some("exp".into()),
            pass: Some("forward".into()),
            nans: 0,
            infinities: 3,
            elements: 64,
            inputs: vec![InputRange { tensor: "x".into(), min: Some(-2.0), max: Some(1.25e9) }],
            column: None,
            row: None,
        };
        let text = "\"h\" (Exp of module layer1.0) is the first: infinite in 3 of 64 elements, computed from \"x\" in [-2, 1.250e9]";
        assert_eq!(value.to_string(), text);
        let backward = Cause { pass: Some("backward".into()), nans: 1, inputs: Vec::new(), ..value.clone() };
        let text = "\"h\" (Exp of module layer1.0, backward) is the first: NaN or infinite in 4 of 64 elements";
        assert_eq!(backward.to_string(), text);
        let parameter = Cause { kind: CauseKind::Parameter, nans: 2, infinities: 0, ..value };
        assert_eq!(parameter.to_string(), "parameter \"h\" of module layer1.0 is NaN in 2 of 64 elements");
    }
}
