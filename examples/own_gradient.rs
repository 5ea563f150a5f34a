//! Trains a model with an operator that has no gradient rule, with a rule of one's own.
//!
//! ```console
//! $ cargo run --release --example own_gradient
//! ```
//!
//! The model classifies by the squared distance to learned prototypes, which is one operator of ONNX Runtime:
//! `com.microsoft.CDist`. Needs the feature `runner`, and an ONNX Runtime.

use freeze_plan::autodiff::{Ctx, GradCheck, GradientRule, RuleError, Rules};
use freeze_plan::data::{DataOptions, Dataset};
use freeze_plan::graph::{Attributes, OpId, Tensor, ValueId};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::runner::job::{DataSection, RunSection};
use freeze_plan::runner::{Engine, Job, LocateOptions, RunEvent, evaluate};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, TrainerError, engine};
use std::error::Error;
use std::path::Path;

/// `D[i, j] = sum over k of (A[i, k] - B[j, k])^2`, of `A` `[M, K]` and `B` `[N, K]`.
///
/// With `G` the gradient of `D`: `dA = 2 (A * rowsum(G) - G B)`, and `dB` is the same with `A` and `B` exchanged and `G`
/// transposed.
struct SquaredDistance;

impl GradientRule for SquaredDistance {
    fn domain(&self) -> &str {
        "com.microsoft"
    }

    fn op(&self) -> &str {
        "CDist"
    }

    /// Is called for the inputs that somebody wants a gradient of, and appends nodes to the graph.
    fn gradient(&self, ctx: &mut Ctx<'_>, input: usize) -> Result<ValueId, RuleError> {
        // Whoever reads a node reads all of its attributes: a wrong answer is worse than none.
        let metric = ctx.attributes().text("metric", "sqeuclidean")?;
        if metric != "sqeuclidean" {
            return Err(RuleError::Unsupported(format!("metric \"{metric}\"")));
        }
        let (own, other, g) = (ctx.x(input)?, ctx.x(1 - input)?, ctx.dy()?);
        let g = if input == 0 { g } else { ctx.b.transpose(g, &[1, 0]) };
        let sums = ctx.b.reduce("ReduceSum", g, &[1], true);
        let scaled = ctx.b.mul(own, sums);
        let product = ctx.b.op("MatMul", &[g, other], Attributes::none());
        let difference = ctx.b.sub(scaled, product);
        Ok(ctx.b.scale(difference, 2.0))
    }
}

fn start() -> Result<Box<dyn Engine>, TrainerError> {
    engine(&LocateOptions::default(), &EngineOptions::default(), &mut |note| println!("{note}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    // First: is the rule right? Both gradients are compared with finite differences.
    let a = Tensor::from_vec(&[3, 2], vec![0.5f32, -1.0, 0.2, 0.9, -0.7, 0.4]);
    let b = Tensor::from_vec(&[2, 2], vec![1.0f32, 0.3, -0.6, 0.8]);
    let cdist = OpId { domain: "com.microsoft".into(), name: "CDist".into() };
    let check = GradCheck::new(cdist).attribute("metric", "sqeuclidean").input(a).input(b).rule(SquaredDistance);
    let mut engine = start()?;
    check.run(|model, feeds| evaluate(engine.as_mut(), model, feeds))?;
    drop(engine);
    println!("the rule agrees with finite differences");

    // Then it is one of the parts of a trainer, which says for which nodes it is used. Layers freeze as in every job: by
    // default on a linear schedule from the middle of the run on.
    let data = DataSection::new([("x", "images")], "labels", 64);
    let run = RunSection::new(5, std::env::temp_dir().join("freeze-plan-example-gradient"));
    let mut job = Job::new("fixtures/rules/prototypes.onnx", data, run);
    job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
    job.optimizer = Some(OptimizerSpec { lr: Some(0.01), ..OptimizerSpec::new(OptimizerKind::Adam) });
    let open = |name: &str| Dataset::open(&Path::new("fixtures/digits").join(name), &DataOptions::default(), None);
    let parts = Parts {
        train: Some(open("train.npz")?),
        eval: Some(open("eval.npz")?),
        rules: Rules::new().with(SquaredDistance),
        note: Some(&mut |note| println!("{note}")),
        ..Parts::default()
    };
    // `Start::Over` replaces what an earlier run left in the folder.
    let mut run = Trainer::with(job, parts)?.start(Start::Over, start);
    for event in run.by_ref() {
        if let RunEvent::Epoch { epoch, train_loss, metrics, .. } = event {
            println!("epoch {epoch}: loss {train_loss:.4}, accuracy {:.3}", metrics["accuracy"]);
        }
    }
    println!("the trained model: {}", run.join()?.model.display());
    Ok(())
}
