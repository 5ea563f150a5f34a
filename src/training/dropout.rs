//! Dropout nodes that an export left in inference form, made random again.

use super::{Prepared, TrainingError};
use crate::graph::{Model, Node, Tensor, rebuild};
use crate::modules::Param;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// What Dropout does while training: the key `dropout` of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Dropout {
    /// Random where the file says so: `"as-exported"`.
    #[default]
    AsExported,
    /// Random everywhere, each node with its own ratio: `"on"`.
    On,
    /// Random everywhere with this ratio in [0, 1): a number.
    Ratio(f64),
}

const NAMES: [&str; 2] = ["as-exported", "on"];

impl FromStr for Dropout {
    type Err = String;

    fn from_str(text: &str) -> Result<Dropout, String> {
        match (text, text.parse()) {
            ("as-exported", _) => Ok(Dropout::AsExported),
            ("on", _) => Ok(Dropout::On),
            (_, Ok(ratio)) => Dropout::of(ratio),
            _ => Err(format!("expected \"as-exported\", \"on\" or a ratio in [0, 1), found \"{text}\"")),
        }
    }
}

impl Dropout {
    fn of(ratio: f64) -> Result<Dropout, String> {
        if (0.0..1.0).contains(&ratio) {
            return Ok(Dropout::Ratio(ratio));
        }
        Err(format!("expected a ratio in [0, 1), found {ratio}"))
    }
}

impl Serialize for Dropout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Dropout::AsExported => serializer.serialize_str(NAMES[0]),
            Dropout::On => serializer.serialize_str(NAMES[1]),
            Dropout::Ratio(ratio) => serializer.serialize_f64(*ratio),
        }
    }
}

impl<'de> Deserialize<'de> for Dropout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dropout, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = Dropout;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"as-exported\", \"on\" or a ratio in [0, 1)")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Dropout, E> {
                match text {
                    "as-exported" => Ok(Dropout::AsExported),
                    "on" => Ok(Dropout::On),
                    _ => Err(E::unknown_variant(text, &NAMES)),
                }
            }

            fn visit_f64<E: Error>(self, ratio: f64) -> Result<Dropout, E> {
                Dropout::of(ratio).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, ratio: i64) -> Result<Dropout, E> {
                self.visit_f64(ratio as f64)
            }

            fn visit_u64<E: Error>(self, ratio: u64) -> Result<Dropout, E> {
                self.visit_f64(ratio as f64)
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl Prepared {
    /// Returns this model with its Dropout nodes random as asked. Inference leaves them out as before.
    ///
    /// # Errors
    /// More than what was exported is asked for, and the model has no Dropout node.
    pub fn with_dropout(self, dropout: Dropout) -> Result<Prepared, TrainingError> {
        if dropout == Dropout::AsExported {
            return Ok(self);
        }
        let old = &self.model.graph;
        if !old.nodes().iter().any(|node| node.op.is("Dropout")) {
            return Err(TrainingError::NoDropout);
        }
        let graph = rebuild(old, |b, node, inputs| {
            if !node.op.is("Dropout") {
                return None;
            }
            let mut inputs = inputs.to_vec();
            inputs.resize(3, None);
            b.enter(node.origin.clone(), &node.name);
            inputs[2] = Some(b.constant("training_mode", Tensor::scalar(true)));
            if let Dropout::Ratio(ratio) = dropout {
                inputs[1] = Some(b.constant("ratio", Tensor::scalar(ratio as f32)));
            }
            Some(b.copy_node(old, &Node { inputs: Vec::new(), ..node.clone() }, &inputs))
        });
        let moved = |parameter: &Param| Some(Param { value: graph.find(&parameter.name)?, ..parameter.clone() });
        let parameters = self.parameters.iter().filter_map(moved).collect();
        Ok(Prepared { model: Model { graph, ..self.model }, parameters, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Analysis;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, OpId};
    use crate::training::prepare;

    /// A model with one Dropout: `y = dropout(x w)`.
    fn model(inputs: usize, outputs: usize) -> Prepared {
        let mut b = Builder::new("net");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(2)]));
        let w = b.initializer("fc.weight", Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]));
        let y = b.op("MatMul", &[x, w], Attributes::none());
        let ratio = b.initializer("ratio", Tensor::scalar(0.25f32));
        let mode = b.initializer("mode", Tensor::scalar(false));
        let all = [Some(y), Some(ratio), Some(mode)];
        let dropped = b.ops(&OpId::standard("Dropout"), &all[..inputs], Attributes::none(), outputs)[0];
        b.rename(dropped, "y");
        b.mark_output(dropped);
        let opsets = [(String::new(), 18)].into();
        prepare(&Analysis::of(&Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() })).unwrap()
    }

    #[test]
    fn every_node_is_random_with_its_own_ratio_or_the_one_given() {
        struct Case {
            inputs: usize,
            dropout: Dropout,
            expected: (Option<f64>, bool),
        }
        let cases = [
            Case { inputs: 1, dropout: Dropout::AsExported, expected: (None, false) },
            Case { inputs: 3, dropout: Dropout::AsExported, expected: (Some(0.25), false) },
            Case { inputs: 1, dropout: Dropout::On, expected: (None, true) },
            Case { inputs: 2, dropout: Dropout::On, expected: (Some(0.25), true) },
            Case { inputs: 3, dropout: Dropout::On, expected: (Some(0.25), true) },
            Case { inputs: 1, dropout: Dropout::Ratio(0.5), expected: (Some(0.5), true) },
            Case { inputs: 3, dropout: Dropout::Ratio(0.5), expected: (Some(0.5), true) },
        ];
        for outputs in [1, 2] {
            for Case { inputs, dropout, expected } in &cases {
                let prepared = model(*inputs, outputs).with_dropout(*dropout).unwrap();
                let graph = &prepared.model.graph;
                let node = graph.nodes().iter().find(|node| node.op.is("Dropout")).unwrap();
                let number = |index| graph.constant(node.input(index)?)?.to_f64s()?.first().copied();
                let found = (number(1), number(2).is_some_and(|mode| mode != 0.0));
                assert_eq!(found, *expected, "{inputs} inputs, {outputs} outputs, {dropout:?}");
                assert_eq!(prepared.trainable(), ["fc.weight"]);
                assert_eq!(graph.value_name(prepared.parameters[0].value), "fc.weight");
                crate::graph::check(graph).unwrap();
            }
        }
    }

    #[test]
    fn a_model_without_dropout_cannot_have_it() {
        let file = crate::onnx::read("fixtures/digits/model.onnx".as_ref()).unwrap();
        let prepared = prepare(&Analysis::of(&file.model)).unwrap();
        assert!(prepared.clone().with_dropout(Dropout::AsExported).is_ok());
        let error = prepared.with_dropout(Dropout::Ratio(0.1)).unwrap_err();
        assert_eq!(error.to_string(), "dropout is asked for, but the model has no Dropout node");
    }

    #[test]
    fn words_and_numbers() {
        let cases = [
            ("as-exported", Ok(Dropout::AsExported)),
            ("on", Ok(Dropout::On)),
            ("0", Ok(Dropout::Ratio(0.0))),
            ("0.1", Ok(Dropout::Ratio(0.1))),
            ("1", Err("expected a ratio in [0, 1), found 1")),
            ("NaN", Err("expected a ratio in [0, 1), found NaN")),
            ("of", Err("expected \"as-exported\", \"on\" or a ratio in [0, 1), found \"of\"")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Dropout>(), expected.map_err(str::to_string), "{text}");
        }
        for dropout in [Dropout::AsExported, Dropout::On, Dropout::Ratio(0.3)] {
            let json = serde_json::to_string(&dropout).unwrap();
            assert_eq!(serde_json::from_str::<Dropout>(&json).unwrap(), dropout, "{json}");
        }
    }
}
