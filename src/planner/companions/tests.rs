use super::*;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, OpId, Tensor};

/// A model under construction, of values `[batch, 4]`.
struct Net(Builder);

impl Net {
    fn new() -> (Net, ValueId) {
        let mut b = Builder::new("net");
        let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
        (Net(b), x)
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let count = shape.iter().product::<usize>();
        let elements = (0..count).map(|index| 0.1 + index as f32 / 8.0 + name.len() as f32).collect();
        self.0.initializer(name, Tensor::from_vec::<f32>(shape, elements))
    }

    fn linear(&mut self, x: ValueId, name: &str) -> ValueId {
        let w = self.tensor(&format!("{name}.weight"), &[4, 4]);
        self.0.op("MatMul", &[x, w], Attributes::none())
    }

    fn norm(&mut self, x: ValueId, [scale, bias, mean, var]: [ValueId; 4]) -> ValueId {
        self.0.op("BatchNormalization", &[x, scale, bias, mean, var], Attributes::none())
    }

    fn norm_of(&mut self, x: ValueId, name: &str) -> ValueId {
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let parts = parts.map(|part| self.tensor(&format!("{name}.{part}"), &[4]));
        self.norm(x, parts)
    }

    fn plain_norm(&mut self, x: ValueId, name: &str) -> ValueId {
        let [one, zero] = ["one", "zero"].map(|part| self.0.constant(part, Tensor::zeros(DType::F32, &[4])));
        let [mean, var] = ["running_mean", "running_var"].map(|part| self.tensor(&format!("{name}.{part}"), &[4]));
        self.norm(x, [one, zero, mean, var])
    }

    fn drop_with(&mut self, x: ValueId, name: &str, flag: Option<bool>, outputs: usize) -> ValueId {
        let ratio = self.0.constant("ratio", Tensor::scalar(0.5f32));
        let flag = flag.map(|flag| self.0.constant("flag", Tensor::scalar(flag)));
        let inputs = [Some(x), Some(ratio), flag];
        let made = self.0.ops(&OpId::standard("Dropout"), &inputs, Attributes::none(), outputs);
        self.0.rename(made[0], name);
        if let Some(mask) = made.get(1) {
            self.0.mark_output(*mask);
        }
        made[0]
    }

    fn drop(&mut self, x: ValueId, name: &str) -> ValueId {
        self.drop_with(x, name, Some(true), 1)
    }

    fn finish(mut self, y: ValueId) -> Model {
        self.0.mark_output(y);
        Model { graph: self.0.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    }
}

fn shown(analysis: &Analysis, every_dropout: bool) -> Vec<String> {
    let names = analysis.trainable();
    let set = |set: &ParameterSet| set.iter().map(|place| names[place]).collect::<Vec<_>>().join(" ");
    let found = companions(analysis, every_dropout);
    let show = |companion: &Companion| {
        let sets: Vec<String> = companion.freezes_with.iter().map(set).collect();
        format!("{} | {} | {}", companion.names.join(" "), companion.affine.join(" "), sets.join(" or "))
    };
    found.iter().map(show).collect()
}

#[test]
fn statistics_go_with_scale_and_bias_and_dropout_between_frozen_parts() {
    let (mut net, x) = Net::new();
    let y = net.drop(x, "of_input");
    let y = net.linear(y, "body.fc1");
    let y = net.norm_of(y, "body.bn1");
    let y = net.drop(y, "inside");
    let y = net.linear(y, "body.fc2");
    let y = net.plain_norm(y, "body.bn2");
    let y = net.0.unary("Relu", y);
    let y = net.drop(y, "before_head");
    let y = net.linear(y, "head");
    let y = net.drop_with(y, "last", Some(true), 2);
    let body = "body.fc1.weight body.bn1.weight body.bn1.bias body.fc2.weight";
    let all = &format!("{body} head.weight");
    let expected = [
        format!("of_input |  | {all}"),
        "body.bn1.running_mean body.bn1.running_var | body.bn1.weight body.bn1.bias | body.bn1.weight body.bn1.bias"
            .to_string(),
        format!("inside |  | {body} or body.bn1.weight body.bn1.bias"),
        format!("body.bn2.running_mean body.bn2.running_var |  | {all} or {body}"),
        format!("before_head |  | {all} or {body}"),
        format!("last |  | {all} or head.weight"),
    ];
    let analysis = Analysis::of(&net.finish(y)).with_roles(&[], &["one".into(), "zero".into()]).unwrap();
    assert_eq!(shown(&analysis, false), expected);
}

#[test]
fn a_batch_norm_that_several_nodes_run_is_one_companion() {
    let (mut net, x) = Net::new();
    let [mean, var] = ["bn.running_mean", "bn.running_var"].map(|name| net.tensor(name, &[4]));
    let [w, b, other_w, other_b] =
        ["bn.weight", "bn.bias", "twin.weight", "twin.bias"].map(|name| net.tensor(name, &[4]));
    let y = net.norm(x, [w, b, mean, var]);
    let y = net.linear(y, "fc");
    let y = net.norm(y, [w, b, mean, var]);
    let y = net.norm(y, [other_w, other_b, mean, var]);
    let affine = "bn.weight bn.bias twin.weight twin.bias";
    let analysis = Analysis::of(&net.finish(y));
    let expected = format!("bn.running_mean bn.running_var | {affine} | {affine}");
    assert_eq!(shown(&analysis, false), [expected]);
}

#[test]
fn only_a_scale_that_trains_and_one_that_is_computed_count() {
    let (mut net, x) = Net::new();
    let y = net.linear(x, "fc");
    let y = net.norm_of(y, "bn");
    let gamma = net.tensor("shifted.gamma", &[4]);
    let scale = net.0.shift(gamma, 1.0);
    let [bias, mean, var] = ["bias", "running_mean", "running_var"].map(|n| net.tensor(&format!("shifted.{n}"), &[4]));
    let y = net.norm(y, [scale, bias, mean, var]);
    let analysis = Analysis::of(&net.finish(y)).with_roles(&[], &["bn.bias".into(), "shifted.bias".into()]).unwrap();
    let expected = [
        "bn.running_mean bn.running_var | bn.weight | bn.weight",
        "shifted.running_mean shifted.running_var | shifted.gamma | shifted.gamma",
    ];
    assert_eq!(shown(&analysis, false), expected);
}

#[test]
fn without_running_statistics_there_is_nothing_to_freeze_but_scale_and_bias() {
    let (mut net, x) = Net::new();
    let y = net.linear(x, "fc");
    let [mean, square] = [y, net.0.mul(y, y)].map(|value| net.0.reduce("ReduceMean", value, &[0], false));
    let less = net.0.mul(mean, mean);
    let var = net.0.sub(square, less);
    let [w, b] = ["bn.weight", "bn.bias"].map(|name| net.tensor(name, &[4]));
    let inputs = [y, w, b, mean, var].map(Some);
    let attributes = Attributes::none().with("training_mode", 1);
    let y = net.0.ops(&OpId::standard("BatchNormalization"), &inputs, attributes, 3)[0];
    assert_eq!(shown(&Analysis::of(&net.finish(y)), false), [" | bn.weight bn.bias | bn.weight bn.bias"]);
}

#[test]
fn dropout_is_a_companion_when_it_drops() {
    for (flag, every, expected) in
        [(None, false, 0), (Some(false), false, 0), (Some(true), false, 1), (None, true, 1), (Some(false), true, 1)]
    {
        let (mut net, x) = Net::new();
        let y = net.linear(x, "fc");
        let y = net.drop_with(y, "y", flag, 1);
        let analysis = Analysis::of(&net.finish(y));
        assert_eq!(shown(&analysis, every).len(), expected, "{flag:?} {every}");
    }
}

#[test]
fn each_of_many_blocks_brings_its_own_companions() {
    let (mut net, mut y) = Net::new();
    for index in 0..50 {
        for part in 0..8 {
            y = net.linear(y, &format!("blocks.{index}.fc{part}"));
        }
        y = net.norm_of(y, &format!("blocks.{index}.bn"));
        y = net.drop(y, &format!("drop{index}"));
    }
    let analysis = Analysis::of(&net.finish(y));
    let found = companions(&analysis, false);
    let names = analysis.trainable();
    assert_eq!((found.iter().count(), names.len()), (100, 500));
    for count in (0..=500).step_by(50) {
        let frozen: HashSet<&str> = names[..count].iter().copied().collect();
        let held = found.held(&frozen, &frozen, crate::plan::BatchNorm::Frozen, crate::plan::FrozenDropout::Off);
        assert_eq!(held.statistics.len(), count / 10 * 2);
        assert_eq!(held.dropout_off.len(), count / 10, "the last goes with the norm, which is its module");
    }
}
