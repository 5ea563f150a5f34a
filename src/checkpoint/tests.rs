use super::*;
use crate::graph::DType;
use std::fs;

fn checkpoint(step: u64) -> Checkpoint {
    let weight = Tensor::from_vec(&[2, 2], vec![step as f32, -0.0, f32::MIN_POSITIVE, 3.5]);
    let values = [("layer.weight", weight), ("empty", Tensor::zeros(DType::F16, &[0, 3]))];
    let slots = [("layer.weight.step", Tensor::scalar(step as i64))];
    let named = |tensors: &[(&str, Tensor)]| {
        tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect::<Tensors>()
    };
    let groups = [("values", named(&values)), ("slots", named(&slots))];
    Checkpoint {
        epoch: 2,
        step,
        sequence: 0,
        plan: "{\"format\": \"freeze-plan/1\"}\n".into(),
        state: "{\"delay\": 1}".into(),
        groups: groups.into_iter().map(|(name, tensors)| (name.to_string(), tensors)).collect(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn steps(store: &Store) -> Vec<u64> {
    store.list().iter().map(|(_, path)| load(path).unwrap().step).collect()
}

#[test]
fn a_checkpoint_round_trips_and_the_last_ones_and_the_best_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&folder.path().join("checkpoints"), 2);
    assert!(store.latest().unwrap().is_none());
    let mut first = checkpoint(7);
    let path = store.save(&mut first, false).unwrap();
    assert_eq!((first.sequence, path.file_name().unwrap().to_str().unwrap()), (1, "000001-step-7"));
    let loaded = store.latest().unwrap().unwrap();
    assert_eq!((&loaded.checkpoint, &loaded.path, loaded.damaged.len()), (&first, &path, 0));
    assert_eq!(loaded.checkpoint.tensors().len(), 3);

    assert!(store.best().is_none());
    let best = store.save(&mut checkpoint(8), true).unwrap();
    // A run that went back has the same step twice.
    for step in [9, 10, 9] {
        store.save(&mut checkpoint(step), false).unwrap();
    }
    assert_eq!(steps(&store), [9, 10, 8]);
    assert_eq!(store.best(), Some(best));
    assert_eq!(names(store.folder()), ["000002-step-8", "000004-step-10", "000005-step-9", "best"]);
    assert_eq!(loaded.checkpoint, first, "a mapped checkpoint outlives its file");
    store.save(&mut checkpoint(11), true).unwrap();
    assert_eq!(steps(&store), [11, 9]);
}

#[test]
fn what_an_interrupted_save_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), 1);
    store.save(&mut checkpoint(7), false).unwrap();
    let unfinished = folder.path().join(".unfinished-000002-step-8");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join(INDEX), "{").unwrap();
    fs::write(folder.path().join(".unfinished-best"), "000002").unwrap();
    assert_eq!(store.latest().unwrap().unwrap().checkpoint.step, 7);
    assert!(store.best().is_none());
    store.save(&mut checkpoint(9), false).unwrap();
    assert_eq!(names(folder.path()), ["000002-step-9"]);
}

#[test]
fn a_damaged_newest_one_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), 3);
    let paths = [7, 8, 9].map(|step| store.save(&mut checkpoint(step), false).unwrap());
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(&paths[2].join("values.safetensors"));
    fs::remove_file(paths[1].join(INDEX)).unwrap();
    let latest = store.latest().unwrap().unwrap();
    let damaged: Vec<String> = latest.damaged.iter().map(|error| error.to_string()).collect();
    assert_eq!((latest.checkpoint.step, damaged.len()), (7, 2));
    assert!(damaged[0].contains("000003-step-9/values.safetensors is damaged: its sha256 is "), "{damaged:?}");
    assert!(damaged[1].ends_with("000002-step-8 holds no checkpoint"), "{damaged:?}");
    flip(&paths[0].join("slots.safetensors"));
    let error = store.latest().unwrap_err().to_string();
    assert!(error.contains("000003-step-9/values.safetensors is damaged"), "{error}");
    // A new one is newer than a damaged one.
    store.save(&mut checkpoint(10), false).unwrap();
    assert_eq!(store.latest().unwrap().unwrap().checkpoint.sequence, 4);
}

#[test]
fn every_byte_is_under_a_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let path = Store::new(folder.path(), 1).save(&mut checkpoint(7), false).unwrap();
    for name in names(&path) {
        let path_of = path.join(&name);
        let whole = fs::read(&path_of).unwrap();
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 4;
            fs::write(&path_of, &bytes).unwrap();
            let same = load(&path).is_ok_and(|found| found == Checkpoint { sequence: 1, ..checkpoint(7) });
            // White space of the index says nothing.
            let space = name == INDEX && whole[position].is_ascii_whitespace();
            assert!(load(&path).is_err() || (space && same), "{name} at {position}");
        }
        fs::write(&path_of, &whole).unwrap();
    }
    assert!(load(&path).is_ok());
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let reads = || load(&path).unwrap_err().to_string().replace(&path.display().to_string(), "DIR");
    assert_eq!(reads(), "DIR holds no checkpoint");
    fs::create_dir(&path).unwrap();
    write(&path, &checkpoint(7)).unwrap();
    let index = fs::read_to_string(path.join(INDEX)).unwrap();
    let cases = [
        (
            index.replace(FORMAT, "freeze-plan-checkpoint/9"),
            "DIR/checkpoint.json has format \"freeze-plan-checkpoint/9\", this version reads \"freeze-plan-checkpoint/2\"",
        ),
        (
            index.replace(FORMAT, "other/1"),
            "DIR/checkpoint.json is no checkpoint: its format is not \"freeze-plan-checkpoint/2\"",
        ),
        (index.replace("\"files\"", "\"fils\""), "DIR/checkpoint.json is no checkpoint: missing field `files`"),
        (
            index.replace("slots.safetensors", "../x.safetensors"),
            "DIR/checkpoint.json is no checkpoint: \"../x.safetensors\" is no file name",
        ),
        (index.replace("slots.safetensors", "gone.safetensors"), "cannot read DIR/gone.safetensors"),
        (String::new(), "DIR/checkpoint.json is no checkpoint: EOF while parsing"),
    ];
    for (text, expected) in cases {
        fs::write(path.join(INDEX), text).unwrap();
        let found = reads();
        assert!(found.starts_with(expected), "{found}");
    }
    fs::write(path.join(INDEX), index.replace("\"files\"", "\"added later\": 1, \"files\"")).unwrap();
    assert_eq!(load(&path).unwrap(), checkpoint(7));
}

#[test]
fn a_save_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), 1);
    store.save(&mut checkpoint(6), false).unwrap();
    let mut bad = checkpoint(7);
    let words = Tensor::new(DType::String, vec![1], bytes::Bytes::new()).unwrap();
    bad.groups.insert("zzz".into(), [("words".to_string(), words)].into());
    let error = store.save(&mut bad, true).unwrap_err().to_string();
    assert!(error.ends_with("\"words\" has dtype string, which cannot be stored"), "{error}");
    assert_eq!((names(folder.path()), steps(&store)), (vec!["000001-step-6".to_string()], vec![6]));
}
