//! Checkpoints as files of any kind: whole, cut, damaged, made to mislead.

use super::checkpoint::read;
use super::{ArtifactsError, Property};
use crate::graph::Tensor;
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/classic").join(name)
}

/// A tensor of a checkpoint as a test writes it.
#[derive(Clone)]
struct Entry {
    name: &'static str,
    dims: Vec<i64>,
    dtype: i32,
    raw: Option<Vec<u8>>,
    offset: i64,
}

fn entry(name: &'static str, dims: &[i64], raw: Option<Vec<u8>>, offset: i64) -> Entry {
    Entry { name, dims: dims.to_vec(), dtype: 1, raw, offset }
}

struct Draft {
    version: i32,
    trains: Vec<Entry>,
    frozen: Vec<Entry>,
    nominal: bool,
    external: bool,
}

fn draft(trains: Vec<Entry>) -> Draft {
    Draft { version: 2, trains, frozen: Vec::new(), nominal: false, external: false }
}

impl Draft {
    /// Returns the file's bytes, written with the slots of ONNX Runtime's schema.
    fn bytes(&self) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        let slot = |index: u16| 4 + 2 * index;
        let list = |b: &mut FlatBufferBuilder<'static>, entries: &[Entry]| {
            let mut tables = Vec::new();
            for entry in entries {
                let name = b.create_string(entry.name);
                let dims = b.create_vector(&entry.dims);
                let raw = entry.raw.as_ref().map(|raw| b.create_vector(raw));
                let table = b.start_table();
                b.push_slot_always(slot(0), name);
                b.push_slot_always(slot(2), dims);
                b.push_slot_always(slot(3), entry.dtype);
                if let Some(raw) = raw {
                    b.push_slot_always(slot(4), raw);
                }
                b.push_slot(slot(6), entry.offset, -1);
                tables.push(WIPOffset::<()>::new(b.end_table(table).value()));
            }
            b.create_vector(&tables)
        };
        let trains = list(&mut b, &self.trains);
        let frozen = list(&mut b, &self.frozen);
        let state = b.start_table();
        b.push_slot_always(slot(0), trains);
        b.push_slot_always(slot(1), frozen);
        b.push_slot(slot(2), self.nominal, false);
        b.push_slot(slot(3), self.external, false);
        let state = b.end_table(state);
        let root = b.start_table();
        b.push_slot_always(slot(0), self.version);
        b.push_slot_always(slot(1), state);
        let root = b.end_table(root);
        b.finish(root, Some("ODTC"));
        b.finished_data().to_vec()
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Reads bytes as a checkpoint file; the error is one line.
fn parse(folder: &Path, bytes: &[u8]) -> Result<super::Checkpoint, String> {
    let path = folder.join("checkpoint");
    std::fs::write(&path, bytes).unwrap();
    read(&path).map_err(|error| {
        let text = error.to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        text
    })
}

#[test]
fn what_a_session_saved_is_read() {
    let checkpoint = read(&fixture("convnet/checkpoint")).unwrap();
    let names = |list: &[(String, Tensor)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&checkpoint.trains), "bn.bias bn.weight conv.bias conv.weight fc.bias fc.weight");
    assert_eq!(names(&checkpoint.frozen), "bn.running_mean bn.running_var");
    let group = &checkpoint.optimizer[0];
    assert_eq!((group.name.as_str(), group.step, group.initial_lr), ("group0", 5, 0.001));
    let moments = &group.moments["conv.weight"];
    assert_eq!(names(moments), "momentum0 momentum1");
    assert!(moments.iter().all(|(_, tensor)| tensor.shape() == [4, 1, 3, 3]));
    let properties = [
        ("steps".to_string(), Property::Int(5)),
        ("rate".into(), Property::Float(0.01)),
        ("made by".into(), Property::Text("make.py".into())),
    ];
    for property in &properties {
        assert!(checkpoint.properties.contains(property), "{property:?} is not in {:?}", checkpoint.properties);
    }
}

#[test]
fn values_in_an_external_file_are_those_at_their_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let inside = entry("b", &[1], Some(floats(&[7.0])), -1);
    let mut file = draft(vec![entry("w", &[2, 2], None, 8), inside]);
    file.external = true;
    std::fs::write(folder.path().join("checkpoint.data"), floats(&[0.0, 0.5, 1.0, 2.0, 3.0, 4.0])).unwrap();
    let found = parse(folder.path(), &file.bytes()).unwrap();
    assert_eq!(found.parameter("w"), Some(&Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0])));
    assert_eq!(found.parameter("b"), Some(&Tensor::from_vec(&[1], vec![7f32])));
}

#[test]
fn misleading_checkpoints_are_refused() {
    struct Case {
        draft: Draft,
        expected: &'static str,
    }
    let external = |offset| Draft { external: true, ..draft(vec![entry("w", &[2], None, offset)]) };
    let good = entry("w", &[2], Some(floats(&[1.0, 2.0])), -1);
    let cases = [
        Case { draft: Draft { version: 3, ..draft(vec![]) }, expected: "its format is version 3, expected 2" },
        Case { draft: Draft { nominal: true, ..draft(vec![]) }, expected: "nominal checkpoint" },
        Case { draft: draft(vec![entry("w", &[-2], None, -1)]), expected: "\"w\" has the dimensions [-2]" },
        Case {
            draft: draft(vec![entry("w", &[i64::MAX, i64::MAX], None, -1)]),
            expected: "more elements than this machine can address",
        },
        Case {
            draft: draft(vec![entry("w", &[1 << 40, 1 << 40], None, 0)]),
            expected: "lies in an external file, but the checkpoint has none",
        },
        Case {
            draft: Draft { external: true, ..draft(vec![entry("w", &[1 << 40, 1 << 40], None, 0)]) },
            expected: "more elements than this machine can address",
        },
        Case { draft: draft(vec![entry("w", &[1 << 40], None, -1)]), expected: "bytes, found 0" },
        Case { draft: draft(vec![entry("w", &[3], Some(floats(&[1.0])), -1)]), expected: "needs 12 bytes, found 4" },
        Case { draft: draft(vec![Entry { dtype: 8, ..good.clone() }]), expected: "dtype string" },
        Case { draft: draft(vec![Entry { dtype: -5, ..good.clone() }]), expected: "dtype onnx-type--5" },
        Case { draft: draft(vec![Entry { name: "", ..good.clone() }]), expected: "a tensor has no name" },
        Case {
            draft: Draft { frozen: vec![good.clone()], ..draft(vec![good.clone()]) },
            expected: "parameter \"w\" is in it twice",
        },
        Case { draft: external(1), expected: "has 8 bytes from 1 on in its external file, which holds 8" },
        Case { draft: external(i64::MAX), expected: "in its external file, which holds 8" },
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("checkpoint.data"), floats(&[1.0, 2.0])).unwrap();
    let mut wrong = Vec::new();
    for Case { draft, expected } in cases {
        match parse(folder.path(), &draft.bytes()) {
            Err(text) if text.contains(expected) => {}
            other => wrong.push(format!("expected {expected:?}, found {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_and_devices_are_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = Draft { external: true, ..draft(vec![entry("w", &[2], None, 0)]) };
    let data = folder.path().join("checkpoint.data");
    std::fs::write(other.path().join("secret"), floats(&[1.0, 2.0])).unwrap();
    std::os::unix::fs::symlink(other.path().join("secret"), &data).unwrap();
    assert!(parse(folder.path(), &file.bytes()).unwrap_err().contains("leads out of the checkpoint's folder"));
    std::fs::remove_file(&data).unwrap();
    assert!(parse(folder.path(), &file.bytes()).unwrap_err().contains("checkpoint.data"));
    let error = read(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ArtifactsError::Checkpoint { .. }) && error.to_string().contains("no regular file"));
}

#[test]
fn no_cut_and_no_changed_byte_is_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("convnet/checkpoint")).unwrap();
    assert!(parse(folder.path(), b"").unwrap_err().contains("is no checkpoint"));
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for length in (0..whole.len()).step_by(61) {
        assert!(parse(folder.path(), &whole[..length]).is_err(), "cut to {length} bytes");
    }
    let (mut refused, mut read) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            bytes[at] = next(256) as u8;
        }
        match parse(folder.path(), &bytes) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100 && read > 100, "both happen: {refused} refused, {read} read");
    for length in [8, 64, 4096] {
        let mut noise: Vec<u8> = (0..length).map(|_| next(256) as u8).collect();
        noise[4..8].copy_from_slice(b"ODTC");
        assert!(parse(folder.path(), &noise).is_err(), "{length} random bytes");
    }
}

#[test]
fn no_changed_byte_of_a_model_is_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % below
    };
    let (mut refused, mut read) = (0, 0);
    for (case, changed) in [("convnet", "eval_model.onnx"), ("norm", "training_model.onnx")] {
        for name in ["training_model.onnx", "eval_model.onnx", "checkpoint"] {
            let _ = std::fs::remove_file(at(name));
            let _ = std::fs::copy(fixture(case).join(name), at(name));
        }
        let whole = std::fs::read(at(changed)).unwrap();
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..=next(3) {
                let index = next(bytes.len());
                bytes[index] = next(256) as u8;
            }
            std::fs::write(at(changed), bytes).unwrap();
            match super::read(&super::find(folder.path()).unwrap().unwrap()) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 25 && read > 25, "both happen: {refused} refused, {read} read");
}

#[test]
fn one_tensor_named_a_thousand_times_costs_no_more_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut b = FlatBufferBuilder::new();
    let name = b.create_string("w");
    let raw = b.create_vector(&vec![0u8; 1 << 16]);
    let table = b.start_table();
    b.push_slot_always(4, name);
    b.push_slot_always(12, raw);
    let tensor = WIPOffset::<()>::new(b.end_table(table).value());
    let many = b.create_vector(&vec![tensor; 1000]);
    let state = b.start_table();
    b.push_slot_always(4, many);
    let state = b.end_table(state);
    let root = b.start_table();
    b.push_slot_always(4, 2i32);
    b.push_slot_always(6, state);
    let root = b.end_table(root);
    b.finish(root, Some("ODTC"));
    let error = parse(folder.path(), b.finished_data()).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}

/// Returns a checkpoint with the digits of all its tensors, to compare.
fn shown(checkpoint: &super::Checkpoint) -> String {
    format!("{checkpoint:?}")
}

#[test]
fn what_is_written_is_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["convnet/checkpoint", "frozen/tiny_checkpoint", "gate/checkpoint", "mlp/checkpoint"] {
        let official = read(&fixture(name)).unwrap();
        let encoded = super::write::encode_with(&official, usize::MAX);
        assert!(encoded.pieces.is_empty());
        let again = parse(folder.path(), &encoded.bytes).unwrap();
        assert_eq!(shown(&again), shown(&official), "{name}");
        assert!(again.trains.iter().zip(&official.trains).all(|(a, b)| a.1 == b.1), "{name}");
        assert_eq!(super::encode_checkpoint(&again).bytes, encoded.bytes, "{name}: the same bytes again");
    }
}

#[test]
fn a_nominal_checkpoint_names_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let official = read(&fixture("convnet/checkpoint")).unwrap();
    let bytes = super::encode_nominal_checkpoint(&official);
    let refused = parse(folder.path(), &bytes).unwrap_err();
    assert!(refused.contains("nominal checkpoint"), "{refused}");
    let root = super::schema::root(&bytes).unwrap();
    let state = root.module_state().unwrap();
    for (list, own) in [(state.requires_grad_params(), &official.trains), (state.frozen_params(), &official.frozen)] {
        let list: Vec<_> = list.unwrap().iter().collect();
        assert_eq!(list.len(), own.len());
        for (found, (name, tensor)) in list.iter().zip(own) {
            assert_eq!((found.name(), found.data_type()), (Some(name.as_str()), Some(tensor.dtype().code())));
            assert_eq!(found.raw_data().map(|raw| raw.len()), Some(0), "{name}");
            assert_eq!(found.dims().map(|dims| dims.len()), Some(0), "{name}");
        }
    }
    assert!(root.optimizer_groups().is_none() && root.property_bag().is_none());
}

#[test]
fn large_tensors_lie_in_a_file_beside() {
    let folder = tempfile::tempdir().unwrap();
    let official = read(&fixture("convnet/checkpoint")).unwrap();
    let encoded = super::write::encode_with(&official, 100);
    assert!(
        encoded.pieces.len() > 3
            && encoded.bytes.len() < std::fs::metadata(fixture("convnet/checkpoint")).unwrap().len() as usize
    );
    let mut data = Vec::new();
    encoded.write_data(&mut data).unwrap();
    std::fs::write(folder.path().join("checkpoint.data"), data).unwrap();
    let again = parse(folder.path(), &encoded.bytes).unwrap();
    assert!(again.trains == official.trains && again.frozen == official.frozen);
    assert_eq!(again.optimizer[0].moments, official.optimizer[0].moments);
}
