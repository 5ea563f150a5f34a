//! Updates of parameters against those on the CPU, and in place.

use super::super::emulated::Emulated;
use super::super::gpu::{Element, Gpu};
use super::tests::{Case, check, noise};
use super::{Array, DEFINITIONS, Node, computed};
use crate::graph::{Attribute, Attributes, Tensor};

/// Returns numbers that a second moment may have.
fn squares(shape: &[usize], seed: u64) -> Tensor {
    let values = noise(shape, seed).to_vec::<f32>().expect("floats").iter().map(|x| x * x).collect();
    Tensor::from_vec::<f32>(shape, values)
}

fn adam(beta1: f64, beta2: f64, decoupled: i64, weight_decay: f32) -> Attributes {
    let numbers = |beta: f64| Attribute::Floats([beta, 1.0 - beta, -0.5 * beta.ln()].map(|n| n as f32).to_vec());
    let averages = Attributes::none().with("average", numbers(beta1)).with("squares", numbers(beta2));
    averages.with("eps", 1e-6_f32).with("weight_decay", weight_decay).with("decoupled", decoupled)
}

const SHAPES: [&[usize]; 4] = [&[1], &[3, 7], &[40, 129], &[64, 1025]];

#[test]
fn sgd() {
    for (momentum, nesterov, weight_decay) in [(0.0, 0, 0.0), (0.9, 0, 5e-4), (0.9, 1, 0.1), (0.5, 1, 0.0_f32)] {
        for shape in SHAPES {
            let attributes = Attributes::none()
                .with("momentum", momentum as f32)
                .with("nesterov", i64::from(nesterov))
                .with("weight_decay", weight_decay);
            let mut inputs = vec![Some(Tensor::scalar(0.1_f32)), Some(noise(shape, 1)), Some(noise(shape, 2))];
            let mut outputs = vec![shape.to_vec()];
            if momentum != 0.0 {
                inputs.push(Some(noise(shape, 3)));
                outputs.push(shape.to_vec());
            }
            check(&Case { op: "SgdStep", attributes, inputs, outputs });
        }
    }
}

#[test]
fn adam_and_adamw() {
    let of = [adam(0.9, 0.999, 1, 0.01), adam(0.9, 0.999, 0, 0.1), adam(0.0, 0.5, 1, 0.0)];
    for (attributes, step) in of.into_iter().zip([0.0_f32, 6.0, 20000.0]) {
        for (largest, shape) in [false, true].into_iter().flat_map(|largest| SHAPES.map(|shape| (largest, shape))) {
            let state = [noise(shape, 1), noise(shape, 2), noise(shape, 3), squares(shape, 4)];
            let mut inputs = vec![Some(Tensor::scalar(0.01_f32))];
            inputs.extend(state.map(Some));
            inputs.push(Some(Tensor::scalar(step)));
            let mut outputs = [vec![shape.to_vec(); 3], vec![vec![]]].concat();
            if largest {
                inputs.push(Some(squares(shape, 5)));
                outputs.push(shape.to_vec());
            }
            check(&Case { op: "AdamStep", attributes: attributes.clone(), inputs, outputs });
        }
    }
}

/// A node whose arrays lie in the memory of the test.
struct Direct {
    gpu: Emulated,
    inputs: Vec<Array>,
    outputs: Vec<Array>,
}

impl Node for Direct {
    fn gpu(&self) -> &dyn Gpu {
        &self.gpu
    }

    fn element(&self) -> Element {
        Element::F32
    }

    fn find(&self, index: usize) -> Result<Option<Array>, String> {
        Ok(self.inputs.get(index).cloned())
    }

    fn wanted(&self, index: usize, shape: &[usize]) -> Result<Option<Array>, String> {
        Ok(self.outputs.get(index).filter(|array| array.shape == shape).cloned())
    }
}

struct Given(Attributes);

impl super::Attributes for Given {
    fn int(&self, name: &str) -> Option<i64> {
        self.0.int(name, i64::MIN).ok().filter(|number| *number != i64::MIN)
    }

    fn float(&self, name: &str) -> Option<f32> {
        self.0.float(name, f32::NAN).ok().filter(|number| !number.is_nan())
    }

    fn ints(&self, _: &str) -> Option<Vec<i64>> {
        None
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        match self.0.get(name) {
            Some(Attribute::Floats(list)) => Some(list.clone()),
            _ => None,
        }
    }

    fn text(&self, _: &str) -> Option<String> {
        None
    }
}

/// Steps twice; outputs lie where their inputs do, or elsewhere and become the inputs of the second step.
fn steps(op: &str, attributes: &Attributes, state: &[usize], inputs: &[Vec<f32>], in_place: bool) -> Vec<Vec<f32>> {
    // 16 bytes at once, as a device's memory is aligned.
    let lay = |values: &[f32]| {
        let mut room = vec![0_u128; values.len().div_ceil(4)];
        // SAFETY: the room has as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), room.as_mut_ptr().cast(), values.len()) };
        room
    };
    let mut given: Vec<Vec<u128>> = inputs.iter().map(|values| lay(values)).collect();
    let mut made: Vec<Vec<u128>> = state.iter().map(|from| vec![0; given[*from].len()]).collect();
    let definition = DEFINITIONS.iter().find(|definition| definition.name == op).expect("the operator is defined");
    let mut compute = (definition.make)(&Given(attributes.clone())).expect("the attributes are there");
    for _ in 0..2 {
        let array = |room: &mut Vec<u128>, len: usize| Array { at: room.as_mut_ptr() as u64, shape: vec![len] };
        let arrays: Vec<Array> = given.iter_mut().zip(inputs).map(|(room, values)| array(room, values.len())).collect();
        let outputs = state.iter().zip(&mut made).map(|(from, room)| match in_place {
            true => arrays[*from].clone(),
            false => array(room, inputs[*from].len()),
        });
        let outputs = outputs.collect();
        computed(&mut *compute, &Direct { gpu: Emulated::default(), inputs: arrays, outputs }).expect("it fits");
        if !in_place {
            state.iter().zip(&made).for_each(|(from, room)| given[*from].clone_from(room));
        }
    }
    let taken = |room: &[u128], len: usize| {
        let bytes: Vec<u8> = room.iter().flat_map(|sixteen| sixteen.to_ne_bytes()).collect();
        let numbers = bytes.chunks_exact(4).map(|four| f32::from_ne_bytes(four.try_into().expect("four bytes")));
        numbers.take(len).collect::<Vec<f32>>()
    };
    state.iter().map(|from| taken(&given[*from], inputs[*from].len())).collect()
}

#[test]
fn in_place_is_the_same() {
    for count in [5, 3000, 40000] {
        let numbers = |seed: u64| noise(&[count], seed).to_vec::<f32>().expect("floats");
        let moments = squares(&[count], 4).to_vec::<f32>().expect("floats");
        let sgd = Attributes::none().with("momentum", 0.9_f32).with("weight_decay", 0.1_f32);
        let inputs = [vec![0.1], numbers(1), numbers(2), numbers(3)];
        let [inside, beside] = [true, false].map(|in_place| steps("SgdStep", &sgd, &[1, 3], &inputs, in_place));
        assert_eq!(inside, beside);
        let inputs = [vec![0.1], numbers(1), numbers(2), numbers(3), moments.clone(), vec![4.0], moments];
        let adam = adam(0.9, 0.99, 1, 0.1);
        let state = [1, 3, 4, 5, 6];
        let [inside, beside] = [true, false].map(|in_place| steps("AdamStep", &adam, &state, &inputs, in_place));
        assert_eq!(inside, beside);
        assert_eq!(inside[3], [6.0]);
    }
}
