//! Random values against their distributions and the formula.

use super::*;
use crate::graph::Model;
use crate::graph::OpId;
use crate::runner::{evaluate, testing};

struct Case {
    name: &'static str,
    op: &'static str,
    inputs: Vec<Tensor>,
    attributes: Attributes,
    /// Mean of the first output, and its variance.
    moments: (f64, f64),
    /// Whether the first dimension of the first input is a symbol.
    symbolic: bool,
}

fn model(case: &Case, seed: u64, fixed: bool) -> Model {
    let mut source = Builder::new("source");
    let mut inputs = Vec::new();
    for (index, tensor) in case.inputs.iter().enumerate() {
        let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
        if case.symbolic && index == 0 {
            fact.shape.as_mut().unwrap()[0] = Dim::Symbol("batch".into());
        }
        inputs.push(Some(source.input(&format!("x{index}"), fact)));
    }
    let made = source.ops(&OpId::standard(case.op), &inputs, case.attributes.clone(), 1)[0];
    source.rename(made, "y");
    source.mark_output(made);
    let graph = source.finish();
    let mut b = Builder::new("drawn");
    let inputs: Vec<_> = graph.inputs().iter().map(|id| Some(b.copy_value(&graph, *id))).collect();
    b.enter(Origin::Forward, "");
    let random = Random::new(&mut b, &graph, seed, fixed).unwrap().unwrap();
    let y = random.node(&mut b, &graph, &graph.nodes()[0], &inputs).unwrap()[0];
    b.output(y, "y");
    let mut drawn = b.finish();
    drawn.inputs.extend(inputs.into_iter().flatten());
    let opsets = [(String::new(), 18)].into_iter().collect();
    Model { graph: drawn, opsets, ir_version: 8, ..Model::default() }
}

fn cases() -> Vec<Case> {
    let ones = |shape: &[usize], value: f64| Tensor::float_full(DType::F32, shape, value);
    let case =
        |name, op, inputs, moments| Case { name, op, inputs, attributes: Attributes::none(), moments, symbolic: false };
    let dropout = |name, shape: &[usize], ratio: f64| {
        let inputs = vec![ones(shape, 1.0), Tensor::float_scalar(DType::F32, ratio)];
        case(name, "Dropout", inputs, (1.0, ratio / (1.0 - ratio)))
    };
    let logits: Vec<f32> = [0.5f32, 0.2, 0.3].iter().map(|p| p.ln()).collect::<Vec<_>>().repeat(40);
    let shape: &[i64] = &[90, 80];
    vec![
        dropout("matrix", &[64, 128], 0.25),
        dropout("vector", &[6000], 0.5),
        Case { symbolic: true, ..dropout("symbolic batch", &[40, 4, 6, 10], 0.1) },
        case("probabilities", "Bernoulli", vec![ones(&[80, 90], 0.3)], (0.3, 0.21)),
        Case {
            attributes: Attributes::none().with("low", -1.0f32).with("high", 3.0f32),
            ..case("range", "RandomUniformLike", vec![ones(&[80, 90], 0.0)], (1.0, 16.0 / 12.0))
        },
        Case {
            attributes: Attributes::none().with("shape", shape),
            ..case("shape", "RandomUniform", vec![], (0.5, 1.0 / 12.0))
        },
        Case {
            attributes: Attributes::none().with("mean", 2.0f32).with("scale", 0.5f32),
            ..case("like", "RandomNormalLike", vec![ones(&[80, 90], 0.0)], (2.0, 0.25))
        },
        Case {
            attributes: Attributes::none().with("shape", shape),
            ..case("shape", "RandomNormal", vec![], (0.0, 1.0))
        },
        Case {
            attributes: Attributes::none().with("sample_size", 100),
            ..case("three classes", "Multinomial", vec![Tensor::from_vec(&[40, 3], logits)], (0.8, 0.76))
        },
    ]
}

#[test]
fn moments_are_those_of_the_distribution_on_every_engine_and_follow_step_and_seed() {
    for mut engine in testing::engines() {
        let who = engine.info().name.clone();
        for case in cases() {
            let mut draw = |seed: u64, step: i64| -> Vec<f64> {
                let model = model(&case, seed, false);
                let step = Tensor::scalar(step);
                let names: Vec<String> = (0..case.inputs.len()).map(|index| format!("x{index}")).collect();
                let mut feeds: Vec<(&str, &Tensor)> = vec![(names::STEP, &step)];
                feeds.extend(names.iter().map(String::as_str).zip(&case.inputs));
                let at = format!("{} {} [{who}]", case.op, case.name);
                let outputs = evaluate(engine.as_mut(), &model, &feeds);
                outputs.unwrap_or_else(|error| panic!("{at}: {error}"))[0].to_f64s().unwrap()
            };
            let values = draw(7, 12);
            let at = format!("{} {} [{who}]", case.op, case.name);
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            let (expected, spread) = case.moments;
            let error = 4.0 * (spread / count).sqrt();
            assert!((mean - expected).abs() < error, "{at}: mean {mean}, expected {expected}");
            assert!((variance / spread - 1.0).abs() < 0.12, "{at}: variance {variance}, expected {spread}");
            assert_eq!(draw(7, 12), values, "{at}: the same step draws the same");
            assert_ne!(draw(7, 13), values, "{at}: another step draws others");
            assert_ne!(draw(8, 12), values, "{at}: another seed draws others");
        }
    }
}

#[test]
fn rows_columns_and_steps_are_independent() {
    let (rows, columns) = (256, 512);
    let shape: &[i64] = &[rows, columns];
    let case = Case {
        attributes: Attributes::none().with("shape", shape).with("low", -1.0f32),
        name: "uniform",
        op: "RandomUniform",
        inputs: vec![],
        moments: (0.0, 1.0 / 3.0),
        symbolic: false,
    };
    let mut engine = testing::onnxruntime();
    let model = model(&case, 3, false);
    let mut draw = |step: i64| {
        let step = Tensor::scalar(step);
        evaluate(&mut engine, &model, &[(names::STEP, &step)]).unwrap()[0].to_f64s().unwrap()
    };
    let (one, two) = (draw(1), draw(2));
    let (rows, columns) = (rows as usize, columns as usize);
    let correlation = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (sum, count) = pairs.fold((0.0, 0), |(sum, count), (a, b)| (sum + 3.0 * a * b, count + 1));
        sum / f64::from(count).sqrt()
    };
    let at = |row: usize, column: usize| one[row * columns + column];
    assert!(correlation(&mut one.iter().copied().zip(two.iter().copied())).abs() < 4.0, "steps");
    for gap in [1, 2, 16, 128] {
        let mut pairs = (0..rows).flat_map(|r| (gap..columns).map(move |c| (at(r, c), at(r, c - gap))));
        assert!(correlation(&mut pairs).abs() < 4.0, "columns {gap} apart");
        let mut pairs = (gap..rows).flat_map(|r| (0..columns).map(move |c| (at(r, c), at(r - gap, c))));
        assert!(correlation(&mut pairs).abs() < 4.0, "rows {gap} apart");
    }
    let worst = (0..columns)
        .flat_map(|a| (0..a).map(move |b| (a, b)))
        .map(|(a, b)| correlation(&mut (0..rows).map(|row| (at(row, a), at(row, b)))).abs())
        .fold(0.0, f64::max);
    assert!(worst < 6.0, "of 131,000 pairs of columns the most alike correlate by {worst} standard deviations");
}

#[test]
fn bits_are_those_of_the_formula() {
    let mix = |x: i64| ROUNDS.iter().fold(x, |x, (a, c)| (x * (x + a) + c) % P);
    let salts = [hash("y"), hash("y") >> 32].map(reduced);
    let base = mix(5 % P + reduced(9_u64.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let stream = mix((base + salts[0]) % P);
    let row = |index: i64| mix((index * 1_664_525 + stream) % P) | 1;
    let column = |index: i64| mix((index * 1_664_525 + stream + P / 3) % P) | 1;
    let shape: &[i64] = &[3, 4];
    let case = Case {
        name: "formula",
        op: "RandomUniform",
        inputs: vec![],
        attributes: Attributes::none().with("shape", shape),
        moments: (0.5, 1.0 / 12.0),
        symbolic: false,
    };
    for mut engine in testing::engines() {
        let step = Tensor::scalar(5_i64);
        let found = evaluate(engine.as_mut(), &model(&case, 9, false), &[(names::STEP, &step)]).unwrap();
        let expected = (0..12).map(|at| ((row(at / 4) * column(at % 4)) & 0xffff_ff00) as f64 / RANGE);
        let name = engine.info().name.clone();
        assert_eq!(found[0].to_f64s().unwrap(), expected.collect::<Vec<_>>(), "[{name}]");
    }
}
