//! BatchNormalization and Dropout of frozen units, through `freeze-plan train`.

use crate::engines::fixture;
use crate::runs::newest;
use freeze_plan::graph::Tensor;
use freeze_plan::onnx::read;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What a job leaves behind.
struct Left {
    plan: serde_json::Value,
    tensors: BTreeMap<String, Tensor>,
    /// Mean loss of each epoch.
    losses: Vec<f64>,
}

fn train(folder: &Path, model: &str, epochs: usize, seed: usize, rest: &str) -> Left {
    let [model, data] = [model, "parity/digits.npz"].map(|name| fixture(name).display().to_string());
    let job = format!(
        "model = \"{model}\"\n{rest}\n[data]\ntrain = \"{data}\"\neval = \"{data}\"\ninputs = {{ x = \"images\" }}\n\
         target = \"labels\"\nbatch = 20\n[loss]\nkind = \"cross-entropy\"\n[run]\nepochs = {epochs}\ndevice = \"cpu\"\n\
         dir = \"run\"\n"
    );
    std::fs::write(folder.join("job.toml"), job).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_freeze-plan"));
    command.arg("train").arg(folder.join("job.toml")).args(["--no-plan", "--overwrite"]);
    let output = command.args(["--set", &format!("run.seed={seed}")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |name: &str| std::fs::read_to_string(folder.join("run").join(name)).unwrap();
    let events = text("events.jsonl");
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    Left {
        plan: serde_json::from_str(&text("plan.json")).unwrap(),
        tensors: newest(&folder.join("run/checkpoints")).tensors(),
        losses: events.filter(|event| event["event"] == "epoch").map(|e| e["train_loss"].as_f64().unwrap()).collect(),
    }
}

/// Names under a key of an epoch's entry.
fn names(entry: &serde_json::Value, key: &str) -> Vec<String> {
    let names = entry[key].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap().to_string()).collect()
}

#[test]
fn scale_and_statistics_of_frozen_batch_norm_stay_or_move_as_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let start = read(&fixture("digits/model.onnx")).unwrap().model.graph;
    for (setting, affine_stays, statistics_stay) in [
        ("\"train\"", true, false),
        ("\"frozen\"", true, true),
        ("{ affine = \"train\", statistics = \"frozen\" }", false, true),
        ("{ affine = \"train\", statistics = \"train\" }", false, false),
    ] {
        let job = |epochs| {
            let rest = format!(
                "[optimizer]\nkind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\n[freeze]\npolicy = \"steps\"\nsteps = \"2:4\"\n\
                 batch_norm = {setting}"
            );
            train(folder.path(), "digits/model.onnx", epochs, 0, &rest)
        };
        let (two, three) = (job(2), job(3));
        let entry = &three.plan["epochs"][1];
        let mut expected = Vec::new();
        for norm in ["bn1", "block1.bn1"] {
            for part in ["running_mean", "running_var"] {
                let name = format!("{norm}.{part}");
                let first = start.value(start.find(&name).unwrap()).initializer.clone().unwrap();
                assert!(two.tensors[&name] != first, "{setting}: {name} moves while it is not frozen");
                assert_eq!(two.tensors[&name] == three.tensors[&name], statistics_stay, "{setting}: {name}");
                expected.extend(statistics_stay.then_some(name));
            }
            for part in ["weight", "bias"] {
                let name = format!("{norm}.{part}");
                assert_eq!(two.tensors[&name] == three.tensors[&name], affine_stays, "{setting}: {name}");
                assert_eq!(names(entry, "frozen").contains(&name), affine_stays, "{setting}: {name}");
            }
        }
        assert_eq!(names(entry, "statistics"), expected, "{setting}");
        assert!(names(&three.plan["epochs"][0], "statistics").is_empty());
        assert!(two.tensors["conv1.weight"] == three.tensors["conv1.weight"]);
        for name in ["block2.bn1.running_mean", "block2.bn1.weight"] {
            assert!(two.tensors[name] != three.tensors[name], "{setting}: {name} is above what is frozen");
        }
    }
}

#[test]
fn dropout_of_frozen_units_is_off_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (setting, off) in [("train", false), ("off", true)] {
        // With no rate nothing moves, so all that differs between two seeds is what is dropped.
        let job = |seed| {
            let rest = format!(
                "dropout = \"as-exported\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.0\n[freeze]\npolicy = \"steps\"\n\
                 steps = \"2:27\"\ndropout = \"{setting}\""
            );
            train(folder.path(), "digits_vit/model.onnx", 2, seed, &rest)
        };
        let (a, b) = (job(0), job(1));
        assert_ne!(a.losses[0], b.losses[0], "{setting}");
        assert_eq!(a.losses[1] == b.losses[1], off, "{setting}: {:?} {:?}", a.losses, b.losses);
        let [first, second] = [0, 1].map(|epoch| names(&a.plan["epochs"][epoch], "dropout_off").len());
        assert_eq!((first, second > 0), (0, off), "{setting}");
    }
}
