//! The table of the kernels of ONNX Runtime's CUDA execution provider (`cuda_kernels.txt`), and what it has for a node.
//!
//! A kernel without a last opset serves the version of the operator that begins at its first opset and no later one: so
//! ONNX Runtime reads it.

use super::Reason;
use crate::graph::{DType, OpId};
use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("cuda_kernels.txt");
const REPEATED: &str = "*";

/// An operator's versions and kernels.
#[derive(Default)]
struct Operator {
    versions: Vec<Version>,
    kernels: Vec<Kernel>,
}

/// Which type constraint each input and output of an operator has from an opset on.
struct Version {
    since: i64,
    inputs: Vec<&'static str>,
    outputs: Vec<&'static str>,
}

struct Kernel {
    first: i64,
    last: Option<i64>,
    types: HashMap<&'static str, Vec<DType>>,
}

struct Table {
    operators: HashMap<&'static str, Operator>,
    /// Opsets from which an operator that no provider has a kernel of is replaced by the operators of its definition.
    functions: HashMap<&'static str, Vec<i64>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read(TEXT).expect("invariant: the table is well formed"));

/// Returns why the provider has no kernel of an operator for these types; `Ok` where it has one. A type that is not known
/// is taken for one that fits.
pub(super) fn find(
    op: &OpId,
    opset: i64,
    inputs: &[Option<DType>],
    outputs: &[Option<DType>],
) -> Result<(), (Reason, Option<DType>)> {
    let name = if op.domain.is_empty() { op.name.clone() } else { format!("{}:{}", op.domain, op.name) };
    let functions = TABLE.functions.get(name.as_str());
    if functions.is_some_and(|since| since.iter().any(|since| *since <= opset)) {
        return Ok(());
    }
    let Some(operator) = TABLE.operators.get(name.as_str()) else { return Err((Reason::Operator, None)) };
    let Some(version) = operator.versions.iter().rfind(|version| version.since <= opset) else {
        return Err((Reason::Operator, None));
    };
    let serves = |kernel: &&Kernel| {
        kernel.first == version.since
            || kernel.first < version.since && kernel.last.is_some_and(|last| version.since <= last)
    };
    let kernels: Vec<&Kernel> = operator.kernels.iter().filter(serves).collect();
    if kernels.is_empty() {
        return Err((Reason::Opset(version.since), None));
    }
    let values = constrained(&version.inputs, inputs).chain(constrained(&version.outputs, outputs));
    let values: Vec<(&str, DType)> = values.collect();
    if kernels.iter().any(|kernel| values.iter().all(|(constraint, dtype)| kernel.takes(constraint, *dtype))) {
        return Ok(());
    }
    let (constraint, dtype) = values
        .iter()
        .find(|(constraint, dtype)| !kernels.iter().any(|kernel| kernel.takes(constraint, *dtype)))
        .or(values.first())
        .copied()
        .unzip();
    let takes = kernels.iter().filter_map(|kernel| kernel.types.get(constraint?)).flatten().copied();
    let mut takes: Vec<DType> = takes.collect();
    takes.sort();
    takes.dedup();
    Err((Reason::Type { takes }, dtype))
}

impl Kernel {
    fn takes(&self, constraint: &str, dtype: DType) -> bool {
        self.types.get(constraint).is_none_or(|types| types.is_empty() || types.contains(&dtype))
    }
}

/// Returns the constraint and dtype of each value that has both.
fn constrained<'a>(
    constraints: &'a [&'static str],
    values: &'a [Option<DType>],
) -> impl Iterator<Item = (&'static str, DType)> + 'a {
    let repeated = constraints.last() == Some(&REPEATED);
    let given = if repeated { &constraints[..constraints.len() - 1] } else { constraints };
    values.iter().enumerate().filter_map(move |(index, dtype)| {
        let constraint = given.get(index).or(given.last().filter(|_| repeated))?;
        Some((*constraint, (*dtype)?))
    })
}

fn read(text: &'static str) -> Option<Table> {
    let mut table = Table { operators: HashMap::new(), functions: HashMap::new() };
    let mut operator = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match words.next()? {
            "op" => {
                let name = words.next()?;
                let versions = words.map(version).collect::<Option<Vec<Version>>>()?;
                table.operators.insert(name, Operator { versions, kernels: Vec::new() });
                operator = Some(name);
            }
            "function" => {
                let name = words.next()?;
                table.functions.insert(name, words.map(|since| since.parse().ok()).collect::<Option<_>>()?);
            }
            first => {
                let last = Some(words.next()?).filter(|last| *last != "-").map(str::parse).transpose().ok()?;
                let types = words.map(constraint).collect::<Option<_>>()?;
                let kernel = Kernel { first: first.parse().ok()?, last, types };
                table.operators.get_mut(operator?)?.kernels.push(kernel);
            }
        }
    }
    Some(table)
}

/// `13:T,Tind>T`
fn version(word: &'static str) -> Option<Version> {
    let (since, parameters) = word.split_once(':')?;
    let (inputs, outputs) = parameters.split_once('>')?;
    Some(Version {
        since: since.parse().ok()?,
        inputs: inputs.split(',').collect(),
        outputs: outputs.split(',').collect(),
    })
}

/// `T=f32,f16`
fn constraint(word: &'static str) -> Option<(&'static str, Vec<DType>)> {
    let (name, types) = word.split_once('=')?;
    Some((name, types.split(',').filter(|name| !name.is_empty()).map(dtype).collect::<Option<_>>()?))
}

fn dtype(name: &str) -> Option<DType> {
    let dtype = match name {
        "f32" => DType::F32,
        "f64" => DType::F64,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        "bool" => DType::Bool,
        "string" => DType::String,
        "i8" => DType::I8,
        "i16" => DType::I16,
        "i32" => DType::I32,
        "i64" => DType::I64,
        "u8" => DType::U8,
        "u16" => DType::U16,
        "u32" => DType::U32,
        "u64" => DType::U64,
        _ => return None,
    };
    Some(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case(&'static str, i64, &'static [DType], &'static [DType], Option<Reason>);

    #[test]
    fn kernels_are_those_that_the_provider_registers() {
        use DType::{BF16, Bool, F16, F32, F64, I32, I64, U8};
        let without = Some(Reason::Operator);
        let types = |takes: &[DType]| Some(Reason::Type { takes: takes.to_vec() });
        let cases = [
            Case("Relu", 21, &[F32], &[F32], None),
            Case("Celu", 21, &[F32], &[F32], without.clone()),
            Case("MaxPool", 21, &[F32], &[F32, I64], None),
            // The kernel has no last opset, so it serves MaxPool-12 alone.
            Case("MaxPool", 22, &[F32], &[F32], Some(Reason::Opset(22))),
            Case("Dropout", 21, &[F32, F32, Bool], &[F32, Bool], None),
            Case("Dropout", 22, &[F32, F32, Bool], &[F32, Bool], Some(Reason::Opset(22))),
            Case("Softplus", 22, &[BF16], &[BF16], None),
            Case("Where", 21, &[Bool, F16, F16], &[F16], None),
            Case("Where", 21, &[Bool, Bool, Bool], &[Bool], types(&[F32, U8, I32, I64, F16, F64, BF16])),
            Case("Pad", 21, &[I64, I64], &[I64], types(&[F32, DType::Bool, F16, F64])),
            Case("Sum", 21, &[F32, F32, F32, F32], &[F32], None),
            Case("Sum", 21, &[I32, I32], &[I32], types(&[F32, F16, F64, BF16])),
            Case("NotAnOperator", 21, &[F32], &[F32], without),
        ];
        let mut failures = Vec::new();
        for Case(name, opset, inputs, outputs, expected) in cases {
            let some = |dtypes: &[DType]| dtypes.iter().copied().map(Some).collect::<Vec<_>>();
            let found = find(&OpId::standard(name), opset, &some(inputs), &some(outputs));
            let found = found.err().map(|(reason, _)| reason);
            if found != expected {
                failures.push(format!("{name} {opset} {inputs:?}: expected {expected:?}, found {found:?}"));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
