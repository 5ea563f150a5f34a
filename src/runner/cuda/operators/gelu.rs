//! Gelu.

use super::super::gpu::Arguments;
use super::super::kernels::GELU as SOURCE;
use super::{Attributes, Compute, DATA, Definition, Node, long};

pub(super) static GELU: Definition = Definition {
    name: "Gelu",
    inputs: &[DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Gelu { kernel: kernel(node, ["gelu_erf", "gelu_tanh"])?, gradient: false })),
};

pub(super) static GELU_GRAD: Definition = Definition {
    name: "GeluGrad",
    inputs: &[DATA, DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Gelu { kernel: kernel(node, ["gelu_erf_grad", "gelu_tanh_grad"])?, gradient: true })),
};

fn kernel(node: &dyn Attributes, [erf, tanh]: [&'static str; 2]) -> Result<&'static str, String> {
    match node.text("approximate").as_deref() {
        None | Some("" | "none") => Ok(erf),
        Some("tanh") => Ok(tanh),
        Some(other) => Err(format!("approximate \"{other}\" is not known")),
    }
}

struct Gelu {
    kernel: &'static str,
    gradient: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GeluArguments {
    x: u64,
    dy: u64,
    out: u64,
    count: i64,
}

// SAFETY: the fields of `gelu_arguments` in gelu.cu, without padding.
unsafe impl Arguments for GeluArguments {}

impl Compute for Gelu {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (x, dy) = match self.gradient {
            true => node.alike(0, 1).map(|[dy, x]| (x, dy.at))?,
            false => (node.input(0)?, 0),
        };
        let out = node.output(0, &x.shape)?;
        let (count, element) = (x.count(), node.element());
        let arguments = GeluArguments { x: x.at, dy, out: out.at, count: long(count) };
        node.gpu().each(&SOURCE, self.kernel, element, count.div_ceil(16 / element.size()), &arguments)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    #[test]
    fn both_forms() {
        for approximate in ["none", "tanh"] {
            let attributes = Attributes::none().with("approximate", approximate);
            for shape in [vec![1], vec![3, 5], vec![2, 7, 768]] {
                let mut wide: Vec<f32> = noise(&shape, 1).to_vec().expect("floats");
                wide.iter_mut().for_each(|x| *x *= 8.0);
                wide[0] = 1.5;
                let (x, dy) = (Some(Tensor::from_vec(&shape, wide)), Some(noise(&shape, 2)));
                let (inputs, outputs) = (vec![x.clone()], vec![shape.clone()]);
                check(&Case { op: "Gelu", attributes: attributes.clone(), inputs, outputs: outputs.clone() });
                check(&Case { op: "GeluGrad", attributes: attributes.clone(), inputs: vec![dy, x], outputs });
            }
        }
    }

    #[test]
    fn far_from_zero() {
        let x = Some(Tensor::from_vec(&[6], vec![3e4_f32, -3e4, 40.0, -40.0, 0.0, -9.0]));
        let ones = Some(Tensor::from_vec(&[6], vec![1.0_f32; 6]));
        for approximate in ["none", "tanh"] {
            let attributes = Attributes::none().with("approximate", approximate);
            for (op, inputs) in [("Gelu", vec![x.clone()]), ("GeluGrad", vec![ones.clone(), x.clone()])] {
                check(&Case { op, attributes: attributes.clone(), inputs, outputs: vec![vec![6]] });
            }
        }
    }
}
