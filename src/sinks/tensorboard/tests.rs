use super::*;
use crate::runner::RunEvent;
use std::collections::BTreeMap;

fn start() -> RunEvent {
    RunEvent::Start {
        version: "0".into(),
        engine: "none".into(),
        engine_version: "0".into(),
        device: "cpu".into(),
        threads: 1,
        operators: Default::default(),
        vectors: String::new(),
        precision: Default::default(),
        parameters: 1,
        epochs: 4,
        steps: 8,
        samples: 16,
    }
}

fn phase(epoch: usize, after: usize, frozen_units: usize) -> RunEvent {
    RunEvent::Phase {
        epoch,
        after,
        frozen: frozen_units,
        frozen_units,
        seconds: 0.0,
        stall_seconds: 0.0,
        predicted_step_cost: 1.0 - frozen_units as f64 / 8.0,
        predicted_step_seconds: None,
        nodes: 1,
        recomputed: Vec::new(),
        prefix_nodes: 0,
        memory_estimate: None,
    }
}

fn step(epoch: usize, step: usize, loss: f64) -> RunEvent {
    RunEvent::Step { epoch, step, loss, lr: Some(0.5), seconds: 0.25, wait_seconds: 0.0 }
}

fn epoch(epoch: usize, accuracy: f64) -> RunEvent {
    RunEvent::Epoch {
        epoch,
        train_loss: 2.0,
        metrics: BTreeMap::from([("accuracy".into(), accuracy)]),
        per_class: Default::default(),
        confusion: Default::default(),
        undefined: Default::default(),
        seconds: 3.0,
        samples_per_second: 4.0,
        wait_seconds: 0.0,
        peak_bytes: 5,
        device_peak_bytes: Some(7),
    }
}

fn write(board: &mut TensorBoard, events: Vec<RunEvent>) {
    for event in events {
        board.take(&Timed { event, time: 0.0 }).unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads event files in their order, by the rule that TensorBoard has for restarts.
fn curves(files: &[PathBuf]) -> BTreeMap<String, Vec<(i64, f32)>> {
    let mut curves: BTreeMap<String, Vec<(i64, f32)>> = BTreeMap::new();
    for file in files {
        let mut events = record::records(&fs::read(file).unwrap()).into_iter().map(|data| {
            let event = Event::decode(data.as_slice()).unwrap();
            assert!(event.wall_time > 1e9, "seconds since 1970");
            event
        });
        assert_eq!(events.next().unwrap().what, Some(What::FileVersion("brain.Event:2".into())));
        for event in events {
            match event.what.unwrap() {
                What::SessionLog(log) => {
                    assert_eq!(log.status(), SessionStatus::Start);
                    curves.values_mut().for_each(|curve| curve.retain(|point| point.0 < event.step));
                }
                What::Summary(summary) => {
                    for value in summary.value {
                        let Some(Content::SimpleValue(number)) = value.value else { continue };
                        curves.entry(value.tag).or_default().push((event.step, number));
                    }
                }
                What::FileVersion(_) => panic!("a second version"),
            }
        }
    }
    curves
}

#[test]
fn every_scalar_stands_at_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(folder.path(), false, 2).unwrap();
    board.text("job", "epochs = 4").unwrap();
    let events = vec![start(), phase(1, 0, 0), step(1, 1, 1.0), step(1, 2, 0.75), epoch(1, 0.5)];
    write(&mut board, events);
    write(&mut board, vec![phase(2, 1, 2), step(2, 4, 0.5), epoch(2, 0.625)]);
    let curves = curves(&files(folder.path()));
    let expected: [(&str, &[(i64, f32)]); 10] = [
        ("epoch/device_peak_bytes", &[(2, 7.0), (4, 7.0)]),
        ("epoch/peak_bytes", &[(2, 5.0), (4, 5.0)]),
        ("epoch/samples_per_second", &[(2, 4.0), (4, 4.0)]),
        ("epoch/seconds", &[(2, 3.0), (4, 3.0)]),
        ("eval/accuracy", &[(2, 0.5), (4, 0.625)]),
        ("freeze/step_cost", &[(1, 1.0), (2, 1.0), (4, 0.75)]),
        ("freeze/units", &[(1, 0.0), (2, 0.0), (4, 2.0)]),
        ("train/epoch_loss", &[(2, 2.0), (4, 2.0)]),
        ("train/loss", &[(2, 0.75), (4, 0.5)]),
        ("train/lr", &[(2, 0.5), (4, 0.5)]),
    ];
    let found: Vec<(&str, &[(i64, f32)])> =
        curves.iter().map(|(tag, points)| (tag.as_str(), points.as_slice())).collect();
    assert_eq!(found, expected);
}

#[test]
fn steps_that_come_again_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(folder.path(), false, 1).unwrap();
    write(&mut board, vec![start(), phase(1, 0, 0), step(1, 1, 1.0), step(1, 2, 0.9), epoch(1, 0.5)]);
    write(&mut board, vec![phase(2, 0, 1), step(2, 3, 0.8), step(2, 4, 0.7), epoch(2, 0.4)]);
    let rollback = RunEvent::Rollback {
        epoch: 2,
        to_epoch: 2,
        to_step: 2,
        metric: "accuracy".into(),
        before: 0.5,
        after: Some(0.4),
        delay: 1,
    };
    write(&mut board, vec![rollback, phase(2, 0, 0), step(2, 3, 0.6), step(2, 4, 0.5)]);
    drop(board);
    let mut board = TensorBoard::create(folder.path(), true, 1).unwrap();
    write(&mut board, vec![start(), phase(2, 1, 0), step(2, 4, 0.55), epoch(2, 0.625)]);
    let files = files(folder.path());
    assert_eq!(files.len(), 2, "a resumed run has a file of its own, which comes later: {files:?}");
    let curves = curves(&files);
    assert_eq!(curves["train/loss"], [(1, 1.0), (2, 0.9), (3, 0.6), (4, 0.55)]);
    assert_eq!(curves["eval/accuracy"], [(2, 0.5), (4, 0.625)]);
    assert_eq!(curves["freeze/units"], [(1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0)]);
    drop(board);
    TensorBoard::create(folder.path(), false, 1).unwrap();
    assert_eq!(self::files(folder.path()).len(), 1, "a new run starts without the files of the earlier one");
}
