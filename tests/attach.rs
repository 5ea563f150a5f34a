//! A plan in the metadata of its model, and what differs between plans, as a person meets them.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::fixture;
use freeze_plan::data::{DataOptions, Dataset};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::runner::job::{DataSection, RunSection};
use freeze_plan::runner::{Job, LocateOptions};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, engine};
use std::path::{Path, PathBuf};

#[track_caller]
fn done(args: &[&str]) -> String {
    let output = freeze_plan(args);
    assert!(output.status.success(), "{args:?}\n{}", text(&output.stderr));
    text(&output.stdout)
}

fn model(folder: &Path) -> PathBuf {
    let model = folder.join("model.onnx");
    std::fs::copy(fixture("digits/model.onnx"), &model).unwrap();
    model
}

fn plan(folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let (model, plan) = (folder.join("model.onnx"), folder.join(name));
    let args = [path(&model), "--epochs", "8", "--format", "json", "--output", path(&plan)];
    done(&[args.as_slice(), options].concat());
    plan
}

#[test]
fn a_plan_is_attached_shown_used_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let before = std::fs::read(&model).unwrap();
    let plan = plan(folder.path(), "plan.json", &["--freeze-start", "0.1"]);
    let with = folder.path().join("planned.onnx");
    let missing = fails(&["attach", "--show", path(&model)], 1);
    assert!(missing.starts_with("error: no plan is attached to "), "{missing}");
    assert_eq!(done(&["attach", path(&model), path(&plan), "--output", path(&with)]), format!("{}\n", path(&with)));
    assert!(std::fs::read(&model).unwrap() == before, "the model stays");
    assert_eq!(done(&["attach", "--show", path(&with)]), std::fs::read_to_string(&plan).unwrap());
    let [by_file, by_model] = ["by-file", "by-model"].map(|name| folder.path().join(name));
    done(&["graph", path(&model), "--plan", path(&plan), "--epoch", "8", "--out", path(&by_file)]);
    done(&["graph", path(&with), "--plan", path(&with), "--epoch", "8", "--out", path(&by_model)]);
    let contract = |folder: &Path| std::fs::read_to_string(folder.join("contract.json")).unwrap();
    assert_eq!(contract(&by_file), contract(&by_model));
    assert!(!contract(&by_file).contains("\"frozen\": []"));
    done(&["diff", "--exit-code", path(&plan), path(&with)]);
    done(&["compare", path(&with), "--plan", path(&with), "--policy", "none"]);
    done(&["attach", "--remove", path(&with)]);
    assert!(std::fs::read(&with).unwrap() == before, "nothing is left");
    fails(&["attach", "--remove", path(&with)], 1);
}

#[test]
fn a_plan_of_another_file_is_attached_only_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let plan = plan(folder.path(), "plan.json", &[]);
    let file = freeze_plan::onnx::read(&model).unwrap();
    let other = folder.path().join("other.onnx");
    std::fs::write(&other, file.with_metadata("note", "trained")).unwrap();
    let text = fails(&["attach", path(&other), path(&plan)], 1);
    assert!(text.contains("the plan is for model.onnx (sha256 ") && text.contains("not for "), "{text}");
    assert_eq!(text.matches("sha256 ").count(), 2, "{text}");
    done(&["attach", path(&other), path(&plan), "--retarget"]);
    let out = folder.path().join("graphs");
    done(&["graph", path(&other), "--plan", path(&other), "--epoch", "1", "--out", path(&out)]);
    let stranger = fixture("digits_vit/model.onnx");
    let copy = folder.path().join("vit.onnx");
    std::fs::copy(stranger, &copy).unwrap();
    let text = fails(&["attach", path(&copy), path(&plan), "--retarget"], 1);
    assert!(text.contains("it has no initializer"), "{text}");
}

#[test]
fn a_plan_that_is_attached_is_told_and_stays_with_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let plan = plan(folder.path(), "plan.json", &["--freeze-start", "0.1"]);
    done(&["attach", path(&model), path(&plan)]);
    let told = "the plan that is attached to the model (policy linear, 8 epochs) is not used: another is made";
    let preview = freeze_plan(&[path(&model), "--epochs", "3"]);
    assert!(preview.status.success() && text(&preview.stderr).starts_with(&format!("note: {told}")));

    let data = DataSection::new([("x", "images")], "labels", 64);
    let mut job = Job::new(&model, data, RunSection::new(1, folder.path().join("run")));
    job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
    job.optimizer = Some(OptimizerSpec::new(OptimizerKind::Sgd));
    (job.run.threads, job.run.ceiling_steps) = (Some(1), 0);
    let train = Dataset::open(&fixture("digits/train.npz"), &DataOptions::default(), None).unwrap();
    let mut notes = Vec::new();
    let mut note = |text: &str| notes.push(text.to_string());
    let parts = Parts { train: Some(train), note: Some(&mut note), ..Parts::default() };
    let trainer = Trainer::with(job, parts).unwrap();
    assert_eq!(notes, [told]);
    let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
    let run = trainer.start(Start::New, move || engine(&LocateOptions::default(), &options, &mut |_| {}));
    let trained = run.join().unwrap();
    assert!(trained.notes.iter().any(|note| note.starts_with("the written model has other weights")), "{trained:?}");
    let without = |file: &Path| fails(&["attach", "--show", path(file)], 1).starts_with("error: no plan is attached");
    assert!(without(&trained.model), "the plan is not that of the trained model");
    let source = std::fs::read(&model).unwrap();
    let size = |file: &Path| std::fs::metadata(file).unwrap().len();
    done(&["attach", "--remove", path(&model)]);
    assert!(size(&trained.model).abs_diff(size(&model)) < 2000, "nothing else is gone");
    done(&["attach", "--retarget", path(&trained.model), path(&folder.path().join("run"))]);

    std::fs::write(&model, &source).unwrap();
    let graphs = folder.path().join("graphs");
    let by_epoch = ["graph", path(&model), "--epochs", "3", "--epoch", "3", "--training-info", "--out", path(&graphs)];
    let output = freeze_plan(&by_epoch);
    assert!(output.status.success() && text(&output.stderr).contains(told), "{}", text(&output.stderr));
    assert!(without(&graphs.join("training.onnx")));
    let (artifacts, restored) = (folder.path().join("artifacts"), folder.path().join("restored.onnx"));
    done(&["graph", path(&model), "--classic", path(&artifacts), "--epochs", "3"]);
    let first = std::fs::read_dir(&artifacts).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let first = first.unwrap();
    let output = freeze_plan(&["restore", path(&model), path(&first), "--output", path(&restored)]);
    assert!(text(&output.stderr).contains("note: the written model has other weights"), "{}", text(&output.stderr));
    assert!(without(&restored));

    let file = freeze_plan::onnx::read(&trained.model).unwrap();
    let old = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&restored, file.with_metadata("freeze-plan", &old)).unwrap();
    let output = freeze_plan(&[path(&restored)]);
    assert!(text(&output.stderr).contains("is for another file, model.onnx: it is not used"), "{output:?}");
    std::fs::write(&restored, file.with_metadata("freeze-plan", "{}")).unwrap();
    let output = freeze_plan(&[path(&restored)]);
    assert!(text(&output.stderr).contains("the metadata entry \"freeze-plan\" of the model is no plan"), "{output:?}");
}

#[test]
fn a_job_for_a_model_with_a_plan_follows_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let cases: [&[&str]; 3] = [
        &["--freeze-start", "0.1", "--keep", "block1.*", "--batch-norm", "frozen"],
        &["--policy", "geometric", "--set", "alpha=0.3", "--unit", "block"],
        &["--policy", "steps", "--set", "steps=2:3,5:7", "--buffer", "fc.bias"],
    ];
    for options in cases {
        let plan = plan(folder.path(), "plan.json", options);
        done(&["attach", path(&model), path(&plan)]);
        let job = folder.path().join("job.toml");
        let train = fixture("digits/train.npz");
        done(&["init", path(&model), "--data", path(&train), "--out", path(&job), "--force"]);
        let written = std::fs::read_to_string(&job).unwrap();
        assert!(written.contains("It is the plan that is attached to the model"), "{written}");
        let mut notes = Vec::new();
        let mut note = |text: &str| notes.push(text.to_string());
        let job = Job::load(&job, &[]).unwrap();
        let trainer = Trainer::with(job, Parts { note: Some(&mut note), ..Parts::default() }).unwrap();
        let attached = freeze_plan::plan::read(&plan).unwrap();
        let frozen = |plan: &freeze_plan::plan::FreezePlan| -> Vec<Vec<String>> {
            plan.epochs.iter().map(|epoch| epoch.frozen.clone()).collect()
        };
        assert_eq!(frozen(trainer.plan()), frozen(&attached), "{options:?}");
        assert_eq!(trainer.plan().policy, attached.policy, "{options:?}");
        assert!(notes.iter().all(|note| !note.contains("attached")), "{notes:?}");
    }
}

#[test]
fn data_in_other_files_stay_and_keep_the_model_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let apart = tempfile::tempdir().unwrap();
    let source = fixture("exports/external.onnx");
    let source = if source.exists() { source } else { find_external() };
    let model = folder.path().join("model.onnx");
    for entry in std::fs::read_dir(source.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() && entry.path() != source && entry.path().extension().is_none_or(|e| e != "onnx") {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(&source, &model).unwrap();
    let plan = plan(folder.path(), "plan.json", &[]);
    let elsewhere = apart.path().join("planned.onnx");
    let text = fails(&["attach", path(&model), path(&plan), "--output", path(&elsewhere)], 1);
    assert!(text.contains("lie in files beside it"), "{text}");
    let size = std::fs::metadata(&model).unwrap().len();
    done(&["attach", path(&model), path(&plan)]);
    let grown = std::fs::metadata(&model).unwrap().len() - size;
    let plan_size = std::fs::metadata(&plan).unwrap().len();
    assert!(grown < plan_size, "compact JSON and nothing else: {grown} bytes of {plan_size}");
    done(&["tree", path(&model)]);
}

/// Returns a fixture whose data lie in another file.
fn find_external() -> PathBuf {
    let mut folders = vec![fixture("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let found = entry.unwrap().path();
            if found.ends_with("hostile") {
                continue;
            }
            if found.is_dir() {
                folders.push(found);
            } else if found.extension().is_some_and(|extension| extension == "onnx")
                && freeze_plan::onnx::read(&found).is_ok_and(|file| file.has_external_data())
            {
                return found;
            }
        }
    }
    panic!("no fixture has external data");
}

#[test]
fn what_differs_between_plans_is_told_and_has_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path());
    let a = plan(folder.path(), "a.json", &["--freeze-start", "0.1"]);
    let b = plan(folder.path(), "b.json", &["--freeze-start", "0.5"]);
    let table = done(&["diff", path(&a), path(&b)]);
    for word in ["freeze_start", "b later", "cost_ratio", "conv1"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(table.lines().skip(2).all(|line| line.chars().count() <= 80), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&done(&["diff", path(&a), path(&b), "--format", "json"])).unwrap();
    assert_eq!((json["format"].as_str(), json["same"].as_bool()), (Some("freeze-plan-diff/1"), Some(false)));
    assert!(
        json["freezes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| ["later", "never"].contains(&row["change"].as_str().unwrap()))
    );
    let output = freeze_plan(&["diff", "--exit-code", path(&a), path(&b)]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stdout), table);
    assert_eq!(freeze_plan(&["diff", "--exit-code", path(&a), path(&a)]).status.code(), Some(0));
    let missing = fails(&["diff", path(&a), path(folder.path())], 1);
    assert!(missing.contains("plan.json"), "{missing}");
}

#[test]
fn of_two_runs_the_settings_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path());
    let plan = plan(folder.path(), "plan.json", &[]);
    let [a, b] = ["a", "b"].map(|name| {
        let run = folder.path().join(name);
        std::fs::create_dir(&run).unwrap();
        std::fs::copy(&plan, run.join("plan.json")).unwrap();
        std::fs::write(run.join("job.toml"), format!("[run]\nseed = 1\ndir = \"{name}\"\n")).unwrap();
        run
    });
    let table = done(&["diff", path(&a), path(&b)]);
    assert!(table.contains("run.dir") && !table.contains("run.seed"), "{table}");
}

#[test]
fn a_plan_is_another_where_anything_that_is_held_differs() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let plan = plan(folder.path(), "plan.json", &["--freeze-start", "0.1"]);
    done(&["attach", path(&model), path(&plan)]);
    let told = |options: &[&str]| {
        let output = freeze_plan(&[&[path(&model), "--epochs", "8", "--freeze-start", "0.1"], options].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr).contains("is not used: another is made")
    };
    assert!(!told(&[]), "the same plan");
    assert!(told(&["--batch-norm", "frozen"]), "the same parameters, but statistics stay as well");
    assert!(told(&["--keep", "conv1"]));
}
