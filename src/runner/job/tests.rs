use super::*;
use crate::data::LastBatch;
use crate::metrics::Metric;

const DESIGN: &str = r#"model = "model.onnx"
[data]
train = "train.npz"
eval  = "eval.npz"
inputs = { x = "images" }
target = "labels"
batch = 64
seed = 0
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
lr = 0.1
momentum = 0.9
weight_decay = 5e-4
[schedule]
kind = "cosine"
[freeze]
policy = "linear"
freeze_start = 0.5
freeze_level = 1.0
batch_norm = "train"
[run]
epochs = 10
device = "cpu"
dir = "runs/first"
"#;

fn parse(text: &str, sets: &[&str]) -> Result<Job, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
    Job::parse(Path::new("/jobs/a/job.toml"), text, &sets).map_err(|error| error.to_string())
}

#[test]
fn the_design_is_read_and_its_resolution_means_the_same() {
    let job = parse(DESIGN, &[]).unwrap();
    assert_eq!(job.model, Path::new("/jobs/a/model.onnx"));
    assert_eq!(job.data.eval, Some(Path::new("/jobs/a/eval.npz").into()));
    assert_eq!(job.data.inputs["x"], *"images");
    assert!(job.data.shuffle && job.data.last_batch == LastBatch::Keep);
    assert_eq!(job.schedule, Some(Schedule::cosine(0.0, 0)));
    assert_eq!((job.run.epochs, job.run.log_every, job.run.threads), (10, 10, None));
    assert_eq!(job.run.dir, Path::new("/jobs/a/runs/first"));
    let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
    let freeze = PlanOptions { unit: Some(job.freeze.unit()), ..job.freeze.clone() }.with("arithmetic", "composer");
    assert_eq!(again, Job { freeze, ..job });
}

#[test]
fn another_policy_by_set_leaves_the_settings_of_the_first_behind() {
    let job = parse(DESIGN, &["freeze.policy=geometric", "freeze.alpha=0.25"]).unwrap();
    assert_eq!(job.freeze, PlanOptions::of("geometric").with("alpha", 0.25));
    let error = parse(DESIGN, &["freeze.policy=geometric", "freeze.freeze_level=1"]).unwrap_err();
    assert!(error.contains("unknown key `freeze_level` in [freeze] given with --set"), "{error}");
    let error = parse(&DESIGN.replace("\"linear\"", "\"geometric\""), &[]).unwrap_err();
    assert!(error.contains("unknown key `freeze_start` in [freeze] at line"), "{error}");
}

#[test]
fn set_overrides_with_toml_values_and_bare_words() {
    let job = parse(
        DESIGN,
        &[
            "run.epochs=3",
            "data.last_batch=drop",
            "data.eval = ../other/eval.npz",
            "data.inputs.y=\"a = b\"",
            "schedule={ kind = \"step\", step_epochs = 2 }",
            "run.threads=2",
            "optimizer.lr=1e-3",
            "freeze.keep=[\"fc.*\", \"bn*\"]",
            "model=2024-01-01",
        ],
    )
    .unwrap();
    assert_eq!((job.run.epochs, job.run.threads, job.data.last_batch), (3, Some(2), LastBatch::Drop));
    assert_eq!(job.data.eval, Some(Path::new("/jobs/a/../other/eval.npz").into()));
    assert_eq!(job.data.inputs["y"], *"a = b");
    assert_eq!(job.schedule, Some(Schedule::step(2, 0.1)));
    assert_eq!(job.optimizer.unwrap().lr, Some(1e-3));
    assert_eq!(job.freeze.keep.len(), 2);
    assert_eq!(job.model, Path::new("/jobs/a/2024-01-01"));
}

#[test]
fn what_frozen_units_do_is_a_word_or_a_table() {
    use crate::plan::{BatchNorm, FrozenDropout};
    let cases = [
        ("freeze.batch_norm=frozen", BatchNorm::Frozen),
        ("freeze.batch_norm={ affine = \"train\", statistics = \"frozen\" }", BatchNorm::AffineTrains),
        ("freeze.batch_norm={ affine = \"train\" }", BatchNorm::AllTrain),
    ];
    for (text, expected) in cases {
        let job = parse(DESIGN, &[text, "freeze.dropout=off"]).unwrap();
        assert_eq!((job.freeze.batch_norm, job.freeze.dropout), (expected, FrozenDropout::Off), "{text}");
        let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
        let freeze = PlanOptions { unit: Some(job.freeze.unit()), ..job.freeze.clone() };
        assert_eq!(again, Job { freeze: freeze.with("arithmetic", "composer"), ..job }, "{text}");
    }
    let cases = [
        (
            "freeze.batch_norm={ afine = \"train\" }",
            "unknown key `afine` in [freeze.batch_norm] given with --set, did you mean `affine`?",
        ),
        ("freeze.batch_norm=eval", "unknown value \"eval\", expected one of \"train\", \"frozen\""),
        ("freeze.batch_norm=1", "expected \"train\", \"frozen\" or a table of affine and statistics, found integer 1"),
        ("freeze.dropout=on", "unknown value \"on\", did you mean \"off\"?"),
    ];
    for (text, expected) in cases {
        let error = parse(DESIGN, &[text]).unwrap_err();
        assert!(error.ends_with(expected), "{text}: {error}");
    }
}

#[test]
fn errors_name_key_and_line() {
    struct Case {
        replace: (&'static str, &'static str),
        sets: &'static [&'static str],
        expected: &'static str,
    }
    const NONE: (&str, &str) = ("", "");
    let cases = [
        Case {
            replace: (
                "policy = \"linear\"\nfreeze_start = 0.5\nfreeze_level = 1.0",
                "policy = \"steps\"\nsteps = [\n{ epoch = 2, frozen = 4 },\n{ epoch = 3, frozn = 0.5 },\n]",
            ),
            sets: &[],
            expected: "key `freeze.steps` at line 22: entry 2: there is no key \"frozn\" (nearest: \"frozen\"), \
                       expected epoch, step, frozen",
        },
        Case {
            replace: ("batch = 64", "bacth = 64"),
            sets: &[],
            expected: "unknown key `bacth` in [data] at line 7, did you mean `batch`?",
        },
        Case {
            replace: ("seed = 0", "colour = 1"),
            sets: &[],
            expected: "unknown key `colour` in [data] at line 8, known are `train`, `eval`, `inputs`, `target`, \
                       `batch`, `seed`, `shuffle`, `sampler`, `weights`, `last_batch`, `workers`, `prefetch`, `format`, \
                       `cache_dir`, `types`, `classes`, `normalize`, `csv`, `tokens`, `text`, `image`, `augment`",
        },
        Case {
            replace: ("model =", "modle ="),
            sets: &[],
            expected: "unknown key `modle` at line 1, did you mean `model`?",
        },
        Case {
            replace: ("[freeze]", "[frezee]"),
            sets: &[],
            expected: "unknown key `frezee` at line 18, did you mean `freeze`?",
        },
        Case {
            replace: NONE,
            sets: &["run.epoch=3"],
            expected: "unknown key `epoch` in [run] given with --set, did you mean `epochs`?",
        },
        Case {
            replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_mim = 0.1"),
            sets: &[],
            expected: "unknown key `lr_mim` in [schedule] at line 18, did you mean `lr_min`?",
        },
        Case { replace: ("train = \"train.npz\"", ""), sets: &[], expected: "missing key `train` in [data]" },
        Case { replace: ("model = \"model.onnx\"", ""), sets: &[], expected: "missing key `model`" },
        Case { replace: ("[run]", "[rum]"), sets: &[], expected: "unknown key `rum` at line 23, did you mean `run`?" },
        Case {
            replace: ("[run]\nepochs = 10\ndevice = \"cpu\"\ndir = \"runs/first\"", ""),
            sets: &[],
            expected: "missing section [run]",
        },
        Case { replace: NONE, sets: &["schedule={}"], expected: "missing key `kind` in [schedule]" },
        Case { replace: NONE, sets: &["schedule.kind=step"], expected: "missing key `step_size` in [schedule]" },
        Case {
            replace: ("epochs = 10", "epochs = \"ten\""),
            sets: &[],
            expected: "key `run.epochs` at line 24: expected a whole number of 0 or more, found string \"ten\"",
        },
        Case {
            replace: ("epochs = 10", "epochs = 10.0"),
            sets: &[],
            expected: "key `run.epochs` at line 24: expected a whole number of 0 or more, found number 10.0",
        },
        Case {
            replace: NONE,
            sets: &["data.batch=-4"],
            expected: "key `data.batch` given with --set: expected a whole number of 0 or more, found integer -4",
        },
        Case {
            replace: ("inputs = { x = \"images\" }", "inputs = { x = 3 }"),
            sets: &[],
            expected: "key `data.inputs.x` at line 5: expected a column or an array of columns, found integer 3",
        },
        Case {
            replace: ("inputs = { x = \"images\" }", "inputs = \"images\""),
            sets: &[],
            expected: "key `data.inputs` at line 5: expected a table, found string \"images\"",
        },
        Case {
            replace: ("inputs = { x = \"images\" }", "inputs = {}"),
            sets: &[],
            expected: "key `data.inputs` at line 5: expected a column for each model input",
        },
        Case {
            replace: ("model = \"model.onnx\"", "model = 2024-01-01"),
            sets: &[],
            expected: "key `model` at line 1: expected a string, found date or time",
        },
        Case {
            replace: ("[loss]\nkind = \"cross-entropy\"", ""),
            sets: &["loss=3"],
            expected: "key `loss` given with --set: expected a table, found integer 3",
        },
        Case {
            replace: NONE,
            sets: &["data.shuffle=yes"],
            expected: "key `data.shuffle` given with --set: expected true or false, found string \"yes\"",
        },
        Case {
            replace: NONE,
            sets: &["data.last_batch=dorp"],
            expected: "key `data.last_batch` given with --set: unknown value \"dorp\", did you mean \"drop\"?",
        },
        Case {
            replace: ("kind = \"cosine\"", "kind = \"cosines\""),
            sets: &[],
            expected: "key `schedule.kind` at line 17: unknown value \"cosines\", did you mean \"cosine\"?",
        },
        Case {
            replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_min = \"small\""),
            sets: &[],
            expected: "key `schedule.lr_min` at line 18: expected a number, found string \"small\"",
        },
        Case {
            replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_min = -1"),
            sets: &[],
            expected: "key `schedule.lr_min` at line 18: expected 0 or more, found -1",
        },
        Case {
            replace: ("device = \"cpu\"", "device = \"gpu\""),
            sets: &[],
            expected: "key `run.device` at line 25: expected \"cpu\", \"cuda\" or \"cuda:N\", found \"gpu\"",
        },
        Case {
            replace: NONE,
            sets: &["run.epochs=0"],
            expected: "key `run.epochs` given with --set: expected 1 or more, found 0",
        },
        Case { replace: ("batch = 64", "batch = "), sets: &[], expected: "line 7: " },
        Case { replace: ("seed = 0", "batch = 3"), sets: &[], expected: "line 8: duplicate key" },
        Case { replace: ("seed = 0", "seed = 99999999999999999999"), sets: &[], expected: "line 8: " },
    ];
    for case in cases {
        let text = DESIGN.replacen(case.replace.0, case.replace.1, 1);
        let found = parse(&text, case.sets).expect_err(case.expected);
        let expected = format!("/jobs/a/job.toml: {}", case.expected);
        assert!(found == expected || case.expected.starts_with("line") && found.starts_with(&expected), "{found}");
    }
    for (set, expected) in [
        ("run.epochs", "--set run.epochs: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE, with a key such as run.epochs"),
        ("model.name=3", "--set model.name=3: `model` is no section"),
    ] {
        assert_eq!(parse(DESIGN, &[set]).unwrap_err(), expected);
    }
}

#[test]
fn pictures_and_what_is_random_about_them_are_read_and_written() {
    let text = DESIGN.replace(
        "[loss]",
        "[data.image]\nresize = 256\ncrop = [224, 192]\nnormalise = \"imagenet\"\nclasses = [\"a\", \"b\"]\n[data.augment]\n\
         random_resized_crop = {}\nhorizontal_flip = 0.5\nerasing = { probability = 0.25 }\nmixup = 0.2\n[loss]",
    );
    let job = parse(&text, &["data.augment.vertical_flip=0.25"]).unwrap();
    let (image, augment) = (job.data.image.clone().unwrap(), job.data.augment.clone().unwrap());
    assert_eq!(image.resize, Some(crate::data::Extent::Side(256)));
    assert_eq!(image.crop, Some(crate::data::Extent::Exact(224, 192)));
    assert_eq!(augment.random_resized_crop, Some(crate::data::RandomResizedCrop::default()));
    assert_eq!((augment.vertical_flip, augment.erasing.unwrap().scale), (0.25, [0.02, 0.33]));
    let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
    assert_eq!(again.data, job.data);
    let plain = text.replace("normalise = \"imagenet\"\n", "");
    let error = parse(&plain, &["data.image.std=[0.5, 0, 1]"]).unwrap_err();
    assert!(
        error.contains("key `data.image.std` given with --set: expected finite numbers above 0, found 0"),
        "{error}"
    );
    for (key, value, expected) in [
        ("image.crop", "0", "key `data.image.crop` given with --set: expected sizes of 1 or more, found 0"),
        ("image.crop", "[1, 2, 3]", "expected [height, width], found 3 numbers"),
        (
            "image.crop",
            "-3",
            "key `data.image.crop` given with --set: expected a number of pixels, or [height, width], found",
        ),
        ("image.mean", "[0.5]", "key `data.image.normalise` at line"),
        ("image.channels", "2", "expected 1 or 3, found 2"),
        ("image.dtype", "uint8", "\"uint8\" takes no mean, std or normalise"),
        ("image.classes", "[\"a\", \"a\"]", "names \"a\" twice"),
        ("image.colour", "3", "unknown key `colour` in [data.image]"),
        ("augment.horizontal_flip", "1.5", "expected a probability in [0, 1], found 1.5"),
        ("augment.brightness", "-1", "expected a number of 0 or more, found -1"),
        ("augment.mixup", "0", "expected a number above 0, found 0"),
        ("augment.random_crop", "{padding=4}", "stands beside random_resized_crop"),
        (
            "augment.random_resized_crop",
            "{scale=[0.5, 2.0]}",
            "expected scale = [low, high] in (0, 1], found [0.5, 2.0]",
        ),
        ("augment.erasing", "{ratio=[2.0, 1.0]}", "expected ratio = [low, high] above 0, found [2.0, 1.0]"),
        ("augment.erasing", "{probability=2.0}", "expected a probability in [0, 1], found 2"),
    ] {
        let error = parse(&text, &[&format!("data.{key}={value}")]).unwrap_err();
        assert!(error.contains(expected), "{key}={value}: {error}");
    }
}

#[test]
fn what_is_evaluated_and_which_rate_follows() {
    let text = r#"eval={ metrics = ["top-5", "f1-macro"], every = 2, best = "r2",
        early_stopping = { metric = "train-loss", patience = 3 } }"#;
    let job = parse(DESIGN, &[text, "schedule={ kind = \"one-cycle\", per = \"epoch\" }"]).unwrap();
    let names: Vec<String> = job.eval.metrics.iter().flatten().map(Metric::name).collect();
    assert_eq!((names.as_slice(), job.eval.every), (["top_5".to_string(), "f1_macro".to_string()].as_slice(), 2));
    assert_eq!(job.eval.early_stopping.as_ref().map(|early| (early.patience, early.min_delta)), Some((3, 0.0)));
    let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
    assert_eq!((&again.eval, &again.schedule), (&job.eval, &job.schedule));
    assert_eq!(parse(DESIGN, &[]).unwrap().eval, Evaluation::default());
}

#[test]
fn what_is_wrong_with_the_evaluation_or_the_schedule_names_its_key() {
    let without_eval = DESIGN.replace("eval  = \"eval.npz\"\n", "");
    let cases = [
        (
            "eval.metrics=[\"loss\", \"f2\"]",
            "key `eval.metrics.1` given with --set: unknown metric \"f2\", did you mean \"r2\"?",
        ),
        ("eval.metrics=[\"train_loss\"]", "key `eval.metrics` given with --set: train_loss is told with every epoch"),
        ("eval.metrics=accuracy", "key `eval.metrics` given with --set: expected an array, found string \"accuracy\""),
        ("eval.every=0", "key `eval.every` given with --set: expected 1 or more, found 0"),
        (
            "eval.best=per_class",
            "key `eval.best` given with --set: expected a metric of one number, found \"per_class\"",
        ),
        (
            "eval.early_stopping={metric=\"confusion\",patience=1}",
            "key `eval.early_stopping.metric` given with --set: expected a metric of one number",
        ),
        (
            "eval.early_stopping={metric=\"loss\",patience=0}",
            "key `eval.early_stopping.patience` given with --set: expected 1 or more, found 0",
        ),
        (
            "eval.early_stopping={metric=\"loss\",patience=1,min_delta=-0.5}",
            "key `eval.early_stopping.min_delta` given with --set: expected 0 or more, found -0.5",
        ),
        (
            "eval.early_stopping={metric=\"loss\",patience=1,mode=\"min\"}",
            "unknown key `mode` in [eval.early_stopping] given with --set, known are `metric`, `patience`, `min_delta`",
        ),
        ("schedule={kind=\"one-cycle\",pct_start=2}", "key `schedule.pct_start` given with --set: expected a fraction"),
        (
            "schedule={kind=\"plateau\",per=\"step\"}",
            "unknown key `per` in [schedule] given with --set, known are `metric`, `factor`",
        ),
        ("schedule={kind=\"exponential\"}", "missing key `gamma` in [schedule]"),
        ("schedule={kind=\"plateau\",metric=\"los\"}", "unknown metric \"los\", did you mean \"loss\"?"),
    ];
    for (set, expected) in cases {
        let error = parse(DESIGN, &[set]).expect_err(set);
        assert!(error.contains(expected), "{set}: {error}");
    }
    let cases = [
        (
            "eval.metrics=[\"f1_macro\"]",
            "key `eval.metrics` given with --set: the job has no data.eval to take them of",
        ),
        ("eval.best=accuracy", "key `eval.best` given with --set: the job has no data.eval to take \"accuracy\" of"),
        (
            "schedule={kind=\"plateau\"}",
            "key `schedule.metric` given with --set: the job has no data.eval to take \"loss\"",
        ),
    ];
    for (set, expected) in cases {
        let error = parse(&without_eval, &[set]).expect_err(set);
        assert!(error.contains(expected), "{set}: {error}");
        let training =
            set.replace("accuracy", "train_loss").replace("\"plateau\"", "\"plateau\",metric=\"train_loss\"");
        assert_eq!(parse(&without_eval, &[&training]).is_ok(), !set.contains("metrics"), "{training}");
    }
}

#[test]
fn the_precision_goes_with_the_device() {
    use crate::runner::Precision;
    use crate::runner::precision::{Keep, LossScale, ScaleMode};
    let job = parse(DESIGN, &["run.device=cuda", "run.precision=fp16", "run.loss_scale={ init = 1024.0 }"]).unwrap();
    assert_eq!(job.run.precision, Precision::Fp16);
    assert_eq!(job.run.loss_scale, Some(LossScale { init: 1024.0, ..LossScale::default() }));
    assert!(job.run.is_scaled() && job.run.computing(Keep::default()).scale == job.run.loss_scale);
    let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
    assert_eq!(again.run, job.run);
    let job = parse(DESIGN, &["run.device=cuda", "run.precision=bf16", "run.keep_float32=[\"fc\"]"]).unwrap();
    assert!(!job.run.is_scaled() && job.run.computing(Keep::default()).scale.is_none());
    let off = ["run.device=cuda", "run.precision=fp16", "run.loss_scale.mode=off"];
    let off = parse(DESIGN, &off).unwrap().run;
    assert!(!off.is_scaled() && off.loss_scale.unwrap().mode == ScaleMode::Off);
    assert_eq!(parse(DESIGN, &[]).unwrap().run.precision, Precision::Fp32);
    let cases: [(&[&str], &str); 8] = [
        (
            &["run.precision=bf16"],
            "key `run.precision` given with --set: expected \"fp32\" on device \"cpu\", found \"bf16\"",
        ),
        (&["run.precision=tf32"], "expected \"fp32\" on device \"cpu\", found \"tf32\""),
        (&["run.device=cuda", "run.precision=fp8"], "key `run.precision` given with --set: unknown value \"fp8\""),
        (
            &["run.keep_float32=[\"fc\"]"],
            "key `run.keep_float32` given with --set: goes with precision \"bf16\" or \"fp16\", found \"fp32\"",
        ),
        (
            &["run.device=cuda", "run.precision=bf16", "run.loss_scale.init=2.0"],
            "goes with precision \"fp16\", found \"bf16\"",
        ),
        (
            &["run.device=cuda", "run.precision=fp16", "run.loss_scale.init=0.5"],
            "key `run.loss_scale.init` given with --set: expected 1 or more, in float32, found 0.5",
        ),
        (
            &["run.device=cuda", "run.precision=fp16", "run.loss_scale.backoff=1.0"],
            "expected a number between 0 and 1, found 1",
        ),
        (
            &["run.device=cuda", "run.precision=fp16", "run.loss_scale.grow=2.0"],
            "unknown key `grow` in [run.loss_scale] given with --set, did you mean `growth`?",
        ),
    ];
    for (sets, expected) in cases {
        let error = parse(DESIGN, sets).unwrap_err();
        assert!(error.contains(expected), "{sets:?}: {error}");
    }
    let error = parse(&DESIGN.replace("device = \"cpu\"", "precision = \"fp16\""), &[]).unwrap_err();
    assert!(error.contains("key `run.precision` at line 25"), "{error}");
}
