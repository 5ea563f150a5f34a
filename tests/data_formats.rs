//! Formats that are not images: what is read is what pandas, pyarrow and tokenizers wrote, and training on it is, bit for
//! bit, training on the same numbers in an `.npz` file.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::fixture;
use freeze_plan::data::{
    DataError, DataOptions, Dataset, Files, Normalize, Number, Selection, Side, TextOptions, Wish, read_tensors,
};
use freeze_plan::graph::{DType, Tensor};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    fixture("data").join(name)
}

fn golden(name: &str) -> BTreeMap<String, Tensor> {
    read_tensors(&data(name), None).unwrap().into_iter().collect()
}

/// The selection of the five numbers of a table.
fn numbers() -> Selection {
    Selection::Several(["age", "height", "v_*"].map(str::to_string).to_vec())
}

fn all(dataset: &Dataset, selection: &Selection, options: &DataOptions) -> Result<Tensor, DataError> {
    let wish = Wish { selection, dtype: Some(DType::F32) };
    dataset.derive(options, &[wish])?.values(&selection.to_string())
}

#[test]
fn tables_hold_what_pandas_wrote() {
    let expected = golden("table.npz");
    let mut options = DataOptions { classes: [("species".to_string(), Vec::new())].into(), ..DataOptions::default() };
    for name in ["table.csv", "table.jsonl", "table.parquet", "table.feather"] {
        let dataset = Dataset::open(&data(name), &options, None).unwrap();
        assert_eq!(all(&dataset, &numbers(), &options).unwrap(), expected["x"], "{name}");
        assert_eq!(dataset.values("species").unwrap(), expected["labels"], "{name}");
        assert_eq!(dataset.values("member").unwrap(), expected["member"], "{name}");
        let species = dataset.position("species").unwrap();
        assert_eq!(dataset.source().classes(species).unwrap(), ["setosa", "versicolor", "virginica"], "{name}");
        if !name.starts_with("table.csv") && !name.starts_with("table.jsonl") {
            assert_eq!(dataset.values("x").unwrap(), expected["x"], "{name}");
        }
    }
    options.types.insert("age".into(), Number::Float64);
    let dataset = Dataset::open(&data("table.parquet"), &options, None).unwrap();
    let ages = all(&dataset, &Selection::from("age"), &options).unwrap();
    let first = expected["x"].to_f64s().unwrap().into_iter().step_by(5);
    assert_eq!((ages.dtype(), ages.to_f64s().unwrap()), (DType::F64, first.collect()));
    let error = all(&dataset, &numbers(), &options).unwrap_err().to_string();
    assert!(error.ends_with("column \"height\" is float32, and \"age\", which it is joined with, float64; [data.types] can make them one"), "{error}");
}

#[test]
fn every_type_is_read_from_arrow() {
    let expected = golden("types.npz");
    let options = DataOptions { classes: [("words".to_string(), Vec::new())].into(), ..DataOptions::default() };
    for name in ["types.parquet", "types.feather"] {
        let dataset = Dataset::open(&data(name), &options, None).unwrap();
        assert_eq!(dataset.columns().len(), expected.len(), "{name}");
        for (column, expected) in &expected {
            assert_eq!(&dataset.values(column).unwrap(), expected, "{name}: {column}");
        }
        let error = Dataset::open(&data(name), &DataOptions::default(), Some(&["words"])).unwrap_err().to_string();
        assert!(error.contains("column \"words\" holds text, expected numbers; [data.classes]"), "{error}");
    }
}

#[test]
fn normalised_columns_have_the_mean_and_deviation_that_numpy_finds() {
    let expected = golden("table.npz");
    for name in ["table.csv", "table.parquet"] {
        let mut options = DataOptions {
            normalize: Some(Normalize {
                columns: vec!["age".into(), "height".into(), "v_?".into()],
                ..Normalize::default()
            }),
            ..DataOptions::default()
        };
        let dataset = Dataset::open(&data(name), &options, Some(&["age", "height", "v_*"])).unwrap();
        assert!(all(&dataset, &numbers(), &options).unwrap_err().to_string().contains("has no entry for it"));
        dataset.learn(&mut options).unwrap();
        let found = &options.normalize.as_ref().unwrap().statistics;
        let (mean, std) = (expected["mean"].to_f64s().unwrap(), expected["std"].to_f64s().unwrap());
        for (place, column) in ["age", "height", "v_0", "v_1", "v_2"].into_iter().enumerate() {
            assert!((found[column].mean[0] - mean[place]).abs() < 1e-9, "{name}: {column}");
            assert!((found[column].std[0] - std[place]).abs() < 1e-9, "{name}: {column}");
        }
        let scaled = all(&dataset, &numbers(), &options).unwrap().to_f64s().unwrap();
        let worst = scaled.iter().zip(expected["scaled"].to_f64s().unwrap()).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f64::max) < 1e-6, "{name}");
    }
}

fn text_options(tokenizer: &str) -> TextOptions {
    let file = data(tokenizer);
    serde_json::from_value(serde_json::json!({ "tokenizer": file, "length": 16 })).unwrap()
}

fn texts(text: TextOptions) -> Dataset {
    let options = DataOptions { text: Some(text), ..DataOptions::default() };
    let columns = ["input_ids", "attention_mask", "labels"];
    let more = ["token_type_ids", "position_ids", "label", "v", "weight"];
    let columns = [&columns[..], if options.text.as_ref().unwrap().packing { &[] } else { &more[..] }].concat();
    Dataset::open(&data("texts.jsonl"), &options, Some(&columns)).unwrap()
}

#[test]
fn texts_have_the_tokens_that_tokenizers_gives_them() {
    let expected = golden("texts.npz");
    let gpt =
        TextOptions { pad: Some("<|endoftext|>".into()), padding_side: Some(Side::Left), ..text_options("gpt.json") };
    let cases = [
        ("single", text_options("bert.json")),
        ("pair", TextOptions { pair: Some("other".into()), ..text_options("bert.json") }),
        ("bare", TextOptions { special_tokens: false, ..text_options("bert.json") }),
        ("left", gpt),
    ];
    for (name, options) in cases {
        let dataset = texts(options);
        for (column, part) in [("input_ids", "ids"), ("attention_mask", "mask"), ("token_type_ids", "types")] {
            assert_eq!(dataset.values(column).unwrap(), expected[&format!("{name}.{part}")], "{name}: {column}");
        }
        assert_eq!(dataset.values("label").unwrap(), Tensor::ints(&[0, 1, 2, 0, 1, 2, 0, 1]));
        assert_eq!(dataset.column("v").unwrap().shape, [2]);
    }
    let (ids, mask) = (expected["left.ids"].to_ints().unwrap(), expected["left.mask"].to_ints().unwrap());
    let same: Vec<i64> = ids.iter().zip(&mask).map(|(id, mask)| if *mask == 1 { *id } else { -100 }).collect();
    let next: Vec<i64> = same.chunks(16).flat_map(|row| [&row[1..], &[-100]].concat()).collect();
    let base =
        TextOptions { pad: Some("<|endoftext|>".into()), padding_side: Some(Side::Left), ..text_options("gpt.json") };
    assert_eq!(texts(base.clone()).values("labels").unwrap().to_ints().unwrap(), next);
    let unshifted = texts(TextOptions { shift: false, ..base });
    assert_eq!(unshifted.values("labels").unwrap().to_ints().unwrap(), same);
    let positions = unshifted.values("position_ids").unwrap().to_ints().unwrap();
    let before = |place: usize| mask[..=place].iter().sum::<i64>().max(1) - 1;
    assert_eq!(positions[..16], (0..16).map(before).collect::<Vec<i64>>());
}

#[test]
fn packed_texts_are_the_stream_of_their_documents() {
    let stream = golden("texts.npz")["stream"].to_ints().unwrap();
    let packing = |stride| TextOptions { packing: true, stride, ..text_options("gpt.json") };
    for stride in [None, Some(5)] {
        let dataset = texts(packing(stride));
        let step = stride.unwrap_or(16);
        assert_eq!(dataset.rows(), (stream.len() - 17) / step + 1);
        let starts = || (0..dataset.rows()).map(|row| row * step);
        let ids: Vec<i64> = starts().flat_map(|start| stream[start..start + 16].to_vec()).collect();
        let labels: Vec<i64> = starts().flat_map(|start| stream[start + 1..start + 17].to_vec()).collect();
        assert_eq!(dataset.values("input_ids").unwrap().to_ints().unwrap(), ids);
        assert_eq!(dataset.values("labels").unwrap().to_ints().unwrap(), labels);
    }
}

/// Writes an array as numpy does.
fn npy(tensor: &Tensor) -> Vec<u8> {
    let dtype = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::I64 => "<i8",
        other => panic!("{other} is not written here"),
    };
    let dims: String = tensor.shape().iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), tensor.bytes()].concat()
}

fn npz(path: &Path, columns: &[(&str, &Tensor)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, tensor) in columns {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&npy(tensor)).unwrap();
    }
    archive.finish().unwrap();
}

/// Trains a model in a folder and returns the losses of all steps, the metrics of all epochs and the trained model.
fn train(folder: &Path, model: &str, section: &str) -> (Vec<String>, Vec<u8>) {
    let job = job(folder, model, section);
    let output = freeze_plan(&["train", path(&job), "--no-plan", "--overwrite"]);
    assert!(output.status.success(), "{section}\n{}", text(&output.stderr));
    let run = folder.join("run");
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let numbers = events.lines().filter_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str()? {
            "step" => Some(event["loss"].to_string()),
            "epoch" => Some(event["metrics"].to_string()),
            _ => None,
        }
    });
    let numbers: Vec<String> = numbers.collect();
    assert!(numbers.len() >= 4, "{events}");
    (numbers, std::fs::read(run.join("model.onnx")).unwrap())
}

fn job(folder: &Path, model: &str, section: &str) -> PathBuf {
    std::fs::copy(data(&format!("{model}.onnx")), folder.join("model.onnx")).unwrap();
    let text = format!(
        "model = \"model.onnx\"\n[data]\nbatch = 4\n{section}\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\n\
         kind = \"adamw\"\nlr = 0.01\n[freeze]\npolicy = \"none\"\n[run]\nepochs = 2\ndir = \"run\"\nthreads = 1\nlog_every = 1\n"
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Copies fixtures into a folder.
fn copy(folder: &Path, names: &[&str]) {
    for name in names {
        std::fs::copy(data(name), folder.join(name)).unwrap();
    }
}

#[test]
fn tables_train_like_the_same_numbers_in_npz() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let expected = golden("table.npz");
    let (x, labels) = (&expected["x"], &expected["labels"]);
    npz(&folder.join("a.npz"), &[("x", x), ("labels", labels)]);
    let plain = |files: &str| format!("train = {files}\neval = {files}\ninputs = {{ x = \"x\" }}\ntarget = \"labels\"");
    let reference = train(folder, "mlp", &plain("\"a.npz\""));
    let half = |tensor: &Tensor, from: usize| {
        let width = tensor.len() / 24 * tensor.dtype().size();
        let shape = [&[12], &tensor.shape()[1..]].concat();
        Tensor::new(tensor.dtype(), shape, tensor.bytes().slice(from * width..(from + 12) * width)).unwrap()
    };
    npz(&folder.join("p1.npz"), &[("x", &half(x, 0)), ("labels", &half(labels, 0))]);
    npz(&folder.join("p2.npz"), &[("labels", &half(labels, 12)), ("x", &half(x, 12))]);
    std::fs::write(folder.join("x.npy"), npy(x)).unwrap();
    std::fs::write(folder.join("y.npy"), npy(labels)).unwrap();
    copy(folder, &["table.csv", "table.jsonl", "table.parquet", "table.feather"]);
    let tabs = std::fs::read_to_string(data("table.csv")).unwrap().replace(',', "\t");
    std::fs::write(folder.join("table.tsv"), tabs).unwrap();
    let table = |name: &str, x: &str| {
        format!("train = \"{name}\"\neval = \"{name}\"\ninputs = {{ x = {x} }}\ntarget = \"species\"")
    };
    let columns = r#"["age", "height", "v_*"]"#;
    let sections = [
        plain("[\"p1.npz\", \"p2.npz\"]"),
        plain("\"p?.npz\""),
        plain("{ x = \"x.npy\", labels = \"y.npy\" }"),
        plain("{ x = \"x.npy\", labels = \"a.npz\" }"),
        table("table.csv", columns),
        table("table.tsv", columns),
        table("table.jsonl", columns),
        table("table.parquet", columns),
        table("table.parquet", "\"x\""),
        table("table.feather", columns),
        table("table.feather", "\"x\""),
        format!("{}\nworkers = 3", table("table.parquet", columns)),
        format!("{}\ncache_dir = \".\"", table("table.parquet", columns)),
    ];
    for section in sections {
        assert!(train(folder, "mlp", &section) == reference, "{section}");
    }
    let resolved = std::fs::read_to_string(folder.join("run/job.toml")).unwrap();
    assert!(resolved.contains("species = [\"setosa\", \"versicolor\", \"virginica\"]"), "{resolved}");
    let other = plain("\"a.npz\"").replace("train =", "seed = 1\ntrain =");
    assert!(train(folder, "mlp", &other) != reference, "another order gives other losses");
}

#[test]
fn what_is_known_of_the_training_data_serves_evaluation_and_the_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let csv = std::fs::read_to_string(data("table.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    std::fs::write(folder.join("train.csv"), lines.join("\n")).unwrap();
    let few: Vec<&str> = lines.iter().filter(|line| !line.contains("setosa")).copied().collect();
    std::fs::write(folder.join("eval.csv"), few.join("\n")).unwrap();
    let section = "train = \"train.csv\"\neval = \"eval.csv\"\ninputs = { x = [\"age\", \"height\", \"v_*\"] }\n\
                   target = \"species\"\nnormalize.columns = [\"age\", \"v_*\"]";
    let found = train(folder, "mlp", section);
    let resolved: toml::Table = std::fs::read_to_string(folder.join("run/job.toml")).unwrap().parse().unwrap();
    let statistics = &resolved["data"]["normalize"]["statistics"];
    let of = |column: &str, what: &str| statistics[column][what][0].as_float().unwrap();
    let expected = golden("table.npz");
    let scaled = |row: usize| {
        let values = &expected["x"].to_f64s().unwrap()[row * 5..row * 5 + 5];
        let wide = lines[row + 1].split(',').take(5).map(|field| field.parse::<f32>().unwrap());
        assert!(values.iter().zip(wide.clone()).all(|(a, b)| *a == f64::from(b)));
        let names = ["age", "height", "v_0", "v_1", "v_2"];
        let scale = |(name, value): (&str, f32)| match name {
            "height" => value,
            _ => ((f64::from(value) - of(name, "mean")) / of(name, "std")) as f32,
        };
        names.into_iter().zip(wide).map(scale).collect::<Vec<f32>>()
    };
    let labels = expected["labels"].to_ints().unwrap();
    let write = |name: &str, rows: &[usize]| {
        let x = rows.iter().flat_map(|row| scaled(*row)).collect();
        let labels: Vec<i64> = rows.iter().map(|row| labels[*row]).collect();
        npz(&folder.join(name), &[("x", &Tensor::from_vec(&[rows.len(), 5], x)), ("labels", &Tensor::ints(&labels))]);
    };
    let rows: Vec<usize> = (0..24).collect();
    write("train.npz", &rows);
    write("eval.npz", &rows.into_iter().filter(|row| labels[*row] != 0).collect::<Vec<usize>>());
    let plain = "train = \"train.npz\"\neval = \"eval.npz\"\ninputs = { x = \"x\" }\ntarget = \"labels\"";
    assert!(train(folder, "mlp", plain) == found);
    std::fs::write(folder.join("eval.csv"), csv.replacen("setosa", "rosa", 1)).unwrap();
    let error = fails(&["train", path(&job(folder, "mlp", section)), "--overwrite"], 1);
    assert!(error.contains("eval.csv: column \"species\" row"), "{error}");
    assert!(error.ends_with("holds \"rosa\", expected \"setosa\", \"versicolor\", \"virginica\""), "{error}");
}

#[test]
fn token_ids_train_like_the_same_blocks_in_npz() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stream = golden("texts.npz")["stream"].to_ints().unwrap();
    let rows = (stream.len() - 9) / 8 + 1;
    let block = |from: usize| {
        let ids = (0..rows).flat_map(|row| stream[row * 8 + from..row * 8 + from + 8].to_vec()).collect();
        Tensor::from_vec(&[rows, 8], ids)
    };
    npz(&folder.join("a.npz"), &[("input_ids", &block(0)), ("labels", &block(1))]);
    let narrow =
        |width: usize| -> Vec<u8> { stream.iter().flat_map(|id| id.to_le_bytes()[..width].to_vec()).collect() };
    for (name, width) in [("a.bin", 2), ("a.u32", 4), ("a.tokens", 8)] {
        std::fs::write(folder.join(name), narrow(width)).unwrap();
    }
    std::fs::write(folder.join("ids.npy"), npy(&Tensor::ints(&stream))).unwrap();
    copy(folder, &["texts.jsonl", "gpt.json"]);
    let section = |name: &str, more: &str| {
        format!("train = \"{name}\"\ninputs = {{ input_ids = \"input_ids\" }}\ntarget = \"labels\"\n{more}")
    };
    let reference = train(folder, "lm", &section("a.npz", ""));
    let sections = [
        section("a.bin", "tokens.block = 8"),
        section("a.u32", "tokens = { block = 8, stride = 8 }"),
        section("a.tokens", "tokens = { block = 8, dtype = \"i64\" }"),
        section("ids.npy", "tokens.block = 8"),
        section("texts.jsonl", "text = { tokenizer = \"gpt.json\", length = 8, packing = true }"),
    ];
    for section in sections {
        assert!(train(folder, "lm", &section) == reference, "{section}");
    }
    std::fs::write(folder.join("a.bin"), [0, 1, 200, 0].repeat(8)).unwrap();
    let error = fails(&["train", path(&job(folder, "lm", &section("a.bin", "tokens.block = 8"))), "--overwrite"], 1);
    assert!(error.contains("column \"labels\": row 0 (from 0) holds label 200"), "{error}");
}

#[test]
fn texts_train_like_the_same_ids_in_npz() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let expected = golden("texts.npz");
    let (ids, mask) = (expected["single.ids"].to_ints().unwrap(), expected["single.mask"].to_ints().unwrap());
    let labels = ids.iter().zip(&mask).map(|(id, mask)| if *mask == 1 { *id } else { -100 }).collect::<Vec<i64>>();
    let labels = labels.chunks(16).flat_map(|row| [&row[1..], &[-100]].concat()).collect();
    let labels = Tensor::from_vec(&[8, 16], labels);
    npz(&folder.join("a.npz"), &[("input_ids", &expected["single.ids"]), ("labels", &labels)]);
    copy(folder, &["texts.jsonl", "bert.json"]);
    let section = |name: &str, more: &str| {
        format!("train = \"{name}\"\ninputs = {{ input_ids = \"input_ids\" }}\ntarget = \"labels\"\n{more}")
    };
    let reference = train(folder, "lm", &section("a.npz", ""));
    let text = "text = { tokenizer = \"bert.json\", length = 16 }";
    for more in [text.to_string(), format!("{text}\nworkers = 2"), format!("{text}\nworkers = 0")] {
        assert!(train(folder, "lm", &section("texts.jsonl", &more)) == reference, "{more}");
    }
    let short = "text = { tokenizer = \"bert.json\", length = 16, truncation = false }";
    let error = fails(&["train", path(&job(folder, "lm", &section("texts.jsonl", short))), "--overwrite"], 1);
    assert!(error.contains("texts.jsonl: line ") && error.contains("tokens, expected 16 at most"), "{error}");
}

#[test]
fn what_is_wrong_is_named_by_file_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let x = Tensor::from_vec(&[2, 5], vec![0f32; 10]);
    npz(&folder.join("two.npz"), &[("x", &x), ("labels", &Tensor::ints(&[0, 1]))]);
    npz(&folder.join("wide.npz"), &[("x", &Tensor::from_vec(&[1, 6], vec![0f32; 6])), ("labels", &Tensor::ints(&[0]))]);
    std::fs::write(folder.join("three.npy"), npy(&Tensor::ints(&[0, 1, 2]))).unwrap();
    std::fs::write(folder.join("gap.csv"), "a,b\n1,0\n,1\n").unwrap();
    std::fs::write(folder.join("gap.jsonl"), "{\"a\": [1, 2], \"b\": 0}\n\n{\"a\": [1], \"b\": 1}\n").unwrap();
    std::fs::write(folder.join("broken.jsonl"), "{\"a\": 1, \"b\": 0}\n{\"a\": \n").unwrap();
    std::fs::write(folder.join("none.parquet"), "no table").unwrap();
    std::fs::write(folder.join("none.arrow"), "no table").unwrap();
    let (ok, ab) = ("inputs = { x = \"x\" }\ntarget = \"labels\"", "inputs = { x = \"a\" }\ntarget = \"b\"");
    let cases = [
        ("[\"two.npz\", \"wide.npz\"]", ok, "wide.npz: column \"x\" is float32[6], and"),
        ("\"*.none\"", ok, "*.none matches no file"),
        ("{ x = \"two.npz\", labels = \"three.npy\" }", ok, "column \"labels\" has 3 rows and column \"x\" has 2"),
        ("{ x = \"two.npz\" }", ok, "two.npz has no column \"labels\"; it has \"x\""),
        ("\"gap.csv\"", ab, "gap.csv: line 3, column \"a\": is empty, expected one"),
        (
            "\"gap.jsonl\"",
            ab,
            "gap.jsonl: line 3, column \"a\": holds a list of 1 elements, expected 2 as in the first row",
        ),
        ("\"broken.jsonl\"", ab, "broken.jsonl is no .jsonl file: line 2 is no JSON object"),
        ("\"none.parquet\"", ok, "none.parquet is no .parquet file: "),
        ("\"none.arrow\"", ok, "none.arrow is no Arrow IPC file: "),
    ];
    for (files, rest, expected) in cases {
        let error = fails(&["train", path(&job(folder, "mlp", &format!("train = {files}\n{rest}")))], 1);
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    let cases = [
        ("train = []", "key `data.train` at line 4: names no file"),
        (
            "train = 3",
            "key `data.train` at line 4: expected a path, an array of paths, or a table of a path for each column, found integer 3",
        ),
        ("train = \"a.bin\"\ntokens.block = 0", "key `data.tokens.block` at line 5: expected 1 or more, found 0"),
        ("train = \"a.bin\"\ntokens.blok = 1", "unknown key `blok` in [data.tokens] at line 5, did you mean `block`?"),
        ("train = \"a.csv\"\ncsv.delimiter = \"é\"", "key `data.csv.delimiter` at line 5: expected an ASCII character"),
    ];
    for (section, expected) in cases {
        let error = fails(&["train", path(&job(folder, "mlp", &format!("{section}\n{ok}")))], 2);
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    assert!(!folder.join("run").exists());
    assert_eq!(Files::from(Path::new("a.npz")).to_string(), "a.npz");
}
