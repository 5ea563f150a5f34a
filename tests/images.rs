//! Whole runs of the program on pictures: folders, idx and CIFAR files, arrays; augmented and mixed.

use crate::cli::{fails, freeze_plan, path, text};
use crate::engines::fixture;
use freeze_plan::data::Dataset;
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use freeze_plan::onnx::to_bytes;
use image::{ExtendedColorType, ImageEncoder, codecs};
use std::path::Path;

/// Returns the first digits of the fixtures as bytes, 64 a digit, and their labels.
fn digits(file: &str, count: usize) -> (Vec<u8>, Vec<u8>) {
    let data = Dataset::open(&fixture("digits").join(file), &Default::default(), None).unwrap();
    let images = data.values("images").unwrap().to_vec::<f32>().unwrap();
    let top = images.iter().copied().fold(0.0, f32::max);
    let bytes = images.iter().take(64 * count).map(|value| (value / top * 255.0).round() as u8).collect();
    let labels = data.values("labels").unwrap().to_f64s().unwrap();
    (bytes, labels.into_iter().take(count).map(|label| label as u8).collect())
}

fn png(file: &Path, pixels: &[u8], size: u32, colour: ExtendedColorType) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let out = std::fs::File::create(file).unwrap();
    codecs::png::PngEncoder::new(out).write_image(pixels, size, size, colour).unwrap();
}

/// Writes digits as a folder of images.
fn digit_folder(folder: &Path, file: &str, count: usize) {
    let (pixels, labels) = digits(file, count);
    for (row, (pixels, label)) in pixels.chunks_exact(64).zip(labels).enumerate() {
        png(&folder.join(format!("{label}/{row:04}.png")), pixels, 8, ExtendedColorType::L8);
    }
}

/// Writes a job on the digits' model.
fn digit_job(folder: &Path, data: &str, loss: &str) -> String {
    std::fs::copy(fixture("digits/model.onnx"), folder.join("model.onnx")).unwrap();
    job(folder, data, loss)
}

fn job(folder: &Path, data: &str, loss: &str) -> String {
    let text = format!(
        "model = \"model.onnx\"\n[data]\ninputs = {{ x = \"images\" }}\ntarget = \"labels\"\nbatch = 16\nseed = 1\n{data}\n\
         [loss]\nkind = \"cross-entropy\"\n{loss}\n[optimizer]\nkind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\n\
         [freeze]\npolicy = \"none\"\n[run]\nepochs = 2\ndir = \"run\"\nlog_every = 1\nceiling_steps = 0\nthreads = 1\n"
    );
    let file = folder.join("job.toml");
    std::fs::write(&file, text).unwrap();
    path(&file).to_string()
}

/// A run's losses of steps, and its metrics after each epoch.
#[derive(Debug, PartialEq)]
struct Ran {
    losses: Vec<f64>,
    metrics: Vec<serde_json::Value>,
}

fn train(folder: &Path, job: &str, sets: &[&str]) -> Ran {
    let mut args = vec!["train", job, "--overwrite", "--no-plan"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = freeze_plan(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    ran(folder)
}

fn ran(folder: &Path) -> Ran {
    let events = std::fs::read_to_string(folder.join("run/events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &'static str| events.iter().filter(move |event| event["event"] == kind);
    Ran {
        losses: of("step").map(|event| event["loss"].as_f64().unwrap()).collect(),
        metrics: of("epoch").map(|event| event["metrics"].clone()).collect(),
    }
}

const AUGMENT: &str =
    "[data.augment]\nrandom_crop = { padding = 1 }\nbrightness = 0.3\nerasing = { probability = 0.3 }";

#[test]
fn a_folder_of_images_is_what_the_same_pixels_in_an_array_are() {
    let folder = tempfile::tempdir().unwrap();
    digit_folder(&folder.path().join("train"), "train.npz", 160);
    digit_folder(&folder.path().join("eval"), "eval.npz", 40);
    let data = "train = \"train\"\neval = \"eval\"";
    let image = "[data.image]\nchannels = 1\nmean = [0.3]\nstd = [0.4]";
    let job = digit_job(folder.path(), &format!("{data}\n{image}"), "");
    let plain = train(folder.path(), &job, &["data.workers=2"]);
    assert_eq!((plain.losses.len(), plain.metrics.len()), (20, 2));
    assert!(plain.losses[15..].iter().sum::<f64>() < 0.8 * plain.losses[..5].iter().sum::<f64>(), "{plain:?}");
    let written = std::fs::read_to_string(folder.path().join("run/job.toml")).unwrap();
    assert!(written.contains("classes = [\"0\", \"1\", \"2\""), "{written}");

    // The rows of a folder come class by class.
    for (name, file, count) in [("train", "train.npz", 160), ("eval", "eval.npz", 40)] {
        let (pixels, labels) = digits(file, count);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|row| labels[*row]);
        let pixels = order.iter().flat_map(|row| pixels[row * 64..(row + 1) * 64].to_vec()).collect();
        let labels = order.iter().map(|row| i64::from(labels[*row])).collect();
        let columns = [
            ("images", Tensor::from_vec::<u8>(&[count, 1, 8, 8], pixels)),
            ("labels", Tensor::from_vec::<i64>(&[count], labels)),
        ];
        safetensors(&folder.path().join(format!("{name}.safetensors")), &columns);
        for column in columns.iter().filter(|_| name == "train") {
            safetensors(&folder.path().join(format!("{}.safetensors", column.0)), std::slice::from_ref(column));
        }
    }
    let arrays = ["data.train=train.safetensors", "data.eval=eval.safetensors"];
    assert_eq!(train(folder.path(), &job, &arrays), plain);

    let job = digit_job(folder.path(), &format!("{data}\n{image}\n{AUGMENT}"), "");
    let augmented = train(folder.path(), &job, &["data.workers=0"]);
    assert_eq!(train(folder.path(), &job, &["data.workers=2", "data.prefetch=3"]), augmented);
    assert_eq!(train(folder.path(), &job, &[arrays[0]]), augmented);
    let side_by_side = "data.train={ images = \"images.safetensors\", labels = \"labels.safetensors\" }";
    assert_eq!(train(folder.path(), &job, &[side_by_side]), augmented);
    // The second epoch goes on where the first one was left, with other threads.
    train(folder.path(), &job, &["run.epochs=1", "data.workers=0"]);
    let output = freeze_plan(&["train", &job, "--resume", "--no-plan", "--set", "data.workers=3"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ran(folder.path()), augmented);
    assert!(augmented.losses.iter().zip(&plain.losses).all(|(a, b)| a != b), "{augmented:?}");
}

fn safetensors(file: &Path, columns: &[(&str, Tensor)]) {
    let dtype = |tensor: &Tensor| match tensor.dtype() {
        DType::U8 => safetensors::Dtype::U8,
        DType::I64 => safetensors::Dtype::I64,
        _ => safetensors::Dtype::F32,
    };
    let view = |tensor: &'static Tensor| {
        safetensors::tensor::TensorView::new(dtype(tensor), tensor.shape().to_vec(), tensor.bytes()).unwrap()
    };
    let columns: Vec<(&str, &'static Tensor)> =
        columns.iter().map(|(name, tensor)| (*name, &*Box::leak(Box::new(tensor.clone())))).collect();
    let views = columns.iter().map(|(name, tensor)| (*name, view(tensor)));
    safetensors::serialize_to_file(views, None, file).unwrap();
}

#[test]
fn idx_files_train_and_evaluate_on_their_parts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mnist")).unwrap();
    for (name, file, count) in [("train", "train.npz", 160_u32), ("t10k", "eval.npz", 40)] {
        let (pixels, labels) = digits(file, count as usize);
        let write = |kind: &str, shape: &[u32], values: &[u8]| {
            let mut data = vec![0, 0, 8, shape.len() as u8];
            shape.iter().for_each(|dim| data.extend(dim.to_be_bytes()));
            data.extend_from_slice(values);
            std::fs::write(folder.path().join(format!("mnist/{name}-{kind}-ubyte")), data).unwrap();
        };
        write("images-idx3", &[count, 8, 8], &pixels);
        write("labels-idx1", &[count], &labels);
    }
    let job = digit_job(folder.path(), "train = \"mnist\"\neval = \"mnist\"", "");
    let ran = train(folder.path(), &job, &[]);
    assert_eq!(ran.losses.len(), 20);
    assert!(ran.metrics[1]["accuracy"].as_f64().unwrap() > 0.3, "{ran:?}");
    let ran_named = train(folder.path(), &job, &["data.train=mnist/train", "data.eval=mnist/t10k"]);
    assert_eq!(ran_named, ran);
}

/// Writes a model of one linear layer on pictures.
fn linear(folder: &Path, channels: usize, side: usize, classes: usize) {
    let mut b = Builder::new("linear");
    let dims = [channels, side, side].map(Dim::Known);
    let x = b.input("x", Fact::new(DType::F32, [&[Dim::Symbol("N".into())], &dims[..]].concat()));
    let count = channels * side * side;
    let flat = b.op("Flatten", &[x], Attributes::none().with("axis", 1));
    let values = (0..count * classes).map(|place| ((place * 31 % 97) as f32 / 97.0 - 0.5) * 0.02).collect();
    let weight = b.initializer("fc.weight", Tensor::from_vec::<f32>(&[classes, count], values));
    let bias = b.initializer("fc.bias", Tensor::from_vec(&[classes], vec![0f32; classes]));
    let y = b.op("Gemm", &[flat, weight, bias], Attributes::none().with("transB", 1));
    b.output(y, "y");
    let model = Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
    std::fs::write(folder.join("model.onnx"), to_bytes(&model)).unwrap();
}

#[test]
fn cifar_files_train() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cifar")).unwrap();
    let records = |count: usize| -> Vec<u8> {
        let record = |row: usize| {
            let label = (row % 3) as u8;
            let pixel = |place: usize| {
                if place / 1024 == row % 3 { 200 + (row % 7) as u8 } else { (place % 50) as u8 }
            };
            [vec![label], (0..3072).map(pixel).collect()].concat()
        };
        (0..count).flat_map(record).collect()
    };
    for (name, count) in [("data_batch_1", 60), ("data_batch_2", 36), ("test_batch", 30)] {
        std::fs::write(folder.path().join(format!("cifar/{name}.bin")), records(count)).unwrap();
    }
    linear(folder.path(), 3, 32, 10);
    let data = "train = \"cifar\"\neval = \"cifar\"\n[data.image]\nmean = [0.5]\n[data.augment]\nrandom_crop = { padding = 4 }\nhorizontal_flip = 0.5";
    let job = job(folder.path(), data, "");
    let ran = train(folder.path(), &job, &["optimizer.lr=0.005"]);
    assert_eq!(ran.losses.len(), 12);
    assert!(ran.metrics[1]["accuracy"].as_f64().unwrap() > 0.9, "{ran:?}");
    assert!(ran.losses[11] < ran.losses[0], "{ran:?}");
}

/// Writes JPEG files whose class is their colour, of any size.
fn colour_folder(folder: &Path, names: &[&str], count: usize) {
    for name in names {
        let place = ["blue", "green", "red"].iter().position(|other| other == name).unwrap_or(0);
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for row in 0..count {
            let (width, height) = (20 + row as u32 % 5, 18 + row as u32 % 7);
            let pixel = |pixel: u32| {
                let mut colour = [(pixel % 40) as u8; 3];
                colour[2 - place] = 180 + (row as u8 % 50);
                colour
            };
            let pixels: Vec<u8> = (0..width * height).flat_map(pixel).collect();
            let out = std::fs::File::create(folder.join(name).join(format!("{row}.jpg"))).unwrap();
            let encoder = codecs::jpeg::JpegEncoder::new(out);
            encoder.write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
        }
    }
}

const CUT: &str = "[data.image]\nresize = 12\ncrop = 8\nnormalise = \"imagenet\"\n[data.augment]\nrandom_resized_crop = { scale = [0.5, 1.0] }\nsaturation = 0.2";

#[test]
fn photos_of_any_size_are_cut_and_wrong_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    colour_folder(&folder.path().join("train"), &["blue", "green", "red"], 24);
    colour_folder(&folder.path().join("eval"), &["red", "green"], 6);
    linear(folder.path(), 3, 8, 3);
    let job = job(folder.path(), &format!("train = \"train\"\neval = \"eval\"\nsampler = \"balanced\"\n{CUT}"), "");
    let ran = train(folder.path(), &job, &["optimizer.lr=0.01"]);
    assert_eq!(ran.losses.len(), 10);
    // Labels of red and green are 2 and 1 only where the classes are those of the training folder.
    assert!(ran.metrics[1]["accuracy"].as_f64().unwrap() > 0.9, "{ran:?}");

    let bad = folder.path().join("train/green/7.jpg");
    let data = std::fs::read(&bad).unwrap();
    std::fs::write(&bad, &data[..data.len() / 2]).unwrap();
    let error = fails(&["train", &job, "--overwrite"], 1);
    assert!(error.contains("green/7.jpg is no image that can be decoded: it ends before"), "{error}");
    std::fs::write(&bad, &data).unwrap();
    std::fs::rename(folder.path().join("eval/red"), folder.path().join("eval/rod")).unwrap();
    let error = fails(&["train", &job, "--overwrite"], 1);
    let expected = "eval/rod is no class, did you mean \"red\"?; the 3 classes are \"blue\", \"green\", \"red\"";
    assert!(error.contains(expected), "{error}");
    let error = fails(&["train", &job, "--overwrite", "--set", "data.image.crop=9"], 1);
    assert!(error.contains("expected float32[N,3,8,8], found float32[72,3,9,9]"), "{error}");
}

#[test]
fn mixed_rows_are_learnt_by_probabilities_and_judged_by_classes() {
    let folder = tempfile::tempdir().unwrap();
    let [train_rows, eval_rows] = ["train.npz", "eval.npz"].map(|file| digits(file, 160));
    for (name, (pixels, labels)) in [("train", &train_rows), ("eval", &eval_rows)] {
        let labels = labels.iter().map(|label| i64::from(*label)).collect();
        let columns = [
            ("images", Tensor::from_vec(&[160, 1, 8, 8], pixels.clone())),
            ("labels", Tensor::from_vec::<i64>(&[160], labels)),
        ];
        safetensors(&folder.path().join(format!("{name}.safetensors")), &columns);
        for column in columns.iter().filter(|_| name == "train") {
            safetensors(&folder.path().join(format!("{}.safetensors", column.0)), std::slice::from_ref(column));
        }
    }
    let data = "train = \"train.safetensors\"\neval = \"eval.safetensors\"\n[data.image]\n[data.augment]\nmixup = 0.2\ncutmix = 1.0";
    let soft = "target_kind = \"probabilities\"\nlabel_smoothing = 0.1";
    let job_file = digit_job(folder.path(), data, soft);
    let mixed = train(folder.path(), &job_file, &["run.epochs=6"]);
    assert!(mixed.metrics[5]["accuracy"].as_f64().unwrap() > 0.4, "{mixed:?}");
    assert_eq!(train(folder.path(), &job_file, &["run.epochs=6", "data.workers=2"]), mixed);

    // Rows that are probabilities already are what their indices are.
    let hot: Vec<f32> =
        eval_rows.1.iter().flat_map(|label| (0..10).map(move |class| f32::from(class == *label))).collect();
    let columns =
        [("images", Tensor::from_vec(&[160, 1, 8, 8], eval_rows.0)), ("labels", Tensor::from_vec(&[160, 10], hot))];
    safetensors(&folder.path().join("hot.safetensors"), &columns);
    assert_eq!(train(folder.path(), &job_file, &["run.epochs=6", "data.eval=hot.safetensors"]), mixed);

    // Without mixing, indices and probabilities have the same loss; in our operators only those of indices are one.
    let plain = data.split("[data.augment]").next().unwrap();
    let standard = &["run.operators=standard"];
    let by_probability = train(folder.path(), &digit_job(folder.path(), plain, soft), standard);
    let by_index = train(folder.path(), &digit_job(folder.path(), plain, "label_smoothing = 0.1"), standard);
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
    assert!(by_probability.losses.iter().zip(&by_index.losses).all(close), "{by_probability:?} {by_index:?}");
    assert_eq!(by_probability.metrics[1]["accuracy"], by_index.metrics[1]["accuracy"]);

    let hard = digit_job(folder.path(), data, "");
    let output = freeze_plan(&["train", &hard, "--overwrite"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("mix rows of float32, and column \"labels\" is int64"), "{stderr}");
    assert!(stderr.contains("target_kind = \"probabilities\""), "{stderr}");
}
