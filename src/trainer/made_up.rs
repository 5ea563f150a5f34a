//! A trainer of a model on made-up data: for what its steps take, which values do not change.

use super::model::{self, Note, Roles};
use super::sizes::{Sizes, how_to_give};
use super::{Parts, Trainer, TrainerError};
use crate::data::{Dataset, LastBatch};
use crate::error::ErrorKind;
use crate::facts::{self, Probe};
use crate::graph::{DType, Fact, Graph, Node, Tensor, ValueId};
use crate::losses::LossSpec;
use crate::optim::OptimizerSpec;
use crate::plan::PlanOptions;
use crate::runner::Job;
use crate::runner::job::{CheckpointSection, DataSection, RunSection};
use crate::training::{Dropout, targets};
use std::path::{Path, PathBuf};

/// Batches of the data.
const BATCHES: usize = 2;
/// The column of the target.
const TARGET: &str = "freeze-plan/target";
/// The most elements of a column.
const MOST: usize = 1 << 28;

/// What is trained, and how.
#[derive(Clone, Debug)]
pub struct MadeUp<'a> {
    /// What is minimized; that of training artifacts, or cross-entropy, by default.
    pub loss: Option<LossSpec>,
    /// The optimizer.
    pub optimizer: OptimizerSpec,
    /// What Dropout does.
    pub dropout: Dropout,
    /// Sizes that the model leaves open.
    pub sizes: &'a Sizes,
    /// Patterns for what is a parameter and for what is a buffer.
    pub roles: Roles<'a>,
    /// Threads within one operator; all cores by default.
    pub threads: Option<usize>,
}

impl Trainer {
    /// Returns a trainer of a model on random data that fit its inputs and the targets of the loss.
    ///
    /// # Errors
    /// A size is open that no number is given for, or the model cannot be trained so.
    pub fn made_up<'a>(
        path: &Path,
        wanted: MadeUp<'_>,
        mut probe: Option<&'a mut dyn Probe>,
        note: Note<'a>,
    ) -> Result<Trainer, TrainerError> {
        let MadeUp { loss, optimizer, dropout, sizes, roles, threads } = wanted;
        let mut fixed = match &mut probe {
            Some(probe) => model::load(path, sizes, roles, Some(&mut **probe))?,
            None => model::load(path, sizes, roles, None)?,
        };
        let found = fixed.artifacts.as_ref().and_then(|artifacts| artifacts.loss.as_ref());
        let loss = loss.or_else(|| found.map(|found| found.spec.clone())).unwrap_or_default();
        let numbers = sizes.of(&fixed.analysis.model.graph)?;
        fixed.analysis.model = facts::with_sizes(&fixed.analysis.model, &numbers);
        let graph = &fixed.analysis.model.graph;
        let mut random = Random(1);
        let mut columns = Vec::new();
        let mut batch = None;
        for id in graph.inputs() {
            let name = graph.value_name(*id);
            let shape = rows(name, graph.fact(*id), graph)?;
            batch.get_or_insert(shape.first().copied().unwrap_or(1) / BATCHES);
            columns.push((name.to_string(), column(name, graph.fact(*id), &shape, bound(graph, *id), &mut random)?));
        }
        let prepared = model::prepared(&fixed, dropout)?;
        let inputs: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let inputs = inputs.iter().map(|name| (name.as_str(), name.as_str()));
        let mut data = DataSection::new(inputs, TARGET, batch.unwrap_or(1));
        data.shuffle = false;
        data.last_batch = LastBatch::Drop;
        data.target = None;
        for target in targets(&prepared, &loss, None)? {
            if target.name.is_some() {
                let text = "a loss that names its targets needs their data: train JOB.toml --dry-run measures a job";
                return Err(TrainerError::new(ErrorKind::Usage, text));
            }
            let shape = rows(&target.input, &target.fact, graph)?;
            let classes = target.labels.map(|(classes, _)| classes);
            columns.push((TARGET.to_string(), column(&target.input, &target.fact, &shape, classes, &mut random)?));
            data.target = Some(crate::runner::Targets::One(TARGET.into()));
        }
        let dataset = Dataset::new(Path::new("random data"), columns)?;
        let (parameter, buffer) = roles;
        let mut run = RunSection::new(1, PathBuf::new());
        run.threads = threads;
        let job = Job {
            cache: Default::default(),
            model: path.to_path_buf(),
            output: None,
            stage: None,
            dropout,
            data,
            loss: Some(loss),
            losses: Vec::new(),
            optimizer: Some(optimizer),
            schedule: None,
            eval: Default::default(),
            freeze: PlanOptions {
                policy: "none".into(),
                parameter: parameter.to_vec(),
                buffer: buffer.to_vec(),
                ..PlanOptions::default()
            },
            init: None,
            ema: None,
            checkpoint: CheckpointSection::default(),
            run,
        };
        let parts = Parts { train: Some(dataset), probe, note: Some(note), ..Parts::default() };
        Trainer::with(job, parts)
    }
}

/// Returns the shape of a column.
fn rows(name: &str, fact: &Fact, graph: &Graph) -> Result<Vec<usize>, TrainerError> {
    let open = || {
        let error =
            TrainerError::new(ErrorKind::Usage, format!("random data for \"{name}\" need its sizes, found {fact}"));
        how_to_give(graph).map_or(error.clone(), |how| error.hint(how))
    };
    let mut shape = fact.sizes().ok_or_else(open)?;
    match shape.first_mut() {
        Some(first) => *first = first.saturating_mul(BATCHES),
        None => {
            return Err(TrainerError::new(ErrorKind::Unsupported, format!("\"{name}\" is a scalar, which is no data")));
        }
    }
    let elements = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
    match elements.filter(|count| *count <= MOST) {
        Some(_) => Ok(shape),
        None => {
            Err(TrainerError::new(ErrorKind::Unsupported, format!("\"{name}\" is too large for random data: {fact}")))
        }
    }
}

/// Returns random elements: floats in [-1, 1), integers below `bound`, 2 by default.
fn column(
    name: &str,
    fact: &Fact,
    shape: &[usize],
    bound: Option<usize>,
    random: &mut Random,
) -> Result<Tensor, TrainerError> {
    let count: usize = shape.iter().product();
    let bound = bound.unwrap_or(2).max(1) as u64;
    Ok(match fact.dtype {
        Some(DType::F32) => Tensor::from_vec(shape, (0..count).map(|_| random.float()).collect::<Vec<f32>>()),
        Some(DType::F64) => Tensor::from_vec(shape, (0..count).map(|_| f64::from(random.float())).collect::<Vec<_>>()),
        Some(DType::I64) => {
            Tensor::from_vec(shape, (0..count).map(|_| (random.next() % bound) as i64).collect::<Vec<_>>())
        }
        Some(DType::I32) => {
            let bound = bound.min(i32::MAX as u64);
            Tensor::from_vec(shape, (0..count).map(|_| (random.next() % bound) as i32).collect::<Vec<_>>())
        }
        Some(DType::Bool) => Tensor::from_vec(shape, vec![true; count]),
        Some(dtype) if dtype.size() > 0 && !dtype.is_float() => Tensor::zeros(dtype, shape),
        _ => {
            let text = format!("there are no random data for \"{name}\", which is {fact}");
            return Err(TrainerError::new(ErrorKind::Unsupported, text));
        }
    })
}

/// Returns the number of rows that an input of indices picks from, as far as a `Gather` reads it.
fn bound(graph: &Graph, input: ValueId) -> Option<usize> {
    let mut least: Option<usize> = None;
    let mut open = vec![input];
    while let Some(value) = open.pop() {
        for node in graph.nodes().iter().filter(|node| node.inputs.contains(&Some(value))) {
            match node.op.name.as_str() {
                "Gather" if node.input(1) == Some(value) => {
                    let size = picked(graph, node);
                    least = [least, size].into_iter().flatten().min();
                }
                "Cast" | "Identity" | "Reshape" | "Unsqueeze" | "Squeeze" => open.extend(node.output(0)),
                _ => {}
            }
        }
    }
    least
}

fn picked(graph: &Graph, node: &Node) -> Option<usize> {
    let shape = graph.fact(node.input(0)?).sizes()?;
    let axis = node.attributes.int("axis", 0).ok()?;
    let axis = if axis < 0 { axis + i64::try_from(shape.len()).ok()? } else { axis };
    shape.get(usize::try_from(axis).ok()?).copied()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossKind;
    use crate::optim::OptimizerKind;

    fn made_up(model: &str, batch: Option<usize>, loss: Option<LossSpec>) -> Result<Trainer, TrainerError> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(model);
        let sizes = Sizes { batch, shapes: Vec::new() };
        let wanted = MadeUp {
            loss,
            optimizer: OptimizerSpec::new(OptimizerKind::Sgd),
            dropout: Dropout::AsExported,
            sizes: &sizes,
            roles: (&[], &[]),
            threads: Some(1),
        };
        Trainer::made_up(&path, wanted, None, &mut |_| {})
    }

    #[test]
    fn data_fit_the_model_and_the_loss() {
        let trainer = made_up("digits/model.onnx", Some(4), None).unwrap();
        assert_eq!((trainer.train.rows(), trainer.train.len()), (8, 2));
        let batch = trainer.train.batch(1, 1).unwrap();
        let (_, labels) = batch.iter().find(|(name, _)| name.starts_with("target")).unwrap();
        let labels = labels.to_ints().unwrap();
        assert!(
            labels.iter().all(|label| (0..10).contains(label)) && labels.iter().any(|label| *label > 1),
            "{labels:?}"
        );
        let (_, images) = batch.iter().find(|(name, _)| name == "x").unwrap();
        let pixels = images.to_f64s().unwrap();
        assert!(pixels.iter().any(|x| *x < -0.5) && pixels.iter().any(|x| *x > 0.5), "{pixels:?}");
        let error = made_up("digits/model.onnx", Some(4), Some(LossSpec::new(LossKind::Ctc))).err().unwrap();
        assert_ne!(error.to_string(), "");
    }

    #[test]
    fn indices_stay_within_what_they_pick_from() {
        use crate::graph::{Attributes, Builder};
        let mut b = Builder::new("tokens");
        let ids = b.input("ids", Fact::fixed(DType::I64, &[4, 3]));
        let wide = b.cast(ids, DType::I32);
        let table = b.initializer("table", Tensor::zeros(DType::F32, &[7, 5]));
        let other = b.initializer("other", Tensor::zeros(DType::F32, &[2, 9]));
        let rows = b.op("Gather", &[table, wide], Attributes::none());
        let columns = b.op("Gather", &[other, ids], Attributes::none().with("axis", -1));
        b.mark_output(rows);
        b.mark_output(columns);
        let graph = b.finish();
        assert_eq!(bound(&graph, ids), Some(7));
        let fact = graph.fact(ids).clone();
        let column = column("ids", &fact, &[4, 3], Some(7), &mut Random(3)).unwrap().to_ints().unwrap();
        assert!(column.iter().all(|id| (0..7).contains(id)) && column.iter().any(|id| *id > 1), "{column:?}");
    }
}
