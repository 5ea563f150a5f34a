//! `[init]`: fresh weights against PyTorch's, and weights of files.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::{fixture, golden};
use crate::runs::of_values;
use freeze_plan::checkpoint;
use freeze_plan::graph::{DType, Tensor};
use freeze_plan::initial::{InitialError, fresh, read};
use freeze_plan::onnx;
use freeze_plan::planner::Analysis;
use freeze_plan::training::{Prepared, prepare};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn prepared(file: &str) -> Prepared {
    prepare(&Analysis::of(&onnx::read(&fixture(file)).unwrap().model)).unwrap()
}

fn values(prepared: &Prepared) -> BTreeMap<String, Tensor> {
    let names = prepared.trainable().into_iter().chain(prepared.statistics());
    let value = |name: &str| {
        let graph = &prepared.model.graph;
        (name.to_string(), graph.value(graph.find(name).unwrap()).initializer.clone().unwrap())
    };
    names.map(value).collect()
}

fn drawn(file: &str, seed: u64, only: &[&str]) -> BTreeMap<String, Tensor> {
    let mut prepared = prepared(file);
    let only: Vec<String> = only.iter().map(|text| (*text).to_string()).collect();
    fresh(&mut prepared, seed, &only).unwrap();
    values(&prepared)
}

const CLASSES: &str = "fresh/classes.onnx";

#[test]
fn fresh_weights_are_distributed_as_those_of_pytorch() {
    const SEEDS: u64 = 120;
    let golden = golden("fresh/fresh.json");
    let start = prepared(CLASSES);
    let mut held: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut again = start.clone();
        let drawn = fresh(&mut again, seed, &[]).unwrap();
        // The exporter writes a GroupNorm out: its scale and shift are a vector that is multiplied and one that is added.
        assert_eq!(drawn.by_fallback, ["group.weight", "group.bias"]);
        assert!(drawn.kept.is_empty(), "{drawn:?}");
        for (name, tensor) in values(&again) {
            held.entry(name).or_default().extend(tensor.to_f64s().unwrap());
        }
    }
    let expected: Vec<&str> = golden.as_object().unwrap().keys().map(String::as_str).collect();
    let mut names: Vec<&str> = held.keys().map(String::as_str).collect();
    names.sort_by_key(|name| expected.iter().position(|other| other == name));
    assert_eq!(names, expected);
    let mut failures = Vec::new();
    for (name, own) in &held {
        let std = golden[name]["std"].as_f64().unwrap();
        let quantiles: Vec<f64> =
            golden[name]["quantiles"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        if std == 0.0 {
            if own.iter().any(|value| *value != quantiles[0]) {
                failures.push(format!("{name}: {:?}, PyTorch has {}", &own[..own.len().min(4)], quantiles[0]));
            }
            continue;
        }
        let count = own.len() as f64;
        let share = |limit: f64| own.iter().filter(|value| **value <= limit).count() as f64 / count;
        let inner = quantiles.iter().enumerate().skip(1).take(quantiles.len() - 2);
        let distance = inner.map(|(at, limit)| (share(*limit) - at as f64 / 20.0).abs()).fold(0.0, f64::max);
        // Kolmogorov-Smirnov for two samples at a level of 0.001; PyTorch's has 400 / 120 as many numbers.
        let limit = 1.95 * ((1.0 + 120.0 / 400.0) / count).sqrt();
        let mean = own.iter().sum::<f64>() / count;
        let spread = (own.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        if distance > limit || (spread / std - 1.0).abs() > 4.0 / count.sqrt() {
            failures.push(format!("{name}: distance {distance} of {limit}, std {spread}, PyTorch has {std}"));
        }
        let most = |values: &[f64]| values.iter().fold(0f64, |most, value| most.max(value.abs()));
        let bounded = most(&quantiles) / std < 1.8;
        if bounded && (most(own) / most(&quantiles) - 1.0).abs() > 0.02 {
            failures.push(format!("{name}: up to {}, PyTorch up to {}", most(own), most(&quantiles)));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_tensor_follows_from_the_seed_and_its_name_alone() {
    let all = drawn(CLASSES, 7, &[]);
    assert!(all == drawn(CLASSES, 7, &[]));
    let other = drawn(CLASSES, 8, &[]);
    let differ: Vec<&String> = all.keys().filter(|name| all[*name] != other[*name]).collect();
    assert!(differ.iter().any(|name| *name == "conv.weight") && !differ.iter().any(|name| *name == "norm.weight"));
    let before = values(&prepared(CLASSES));
    let some = drawn(CLASSES, 7, &["lstm", "head.weight"]);
    for (name, tensor) in &some {
        let chosen = name.starts_with("lstm.") || name == "head.weight";
        assert!(*tensor == if chosen { &all[name] } else { &before[name] }.clone(), "{name}");
    }
    // Statistics go with the scale of their normalization.
    let start = prepared("digits/model.onnx");
    let mut norm = start.clone();
    for name in start.statistics() {
        let held = values(&start)[name].clone();
        let graph = std::mem::take(&mut norm.model.graph);
        norm.model.graph = graph.with_initializer(name, Tensor::float_full(DType::F32, held.shape(), 7.0));
    }
    let scale = start.trainable().into_iter().find(|name| name.contains("bn") && name.ends_with("weight")).unwrap();
    let only = vec![scale.to_string()];
    fresh(&mut norm, 0, &only).unwrap();
    let reset = values(&norm)
        .into_iter()
        .filter(|(name, tensor)| start.statistics().contains(&name.as_str()) && tensor.to_f64s().unwrap()[0] != 7.0);
    assert_eq!(reset.count(), 2);
}

/// Writes a checkpoint and returns its tensor file.
fn save(folder: &Path, tensors: &BTreeMap<String, Tensor>) -> PathBuf {
    let mut checkpoint = of_values(1, tensors.clone());
    checkpoint::Store::new(folder, 1).save(&mut checkpoint, false).unwrap().join("values.safetensors")
}

#[test]
fn every_kind_of_file_gives_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = drawn("digits/model.onnx", 5, &[]);
    let saved = folder.path().join("saved");
    let file = save(&saved, &wanted);
    let take = |path: &Path, only: &[&str], strict: bool| {
        let mut own = prepared("digits/model.onnx");
        let only: Vec<String> = only.iter().map(|text| (*text).to_string()).collect();
        read(&mut own, path, &only, strict).map(|taken| (taken, values(&own)))
    };
    let (taken, found) = take(&file, &[], true).unwrap();
    assert_eq!((taken.taken, taken.rest()), (wanted.len(), None));
    assert!(found == wanted);
    assert!(take(&saved, &[], true).unwrap().1 == wanted, "a checkpoint");
    let (_, found) = take(&fixture("digits/model.onnx"), &[], true).unwrap();
    assert!(found == values(&prepared("digits/model.onnx")));

    // One has another shape, one another dtype, one is missing.
    let mut changed = wanted.clone();
    let own = prepared("digits/model.onnx");
    let names: Vec<&str> = own.trainable();
    let (shape, wide, gone) = (names[0], names[1], names[2]);
    changed.insert(shape.into(), Tensor::zeros(DType::F32, &[3]));
    let numbers = wanted[wide].to_f64s().unwrap();
    changed.insert(wide.into(), Tensor::from_vec(wanted[wide].shape(), numbers));
    changed.remove(gone);
    let file = save(&saved, &changed);
    let error = take(&file, &[], true).unwrap_err();
    assert!(matches!(error, InitialError::Unfit { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("\"{shape}\" is float32[3], expected float32[")), "{text}");
    let (taken, found) = take(&file, &[], false).unwrap();
    assert_eq!((taken.taken, taken.missing, taken.unfit.len()), (wanted.len() - 2, vec![gone.to_string()], 1));
    assert!(found[wide] == wanted[wide], "numbers are converted");
    let own = values(&prepared("digits/model.onnx"));
    assert!(found[shape] == own[shape] && found[gone] == own[gone]);
    changed.insert(shape.into(), wanted[shape].clone());
    let file = save(&saved, &changed);
    let text = take(&file, &[], true).unwrap_err().to_string();
    assert!(text.contains(&format!("does not have 1 of the model's {} tensors: {gone}", wanted.len())), "{text}");
    assert!(take(&file, &[wide], true).is_ok());
    let text = take(&fixture("digits/train.npz"), &[], false).unwrap_err().to_string();
    assert!(text.contains("has none of the model's tensors; it has images, labels"), "{text}");
    let text = take(&fixture("digits/job.toml"), &[], true).unwrap_err().to_string();
    assert!(text.contains("expected a folder with a checkpoint"), "{text}");
}

/// Writes a job of two epochs at rate 0 on the digits and returns its file.
fn job(folder: &Path, more: &str) -> PathBuf {
    let data = fixture("parity/digits.npz").display().to_string();
    let text = format!(
        "model = \"{}\"\n{more}\n[data]\ntrain = \"{data}\"\neval = \"{data}\"\ninputs = {{ x = \"images\" }}\n\
         target = \"labels\"\nbatch = 20\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.0\n\
         [freeze]\npolicy = \"none\"\nbatch_norm = \"frozen\"\n[run]\nepochs = 1\ndir = \"run\"\n",
        fixture("digits/model.onnx").display()
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn trained(folder: &Path) -> BTreeMap<String, Tensor> {
    let graph = onnx::read(&folder.join("run/model.onnx")).unwrap().model.graph;
    graph.initializers().map(|(_, value, tensor)| (value.name.clone(), tensor.clone())).collect()
}

#[test]
fn a_job_starts_from_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |more: &str, sets: &[&str]| {
        let file = job(folder, more);
        let mut args = vec!["train", path(&file), "--no-plan", "--overwrite"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        let output = freeze_plan(&args);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        stderr
    };
    let stderr = run("[init]\nweights = \"fresh\"\nseed = 3", &[]);
    assert!(stderr.contains("fresh weights, seed 3: ") && stderr.contains(" BatchNorm"), "{stderr}");
    let (expected, found) = (drawn("digits/model.onnx", 3, &[]), trained(folder));
    let start = prepared("digits/model.onnx");
    let same = |name: &str| found[name].to_f64s().unwrap() == expected[name].to_f64s().unwrap();
    assert!(start.trainable().into_iter().all(same));

    let kept = folder.join("kept.onnx");
    std::fs::copy(folder.join("run/model.onnx"), &kept).unwrap();
    let saved = folder.join("saved");
    std::fs::rename(folder.join("run"), &saved).unwrap();
    run("[init]\nweights = \"kept.onnx\"", &[]);
    let file = job(folder, "[init]\nweights = \"run/model.onnx\"");
    let line = fails(&["train", path(&file), "--overwrite"], 1);
    assert!(line.contains("the run would replace") && folder.join("run/model.onnx").exists(), "{line}");
    let again = trained(folder);
    assert!(start.trainable().into_iter().all(|name| again[name] == found[name]), "another model, beside the job file");
    run("[init]\nweights = \"saved\"", &["init.only=['fc*']", "init.strict=false"]);
    let (part, own) = (trained(folder), values(&start));
    for name in start.trainable() {
        let from = if name.starts_with("fc") { &found[name] } else { &own[name] };
        assert!(part[name].to_f64s() == from.to_f64s(), "{name}");
    }
    assert!(part.keys().any(|name| name.starts_with("fc")));
}

#[test]
fn wrong_init_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |more: &str, code: i32| {
        let file = job(folder.path(), more);
        let line = fails(&["train", path(&file)], code);
        assert!(!folder.path().join("run").exists(), "the folder is not touched");
        line
    };
    let cases = [
        ("weights = \"fresh\"\nseeds = 1", 2, "unknown key `seeds` in [init] at line 4, did you mean `seed`?"),
        ("seed = 1", 2, "key `init.seed` at line 3: goes with weights = \"fresh\""),
        ("weights = \"fresh\"\nstrict = true", 2, "key `init.strict` at line 4: goes with weights = PATH"),
        ("only = [\"fc*\"]", 2, "key `init.only` at line 3: goes with weights"),
        ("weights = \"\"", 2, "key `init.weights` at line 3: expected"),
        ("weights = \"fresh\"\nonly = [\"nothing.*\"]", 2, "nothing.*"),
        ("weights = \"gone.safetensors\"", 1, "gone.safetensors"),
        ("weights = \"gone\"", 1, "gone holds no weights that are known"),
    ];
    for (text, code, expected) in cases {
        let line = refused(&format!("[init]\n{text}"), code);
        assert!(line.contains(expected), "{text}: {line}");
    }
    let other = fixture("digits_vit/model.onnx").display().to_string();
    let line = refused(&format!("[init]\nweights = \"{other}\""), 1);
    assert!(line.contains("none of the model's tensors") || line.contains("does not have"), "{line}");
}

#[test]
fn classes_are_told_in_models_of_both_exporters() {
    struct Case {
        model: &'static str,
        classes: &'static [(&'static str, usize)],
        by_fallback: &'static [&'static str],
    }
    let vit: &[_] = &[("Conv", 2), ("Linear", 12), ("MultiheadAttention", 6), ("Norm", 10)];
    let rnn: &[_] = &[("Embedding", 1), ("Linear", 2), ("RNN", 16)];
    let cases = [
        Case { model: "vit.dynamo", classes: vit, by_fallback: &["class_token", "encoder.pos_embedding"] },
        Case { model: "vit.torchscript", classes: vit, by_fallback: &["class_token", "encoder.pos_embedding"] },
        Case { model: "bert.dynamo_23", classes: &[("Embedding", 3), ("Linear", 28), ("Norm", 10)], by_fallback: &[] },
        Case { model: "rnn.torchscript", classes: rnn, by_fallback: &[] },
        Case { model: "generator.dynamo", classes: &[("BatchNorm", 8), ("ConvTranspose", 4)], by_fallback: &[] },
    ];
    for Case { model, classes, by_fallback } in cases {
        let drawn = fresh(&mut prepared(&format!("models/{model}.onnx")), 0, &[]).unwrap();
        assert_eq!(drawn.classes.into_iter().collect::<Vec<_>>(), classes, "{model}");
        assert_eq!(drawn.by_fallback, by_fallback, "{model}");
    }
}
