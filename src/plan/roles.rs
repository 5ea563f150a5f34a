//! What the user calls a parameter or a buffer by name.

use super::PlanError;
use super::selection::{Pattern, nearby};
use crate::modules::{ModuleTree, Overrides, Param, Role};

/// Returns the roles that the globs `parameter` and `buffer` ask for, on initializer names and the paths
/// of the modules that hold them. An initializer that cannot train stays what it is where a pattern
/// matches others too.
///
/// # Errors
/// A pattern is no glob, matches nothing or only what cannot train, or both kinds match an initializer.
pub fn overrides(
    tree: &ModuleTree,
    params: &[Param],
    can_train: &dyn Fn(&Param) -> bool,
    parameter: &[String],
    buffer: &[String],
) -> Result<Overrides, PlanError> {
    let mut found = Overrides::new();
    for (argument, role, texts) in [("parameter", Role::Trainable, parameter), ("buffer", Role::Buffer, buffer)] {
        for text in texts {
            let pattern = Pattern::new(argument, text)?;
            let path = |param: &Param| tree.owner(&param.name).map(|id| tree.module(id).path.as_str());
            let speaks = |param: &&Param| {
                let by_path = path(param).is_some_and(|path| !path.is_empty() && pattern.matches(path));
                pattern.matches(&param.name) || by_path
            };
            let matched: Vec<&Param> = params.iter().filter(speaks).collect();
            if matched.is_empty() {
                let paths = params.iter().filter_map(path);
                let near = nearby(paths.chain(params.iter().map(|param| param.name.as_str())), text);
                return Err(PlanError::NoInitializer { argument, pattern: text.clone(), near });
            }
            let can = |param: &&&Param| role == Role::Buffer || can_train(param);
            let chosen: Vec<&Param> = matched.iter().filter(can).copied().collect();
            if let (true, Some(first)) = (chosen.is_empty(), matched.first()) {
                let (name, reason) = (first.name.clone(), first.reason.to_string());
                return Err(PlanError::Untrainable { pattern: text.clone(), name, reason });
            }
            for param in chosen.into_iter().filter(|param| param.role != Role::Statistic) {
                let request = format!("asked for with {argument} pattern \"{text}\"");
                match found.insert(param.value, (role, request)) {
                    Some((other, _)) if other != role => {
                        return Err(PlanError::ParameterAndBuffer { name: param.name.clone() });
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
    use crate::modules::{parameters, recover, trainable_values};

    fn model() -> Model {
        let mut b = Builder::new("roles");
        let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
        let tensor = |shape: &[usize]| Tensor::float_full(DType::F32, shape, 0.5);
        let (weight, fixed) = (b.initializer("fc.weight", tensor(&[4, 4])), b.initializer("attn.mask", tensor(&[4])));
        let ids = b.initializer("fc.ids", Tensor::ints(&[0, 1]));
        let y = b.op("MatMul", &[x, weight], Attributes::none());
        let y = b.add(y, fixed);
        let y = b.op("Gather", &[y, ids], Attributes::none());
        b.mark_output(y);
        Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
    }

    #[test]
    fn patterns_change_roles_or_say_what_is_wrong() {
        struct Case {
            parameter: &'static [&'static str],
            buffer: &'static [&'static str],
            expected: Result<&'static str, &'static str>,
        }
        let cases = [
            Case { parameter: &[], buffer: &[], expected: Ok("fc.weight") },
            Case { parameter: &["attn"], buffer: &[], expected: Ok("fc.weight attn.mask") },
            Case { parameter: &["*"], buffer: &[], expected: Ok("fc.weight attn.mask") },
            Case { parameter: &["*.mask"], buffer: &["fc.*"], expected: Ok("attn.mask") },
            Case {
                parameter: &["attn.musk"],
                buffer: &[],
                expected: Err(
                    "parameter pattern \"attn.musk\" matches no module and no initializer (near: \"attn.mask\")",
                ),
            },
            Case {
                parameter: &["*.ids"],
                buffer: &[],
                expected: Err(
                    "parameter pattern \"*.ids\" matches nothing that can train; \"fc.ids\": int64 has no gradient",
                ),
            },
            Case {
                parameter: &["attn"],
                buffer: &["attn.*"],
                expected: Err("initializer \"attn.mask\" matches a parameter pattern and a buffer pattern"),
            },
        ];
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        for Case { parameter, buffer, expected } in cases {
            let model = model();
            let (tree, params) = (recover(&model), parameters(&model));
            let values = trainable_values(&model.graph);
            let can_train = |param: &Param| values.contains(&param.value);
            let found = overrides(&tree, &params, &can_train, &owned(parameter), &owned(buffer));
            let found = found.map_err(|error| error.to_string()).map(|overrides| {
                let all = crate::modules::parameters_with(&model, &overrides).into_iter();
                all.filter(|param| param.role == Role::Trainable).map(|param| param.name).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{parameter:?} {buffer:?}");
        }
    }
}
