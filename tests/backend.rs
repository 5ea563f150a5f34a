//! ONNX's own backend tests of every operator that has a gradient rule or is taken apart: the outputs after the upgrade
//! are the recorded ones, and the gradient of each input exists where the rule says so.

use crate::engines::{fixture, onnxruntime};
use freeze_plan::autodiff::{InputRule, RULES, decompose, find, find_decomposition, gradients, lower};
use freeze_plan::data::read_tensors;
use freeze_plan::facts::fold;
use freeze_plan::graph::{Attributes, Builder, DType, Model, Node, Origin, Tensor, ValueId, check, prune, upgrade};
use freeze_plan::onnx::read_bytes;
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{OnnxRuntime, evaluate};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::error::Error;

/// Cases that do not hold, with the reason.
const SKIPPED: &[(&str, &str)] = &[
    ("acosh_example", "the slope at 1 is infinite"),
    ("batchnorm_epsilon_training_mode", "has no gradient of its own: the training pass replaces the node"),
    ("batchnorm_example_training_mode", "has no gradient of its own: the training pass replaces the node"),
    ("celu_float16", "ONNX Runtime has no kernel for the dtype"),
    ("dft", "ONNX Runtime's sums are further off than the tolerance"),
    ("dft_axis", "ONNX Runtime's sums are further off than the tolerance"),
    ("dft_axis_opset19", "ONNX Runtime's sums are further off than the tolerance"),
    ("dft_opset19", "ONNX Runtime's sums are further off than the tolerance"),
    ("dft_rfft", "ONNX Runtime's sums are further off than the tolerance"),
    ("dft_rfft_opset19", "ONNX Runtime's sums are further off than the tolerance"),
    ("maxunpool_export_with_output_shape", "ONNX Runtime places the values by the shape of the pooled input"),
    ("mod_float16_mixed_sign_fmod_0", "ONNX Runtime refuses fmod 0 for floats"),
    ("mod_float32_mixed_sign_fmod_0", "ONNX Runtime refuses fmod 0 for floats"),
    ("mod_float64_mixed_sign_fmod_0", "ONNX Runtime refuses fmod 0 for floats"),
    ("mod_float_edge_cases_fmod_0_float16", "ONNX Runtime refuses fmod 0 for floats"),
    ("mod_float_edge_cases_fmod_0_float32", "ONNX Runtime refuses fmod 0 for floats"),
    ("mod_float_edge_cases_fmod_0_float64", "ONNX Runtime refuses fmod 0 for floats"),
    ("optional_get_element_optional_tensor", "an input of optional type has no fact"),
    ("pow_types_float32_uint32", "ONNX Runtime has no kernel for the dtypes"),
    ("pow_types_float32_uint64", "ONNX Runtime has no kernel for the dtypes"),
    ("range_float16_type_positive_delta", "ONNX Runtime has no kernel for the dtype"),
    ("resize_downsample_scales_cubic_align_corners", "ONNX Runtime rounds the size that it aligns to"),
    ("resize_downsample_scales_linear_align_corners", "ONNX Runtime rounds the size that it aligns to"),
    ("roialign_mode_max", "the mode has no gradient"),
    ("scan_sum", "Scan of opset 8 has another form"),
    ("training_dropout", "the mask is random"),
    ("training_dropout_default", "the mask is random"),
    ("training_dropout_default_mask", "the mask is random"),
    ("training_dropout_mask", "the mask is random"),
];

/// Cases with an element at a kink or a jump, where a difference says nothing; `Range` changes its length.
const AT_KINKS: &[&str] = &[
    "basic_deform_conv_with_padding",
    "basic_deform_conv_without_padding",
    "deform_conv_with_mask_bias",
    "deform_conv_with_multiple_offset_groups",
    "elu_example",
    "floor_example",
    "gridsample_aligncorners_true",
    "gridsample_bilinear",
    "gridsample_bilinear_align_corners_1_additional_1",
    "gridsample_nearest",
    "gridsample_nearest_align_corners_0_additional_1",
    "gridsample_nearest_align_corners_1_additional_1",
    "gridsample_volumetric_bilinear_align_corners_1",
    "gridsample_volumetric_nearest_align_corners_0",
    "gridsample_volumetric_nearest_align_corners_1",
    "hardmax_one_hot",
    "l2normalization_axis_0",
    "leakyrelu_example",
    "maxpool_2d_strides",
    "maxpool_3d_dilations",
    "maxpool_3d_dilations_use_ref_impl",
    "range_float_type_positive_delta",
    "reduce_min_default_axes_keepdims_example",
    "round",
    "selu_example",
    "sign",
    "thresholdedrelu_example",
];

/// Name of the loss, which no case uses.
const LOSS: &str = "sum of c * y";

/// Of the differences that gradients are compared with.
const STEP: f64 = 2e-3;

type Failure = Box<dyn Error>;
type Tensors = BTreeMap<String, Tensor>;

struct Case {
    model: Model,
    /// The operator, and the opset at which the case was written.
    of: (String, i64),
    /// Whether the operator is taken apart.
    apart: bool,
    inputs: Tensors,
    outputs: Tensors,
}

/// Reads every case, at the opset that gradients are defined for, whose operator has a rule.
fn cases() -> BTreeMap<String, Result<Case, Failure>> {
    let mut parts: BTreeMap<String, Vec<(String, Tensor)>> = BTreeMap::new();
    for (name, tensor) in read_tensors(&fixture("backend/cases.npz"), None).unwrap() {
        let (case, part) = name.split_once('/').unwrap();
        parts.entry(case.to_string()).or_default().push((part.to_string(), tensor));
    }
    let cases = parts.into_iter().filter_map(|(name, parts)| Some((name, case(parts).transpose()?)));
    cases.collect()
}

fn case(parts: Vec<(String, Tensor)>) -> Result<Option<Case>, Failure> {
    let (mut inputs, mut outputs, mut bytes) = (Tensors::new(), Tensors::new(), None);
    for (part, tensor) in parts {
        match part.split_once('/') {
            Some(("in", name)) => drop(inputs.insert(name.to_string(), tensor)),
            Some((_, name)) => drop(outputs.insert(name.to_string(), tensor)),
            None => bytes = Some(tensor.bytes().clone()),
        }
    }
    let read = read_bytes("case.onnx".as_ref(), bytes.ok_or("the case has no model")?)?.model;
    let version = read.opset();
    let apart = read.graph.nodes().iter().any(|node| find_decomposition(&node.op, version).is_some());
    let has_rule = |node: &Node| RULES.iter().any(|rule| rule.domain.is_empty() && rule.op == node.op.name);
    if !apart && !read.graph.nodes().iter().any(has_rule) {
        return Ok(None);
    }
    let of = read.graph.nodes().first().map(|node| (node.op.to_string(), version)).unwrap_or_default();
    let model = Analysis::as_written(&read).model;
    let graph = decompose(&model.graph, &model.opsets, |_| true)?;
    let model = fold(&upgrade(&model.with_graph(graph))?, &HashSet::new());
    Ok(Some(Case { model, of, apart, inputs, outputs }))
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-5,
        DType::F32 => 1e-4,
        _ => 2e-3,
    }
}

fn run(engine: &mut OnnxRuntime, model: &Model, inputs: &Tensors) -> Result<Tensors, Failure> {
    let graph = &model.graph;
    let feeds: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let found = evaluate(engine, model, &feeds)?;
    Ok(graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).zip(found).collect())
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>, Failure> {
    let numbers = tensor.to_f64s().or_else(|| Some(tensor.to_ints()?.into_iter().map(|int| int as f64).collect()));
    numbers.ok_or_else(|| format!("cannot read {}", tensor.dtype()).into())
}

fn forward(case: &Case, engine: &mut OnnxRuntime) -> Result<(), Failure> {
    let model = case.model.with_graph(lower(&case.model.graph));
    let found = run(engine, &model, &case.inputs)?;
    for (name, expected) in &case.outputs {
        let found = found.get(name).ok_or_else(|| format!("there is no output \"{name}\""))?;
        if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
            return Err(format!("\"{name}\" is {} {:?}", found.dtype(), found.shape()).into());
        }
        for (found, wanted) in numbers(found)?.into_iter().zip(numbers(expected)?) {
            let same = found == wanted || found.is_nan() && wanted.is_nan();
            let off = (found - wanted).abs();
            if !same && (off.is_nan() || off > tolerance(expected.dtype()) * wanted.abs().max(1.0)) {
                return Err(format!("\"{name}\" has {found} instead of {wanted}").into());
            }
        }
    }
    Ok(())
}

/// Returns the inputs by which the only node can be differentiated by its rule, or that may be where it is taken apart.
fn differentiable(case: &Case) -> Result<Vec<ValueId>, Failure> {
    let graph = &case.model.graph;
    let given = |id: &ValueId| case.inputs.contains_key(graph.value_name(*id)) && graph.fact(*id).is_float();
    if case.apart {
        return Ok(graph.inputs().iter().copied().filter(given).collect());
    }
    let rules = graph.nodes().iter().find_map(|node| Some((node, find(&node.op, case.model.opset()).ok()?)));
    let (node, rule) = rules.ok_or("no node has a rule")?;
    let can = |index: usize| matches!(rule.inputs.at(index), None | Some(InputRule::Gradient(_) | InputRule::Each(_)));
    let inputs = node.inputs.iter().enumerate().filter(|(index, _)| can(*index)).filter_map(|(_, input)| *input);
    let mut found: Vec<ValueId> = inputs.filter(given).collect();
    found.dedup();
    Ok(found)
}

/// A fixed number in [0.5, 1.5) for each element, so that no gradient cancels out.
fn weights(dtype: DType, shape: &[usize]) -> Tensor {
    of_floats(dtype, shape, (0..shape.iter().product::<usize>()).map(|index| 0.5 + (index as f64 * 0.618).fract()))
}

fn of_floats(dtype: DType, shape: &[usize], numbers: impl Iterator<Item = f64>) -> Tensor {
    match dtype {
        DType::F64 => Tensor::from_vec(shape, numbers.collect::<Vec<f64>>()),
        _ => Tensor::from_vec(shape, numbers.map(|number| number as f32).collect::<Vec<f32>>()),
    }
}

/// Returns the model with the gradients of `sum(c * y)` over every floating-point output as outputs, and the inputs they
/// are of.
fn differentiated(case: &Case) -> Result<(Model, Vec<String>), Failure> {
    let graph = &case.model.graph;
    let opset = case.model.opset();
    let wrt = differentiable(case)?;
    let with_subgraphs = graph.nodes().iter().any(|node| ["If", "Loop", "Scan"].iter().any(|op| node.op.is(op)));
    let mut b = Builder::extend(graph.clone());
    b.enter(Origin::Loss, "loss");
    let mut terms = Vec::new();
    for id in graph.outputs() {
        let expected = &case.outputs[graph.value_name(*id)];
        if !graph.fact(*id).is_float() {
            continue;
        }
        let wide = if graph.fact(*id).dtype == Some(DType::F16) { b.cast(*id, DType::F32) } else { *id };
        let c = b.constant("c", weights(b.dtype(wide), expected.shape()));
        let product = b.mul(wide, c);
        let axes: Vec<i64> = (0..expected.shape().len() as i64).collect();
        let sum = if axes.is_empty() { product } else { b.reduce("ReduceSum", product, &axes, false) };
        terms.push(sum);
    }
    let loss = if terms.len() == 1 { terms[0] } else { b.op("Sum", &terms, Attributes::none()) };
    let loss = b.output(loss, LOSS);
    let found = gradients(&mut b, opset, loss, &wrt)?;
    let mut names = Vec::new();
    for (id, gradient) in wrt.iter().zip(found) {
        let name = graph.value_name(*id).to_string();
        match gradient {
            Some(gradient) => drop(b.output(gradient, &format!("{name}.grad"))),
            None if case.apart || with_subgraphs => continue,
            None => return Err(format!("no gradient reaches \"{name}\"").into()),
        }
        names.push(name);
    }
    let graph = lower(&prune(&b.finish()));
    check(&graph)?;
    Ok((case.model.with_graph(graph), names))
}

fn backward(case: &Case, engine: &mut OnnxRuntime, at_kink: bool) -> Result<usize, Failure> {
    let (model, names) = differentiated(case)?;
    if names.is_empty() {
        return Ok(0);
    }
    let inputs = case
        .inputs
        .iter()
        .filter(|(name, _)| model.graph.find(name).is_some_and(|id| model.graph.inputs().contains(&id)));
    let inputs: Tensors = inputs.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let found = run(engine, &model, &inputs)?;
    let finite = |tensor: &Tensor| numbers(tensor).is_ok_and(|numbers| numbers.iter().all(|number| number.is_finite()));
    let plain = case.inputs.values().chain(case.outputs.values()).all(finite);
    for name in &names {
        let (gradient, input) = (&found[&format!("{name}.grad")], &case.inputs[name]);
        if (gradient.dtype(), gradient.shape()) != (input.dtype(), input.shape()) {
            return Err(format!("the gradient of \"{name}\" is {} {:?}", gradient.dtype(), gradient.shape()).into());
        }
        if plain && !finite(gradient) {
            return Err(format!("the gradient of \"{name}\" is not finite").into());
        }
    }
    if plain && names.iter().all(|name| inputs[name].dtype() != DType::F16) {
        match along_a_direction(&model, engine, &inputs, &found, &names) {
            Ok(()) if at_kink => return Err("the gradients agree with a difference, though they are at a kink".into()),
            Err(error) if !at_kink => return Err(error),
            _ => {}
        }
    }
    Ok(names.len())
}

/// Compares the gradients with the difference of the loss between two points beside the inputs.
fn along_a_direction(
    model: &Model,
    engine: &mut OnnxRuntime,
    inputs: &Tensors,
    found: &Tensors,
    names: &[String],
) -> Result<(), Failure> {
    let mut losses = Vec::new();
    let (mut slope, mut square) = (0.0, 0.0);
    for side in [STEP, -STEP] {
        let mut moved = inputs.clone();
        for name in names {
            let direction = direction(inputs[name].len());
            let values = numbers(&inputs[name])?.into_iter().zip(&direction).map(|(x, d)| x + side * d);
            moved.insert(name.clone(), of_floats(inputs[name].dtype(), inputs[name].shape(), values));
            if side > 0.0 {
                let gradient = numbers(&found[&format!("{name}.grad")])?;
                slope += gradient.iter().zip(&direction).map(|(g, d)| g * d).sum::<f64>();
                square += gradient.iter().map(|g| g * g).sum::<f64>();
            }
        }
        losses.push(numbers(&run(engine, model, &moved)?[LOSS])?[0]);
    }
    let difference = (losses[0] - losses[1]) / (2.0 * STEP);
    let noise = 1e-6 * losses[0].abs() / STEP;
    if (difference - slope).abs() > 0.02 * square.sqrt() + noise {
        return Err(format!("the loss rises by {difference} along a direction, the gradients say {slope}").into());
    }
    Ok(())
}

/// A fixed 1 or -1 for each element.
fn direction(count: usize) -> Vec<f64> {
    (0..count).map(|index| if (index as f64 * 0.618 + 0.3).fract() < 0.5 { 1.0 } else { -1.0 }).collect()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[test]
fn operators_do_what_onnx_records_and_have_gradients() {
    let mut engine = onnxruntime();
    let (mut failures, mut gradients, mut covered) = (Vec::new(), 0, BTreeMap::<String, BTreeSet<i64>>::new());
    let cases = cases();
    let count = cases.len();
    for (name, case) in cases {
        if let Ok(case) = &case {
            covered.entry(case.of.0.clone()).or_default().insert(case.of.1);
        }
        let result = case.and_then(|case| {
            forward(&case, &mut engine).map_err(|error| format!("forward: {}", chain(error.as_ref())))?;
            backward(&case, &mut engine, AT_KINKS.contains(&name.as_str()))
        });
        match (result, SKIPPED.iter().find(|(skipped, _)| *skipped == name)) {
            (Ok(found), None) => gradients += found,
            (Ok(_), Some((_, reason))) => failures.push(format!("{name} holds, but is skipped: {reason}")),
            (Err(_), Some(_)) => {}
            (Err(error), None) => failures.push(format!("{name}: {}", chain(error.as_ref()).replace('\n', " "))),
        }
    }
    let opsets: BTreeSet<i64> = covered.values().flatten().copied().collect();
    let opsets: Vec<String> = opsets.iter().map(i64::to_string).collect();
    println!("{} operators, {count} cases at opsets {}, {gradients} gradients", covered.len(), opsets.join(", "));
    assert!(failures.is_empty(), "{} of {count}\n{}", failures.len(), failures.join("\n"));
    assert!(gradients > 400, "{gradients}");
}
