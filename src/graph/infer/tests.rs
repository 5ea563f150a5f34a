use super::*;
use crate::graph::{Attribute, Tensor};

/// A fact as text: dtype and dimensions, such as `f N 4 ?`; `-` is an absent input, and
/// `=1,batch,-1` gives the elements of an integer input.
struct Input {
    fact: Option<Fact>,
    numbers: Option<Vec<Number>>,
}

fn input(text: &str) -> Input {
    if text == "-" {
        return Input { fact: None, numbers: None };
    }
    if let Some(list) = text.strip_prefix('=') {
        let number = |word: &str| match word.parse::<f64>() {
            Ok(real) => Number::of_real(real),
            Err(_) if word == "?" => Number::Unknown,
            Err(_) => Number::Size(Size::parse(word)),
        };
        let numbers: Vec<Number> = list.split(',').filter(|word| !word.is_empty()).map(number).collect();
        return Input { fact: Some(Fact::fixed(DType::I64, &[numbers.len()])), numbers: Some(numbers) };
    }
    let mut words = text.split_whitespace();
    let dtype = match words.next() {
        Some("f") => DType::F32,
        Some("h") => DType::F16,
        Some("i") => DType::I64,
        Some("u") => DType::U8,
        Some("b") => DType::Bool,
        other => panic!("no dtype {other:?}"),
    };
    let dims = words.map(|word| match word.parse() {
        Ok(size) => Dim::Known(size),
        Err(_) if word == "?" => Dim::Unknown,
        Err(_) => Dim::Symbol(word.to_string()),
    });
    Input { fact: Some(Fact::new(dtype, dims.collect())), numbers: None }
}

fn attributes(text: &str) -> Attributes {
    text.split_whitespace().fold(Attributes::none(), |attributes, pair| {
        let (name, value) = pair.split_once('=').unwrap();
        let list = |value: &str| value.split(',').map(|word| word.parse::<i64>().unwrap()).collect::<Vec<i64>>();
        match value.strip_prefix('[') {
            Some(values) => attributes.with(name, list(values.trim_end_matches(']'))),
            None => match value.parse::<i64>() {
                Ok(value) => attributes.with(name, value),
                Err(_) => attributes.with(name, value),
            },
        }
    })
}

fn inferred(op: &str, inputs: &[&str], given: &str, outputs: usize) -> String {
    let inputs: Vec<Input> = inputs.iter().map(|text| input(text)).collect();
    let (domain, name) = op.split_once("::").unwrap_or(("", op));
    let call = Call {
        op: &OpId { domain: domain.into(), name: name.into() },
        opset: 18,
        attributes: &attributes(given),
        inputs: inputs.iter().map(|input| input.fact.as_ref()).collect(),
        outputs,
        numbers: &|index| inputs.get(index)?.numbers.clone(),
    };
    infer(&call).iter().map(Fact::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn named_sizes_pass_through() {
    let cases: &[(&str, &[&str], &str, &str)] = &[
        ("Add", &["f N 1 3", "f 4 1"], "", "float32[N,4,3]"),
        ("Add", &["f N", "f M"], "", "float32[?]"),
        ("Reshape", &["f N 4 4", "=-1,16"], "", "float32[N,16]"),
        ("Reshape", &["f N 4 4", "=-1,4"], "", "float32[4*N,4]"),
        ("Reshape", &["f N 4 4", "=0,-1"], "", "float32[N,16]"),
        ("Reshape", &["f 2 4 4", "=-1,8"], "", "float32[4,8]"),
        ("Reshape", &["f N T 64", "=N,T,8,8"], "", "float32[N,T,8,8]"),
        ("Reshape", &["f N T 64", "=N,?,8,8"], "", "float32[N,T,8,8]"),
        ("Reshape", &["f N T 64", "=?,?,64"], "", "float32[?,?,64]"),
        ("Reshape", &["f N 6", "=-1,4"], "", "float32[?,4]"),
        ("Reshape", &["f N 6", "i 3"], "", "float32[?,?,?]"),
        ("Flatten", &["f N 4 5"], "axis=-1", "float32[4*N,5]"),
        ("Flatten", &["f N 4 5"], "axis=3", "float32[20*N,1]"),
        ("Concat", &["f N 2", "f M 2", "f N 2"], "axis=0", "float32[M + 2*N,2]"),
        ("Split", &["f N 6"], "axis=1", "float32[N,3] float32[N,3]"),
        ("Split", &["f 2*N 5", "-"], "axis=0", "float32[N,5] float32[N,5]"),
        ("Slice", &["f N 5", "=1", "=9"], "", "float32[?,5]"),
        ("Slice", &["f N 5", "=0", "=-1"], "", "float32[N - 1,5]"),
        ("Slice", &["f N 5", "=0", "=2147483647", "=0", "=2"], "", "float32[(N + 1)//2,5]"),
        ("Slice", &["f N 5 6", "=1,-1", "=-1,-9", "=1,2", "=2,-2"], "", "float32[N,2,3]"),
        ("Slice", &["f N 5", "=0", "i 1", "=1"], "", "float32[N,?]"),
        ("Pad", &["f N 5", "=0,1,0,-2"], "", "float32[N,4]"),
        ("Pad", &["f N 5", "=1,1"], "axes=0", "float32[..]"),
        ("Pad", &["f N 5", "=1,1", "-", "=0"], "", "float32[N + 2,5]"),
        ("Tile", &["f N 2", "=2,3"], "", "float32[2*N,6]"),
        ("Expand", &["f 1 4", "=N,1"], "", "float32[N,4]"),
        ("ConstantOfShape", &["=N,3"], "", "float32[N,3]"),
        ("Range", &["=0", "=T", "=1"], "", "int64[T]"),
        ("Shape", &["f N 5 6"], "start=-1", "int64[1]"),
        ("Gather", &["f V 64", "i N T"], "axis=0", "float32[N,T,64]"),
        ("MatMul", &["f N 2 3", "f 3 7"], "", "float32[N,2,7]"),
        ("MatMul", &["f N 2 3", "f 3"], "", "float32[N,2]"),
        ("Einsum", &["f N 4 5", "f 5 6"], "equation=bij,jk->bik", "float32[N,4,6]"),
        ("Einsum", &["f N T 4 5", "f 5 6"], "equation=...ij,jk->...ik", "float32[N,T,4,6]"),
        ("Einsum", &["f N 4", "f 4 6"], "equation=ij,jk", "float32[N,6]"),
        ("ReduceMean", &["f N 4 5"], "axes=[-1] keepdims=0", "float32[N,4]"),
        ("ReduceSum", &["f N 4 5", "i 1"], "", "float32[?,?,?]"),
        ("ReduceSum", &["f N 4 5"], "noop_with_empty_axes=1", "float32[N,4,5]"),
        ("OneHot", &["i N", "=10", "f 2"], "axis=-1", "float32[N,10]"),
        ("TopK", &["f N 9", "=4"], "", "float32[N,4] int64[N,4]"),
        ("NonZero", &["f N 9"], "", "int64[2,?]"),
        ("DepthToSpace", &["f N 8 H W"], "blocksize=2", "float32[N,2,2*H,2*W]"),
        ("Resize", &["f N 3 H 5", "-", "=1,1,2,0.5"], "", "float32[N,3,2*H,2]"),
        ("Resize", &["f N 3 7 7", "-", "-", "=N,3,14,9"], "", "float32[N,3,14,9]"),
        ("Conv", &["f N 3 H 31", "f 8 3 3 3"], "strides=[2,2] pads=[1,1,1,1]", "float32[N,8,(H + 1)//2,16]"),
        ("Conv", &["f N 3 32 31", "f 8 3 40 3"], "", "float32[N,8,?,29]"),
        ("Conv", &["f N 3 32 31", "f 8 3 3 3"], "auto_pad=SAME_UPPER strides=[2,2]", "float32[N,8,16,16]"),
        ("ConvTranspose", &["f N 3 H 31", "f 3 5 4 4"], "strides=[2,2] pads=[1,1,1,1] group=2", "float32[N,10,2*H,62]"),
        ("MaxPool", &["f N 3 32 31"], "kernel_shape=[2,2] strides=[2,2] ceil_mode=1", "float32[N,3,16,16]"),
        ("GlobalAveragePool", &["f N 3 H W"], "", "float32[N,3,1,1]"),
        (
            "LSTM",
            &["f T N 8", "f 2 40 8"],
            "hidden_size=10 direction=bidirectional",
            "float32[T,2,N,10] float32[2,N,10]",
        ),
        ("Attention", &["f N 8 T 64", "f N 2 S 64", "f N 2 S 32"], "", "float32[N,8,T,32] float32[N,2,S,64]"),
        ("Dropout", &["h N 4"], "", "float16[N,4] bool[N,4]"),
        ("DequantizeLinear", &["u N 4", "f"], "", "float32[N,4]"),
        ("com.microsoft::FusedMatMul", &["f N 3 4", "f N 5 4"], "transB=1", "float32[N,3,5]"),
        ("com.microsoft::MatMulNBits", &["h N T 64", "u 9"], "K=64 N=128", "float16[N,T,128]"),
        (
            "com.microsoft::GroupQueryAttention",
            &["f N T 96", "-", "-"],
            "num_heads=4 kv_num_heads=1",
            "float32[N,T,64] float32[N,1,T,16]",
        ),
        ("com.microsoft::Attention", &["f N T 64", "f 64 192"], "num_heads=4", "float32[N,T,64] float32[2,N,4,T,16]"),
        (
            "com.microsoft::MultiHeadAttention",
            &["f N T 64", "f N S 64", "f N S 32", "-", "-", "-", "f N 4 P 16", "f N 4 P 8"],
            "num_heads=4",
            "float32[N,T,32] float32[N,4,P + S,16] float32[N,4,P + S,8] float32[N,4,T,P + S]",
        ),
        ("com.microsoft::MultiHeadAttention", &["f N T 4 3 16"], "num_heads=4", "float32[N,T,64] float32[N,4,T,16]"),
        ("com.microsoft::FusedMatMul", &["f 4 N 3 T", "f N 3 T 5"], "transBatchA=1", "float32[N,3,4,5]"),
        ("org.example::Mystery", &["f N"], "", "?[..]"),
    ];
    let failures: Vec<String> = cases
        .iter()
        .map(|(op, inputs, given, expected)| (op, expected, inferred(op, inputs, given, expected.matches('[').count())))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(op, expected, found)| format!("{op}: expected {expected}, found {found}"))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn attributes_of_another_type_are_no_reason_to_stop() {
    for name in ["axis", "perm", "axes", "to", "keepdims", "kernel_shape", "starts", "value", "shape", "equation"] {
        let given = Attributes::none().with(name, Attribute::Tensor(Tensor::scalar(1.0f32)));
        for op in ["Transpose", "Concat", "Cast", "ReduceSum", "MaxPool", "Slice", "ConstantOfShape", "Einsum", "Split"]
        {
            let fact = Fact::fixed(DType::F32, &[2, 3]);
            let call = Call {
                op: &OpId::standard(op),
                opset: 18,
                attributes: &given,
                inputs: vec![Some(&fact), Some(&fact)],
                outputs: 2,
                numbers: &|_| Some(vec![Number::Size(Size::from(i64::MIN)), Number::Size(Size::from(i64::MAX))]),
            };
            assert_eq!(infer(&call).len(), 2, "{op} with {name}");
        }
    }
}

/// Operators of the recorded cases of which a dtype or size is not told: what they count is in the
/// data, or they are rare.
const OPEN: &[&str] = &[
    "CausalConvWithState",
    "Compress",
    "ImageDecoder",
    "LinearAttention",
    "NonMaxSuppression",
    "NonZero",
    "OptionalGetElement",
    "Range",
    "SplitToSequence",
    "StringNormalizer",
    "StringSplit",
    "SwiGLU",
    "TfIdfVectorizer",
    "Unique",
    "ai.onnx.preview::FlexAttention",
    "com.microsoft::GridSample",
    "com.microsoft::GroupQueryAttention",
];

#[test]
fn recorded_operators_agree() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/facts/operators.json");
    let lines: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut wrong, mut open, mut values) = (Vec::new(), std::collections::BTreeMap::new(), 0);
    for line in &lines {
        let name = line[0].as_str().unwrap();
        let (domain, op) = name.split_once("::").unwrap_or(("", name));
        let inputs: Vec<Option<Fact>> = line[3].as_array().unwrap().iter().map(recorded).collect();
        let numbers = |index: usize| {
            let elements = line[3][index][2].as_array()?;
            Some(elements.iter().map(|element| Number::of_real(element.as_f64().unwrap())).collect())
        };
        let outputs = line[4].as_array().unwrap();
        let found = infer(&Call {
            op: &OpId { domain: domain.into(), name: op.into() },
            opset: line[1].as_i64().unwrap(),
            attributes: &recorded_attributes(&line[2]),
            inputs: inputs.iter().map(Option::as_ref).collect(),
            outputs: outputs.len(),
            numbers: &numbers,
        });
        for (found, expected) in found.iter().zip(outputs) {
            let Some(expected) = recorded(expected) else { continue };
            values += 1;
            let size = |(a, b): (&Dim, &Dim)| matches!(a, Dim::Known(_)) && a != b;
            let sizes = found.shape.iter().flatten().zip(expected.shape.iter().flatten());
            let rank = found.rank().is_some_and(|rank| Some(rank) != expected.rank());
            if rank || found.dtype.is_some_and(|dtype| Some(dtype) != expected.dtype) || sizes.into_iter().any(size) {
                wrong.push(format!("{line}: {found}"));
            } else if *found != expected {
                *open.entry(name).or_insert(0) += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unexpected: Vec<_> = open.iter().filter(|(name, _)| !OPEN.contains(name)).collect();
    assert!(unexpected.is_empty(), "of {values} values {} are open: {unexpected:?}", open.values().sum::<i32>());
}

fn recorded(value: &serde_json::Value) -> Option<Fact> {
    let dims = value[1].as_array()?.iter().map(|size| size.as_u64().unwrap() as usize).collect::<Vec<_>>();
    Some(Fact::fixed(DType::from_code(value[0].as_i64()? as i32), &dims))
}

fn recorded_attributes(values: &serde_json::Value) -> Attributes {
    let integers = |list: &Vec<serde_json::Value>| list.iter().map(|item| item.as_i64().unwrap()).collect::<Vec<_>>();
    values.as_object().unwrap().iter().fold(Attributes::none(), |attributes, (name, value)| match value {
        serde_json::Value::Number(number) => attributes.with(name, number.as_i64().unwrap()),
        serde_json::Value::String(text) => attributes.with(name, text.as_str()),
        serde_json::Value::Array(list) => attributes.with(name, integers(list)),
        value => match (value.get("float"), value.get("floats"), value.get("dtype")) {
            (Some(float), ..) => attributes.with(name, float.as_f64().unwrap() as f32),
            (_, Some(floats), _) => {
                let floats = floats.as_array().unwrap().iter().map(|float| float.as_f64().unwrap() as f32);
                attributes.with(name, Attribute::Floats(floats.collect()))
            }
            (.., Some(dtype)) => {
                let shape: Vec<usize> =
                    value["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
                attributes.with(name, Tensor::zeros(DType::from_code(dtype.as_i64().unwrap() as i32), &shape))
            }
            _ => attributes,
        },
    })
}
