//! Tensors: a dtype, a shape and little-endian bytes, shared or mapped rather than copied.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// Element type of a tensor. Names and codes are ONNX's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    String,
    Bool,
    F16,
    F64,
    U32,
    U64,
    BF16,
    /// A type that this program moves but does not compute with; the number is ONNX's code.
    Other(i32),
}

const DTYPES: [(DType, i32, &str, usize); 14] = [
    (DType::F32, 1, "float32", 4),
    (DType::U8, 2, "uint8", 1),
    (DType::I8, 3, "int8", 1),
    (DType::U16, 4, "uint16", 2),
    (DType::I16, 5, "int16", 2),
    (DType::I32, 6, "int32", 4),
    (DType::I64, 7, "int64", 8),
    (DType::String, 8, "string", 0),
    (DType::Bool, 9, "bool", 1),
    (DType::F16, 10, "float16", 2),
    (DType::F64, 11, "float64", 8),
    (DType::U32, 12, "uint32", 4),
    (DType::U64, 13, "uint64", 8),
    (DType::BF16, 16, "bfloat16", 2),
];

/// Types that are moved but not computed with: ONNX's code, name, bits of an element.
const OTHERS: [(i32, &str, usize); 14] = [
    (14, "complex64", 64),
    (15, "complex128", 128),
    (17, "float8e4m3fn", 8),
    (18, "float8e4m3fnuz", 8),
    (19, "float8e5m2", 8),
    (20, "float8e5m2fnuz", 8),
    (21, "uint4", 4),
    (22, "int4", 4),
    (23, "float4e2m1", 4),
    (24, "float8e8m0", 8),
    (25, "uint2", 2),
    (26, "int2", 2),
    (27, "float6e2m3", 6),
    (28, "float6e3m2", 6),
];

impl DType {
    /// Returns the dtype of an ONNX `TensorProto.DataType` code.
    pub fn from_code(code: i32) -> DType {
        DTYPES.iter().find(|row| row.1 == code).map_or(DType::Other(code), |row| row.0)
    }

    /// Returns the ONNX `TensorProto.DataType` code.
    pub fn code(self) -> i32 {
        match self {
            DType::Other(code) => code,
            _ => DTYPES.iter().find(|row| row.0 == self).map_or(0, |row| row.1),
        }
    }

    /// Returns the size of one element in bytes; 0 where it has no fixed whole size.
    pub fn size(self) -> usize {
        self.bits() / 8
    }

    /// Returns the size of one element in bits, those of less than a byte being packed; 0 for
    /// strings and unknown types.
    pub fn bits(self) -> usize {
        match self {
            DType::Other(code) => OTHERS.iter().find(|row| row.0 == code).map_or(0, |row| row.2),
            _ => DTYPES.iter().find(|row| row.0 == self).map_or(0, |row| 8 * row.3),
        }
    }

    /// Returns true for the floating-point types that gradients can have.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// Returns the dtype of a name as printed by `Display` (`float32`, `int64`, ..).
    pub fn from_name(name: &str) -> Option<DType> {
        DTYPES.iter().find(|row| row.2 == name).map(|row| row.0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Other(code) => match OTHERS.iter().find(|row| row.0 == *code) {
                Some(row) => f.write_str(row.1),
                None => write!(f, "onnx-type-{code}"),
            },
            _ => f.write_str(DTYPES.iter().find(|row| row.0 == *self).map_or("?", |row| row.2)),
        }
    }
}

/// A dense tensor in row-major order. Cloning shares the bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// The bytes of a tensor do not fit its dtype and shape, or it has another dtype than asked for.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum TensorError {
    #[error("{dtype}{shape:?} needs {expected} bytes, found {found}")]
    Size { dtype: DType, shape: Vec<usize>, expected: usize, found: usize },
    #[error("shape {shape:?} has more elements than this machine can address")]
    Overflow { shape: Vec<usize> },
    #[error("expected a tensor of {expected}, found {found}")]
    DType { expected: &'static str, found: DType },
}

impl Tensor {
    /// Returns a tensor over little-endian bytes.
    ///
    /// # Errors
    /// The byte count must be the product of the shape times the element size.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Tensor, TensorError> {
        let overflow = || TensorError::Overflow { shape: shape.clone() };
        let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim)).ok_or_else(overflow)?;
        // In bits a tensor may be too large for the machine that it fits as bytes.
        let expected = (count as u128 * dtype.bits() as u128).div_ceil(8);
        let expected = usize::try_from(expected).map_err(|_| overflow())?;
        if dtype.bits() > 0 && expected != data.len() {
            return Err(TensorError::Size { dtype, shape, expected, found: data.len() });
        }
        Ok(Tensor { dtype, shape, data })
    }

    /// Returns a tensor of the given elements.
    ///
    /// # Panics
    /// When the number of elements is not the product of the shape.
    pub fn from_vec<T: Element>(shape: &[usize], elements: Vec<T>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), elements.len(), "elements must fill {shape:?}");
        let mut data = Vec::with_capacity(elements.len() * T::DTYPE.size());
        elements.iter().for_each(|element| element.put(&mut data));
        Tensor { dtype: T::DTYPE, shape: shape.to_vec(), data: data.into() }
    }

    /// Returns a tensor of rank 0.
    pub fn scalar<T: Element>(element: T) -> Tensor {
        Tensor::from_vec(&[], vec![element])
    }

    /// Returns a scalar of a floating-point dtype, rounded from f64.
    pub fn float_scalar(dtype: DType, value: f64) -> Tensor {
        Tensor::float_full(dtype, &[], value)
    }

    /// Returns a tensor of a floating-point or integer dtype filled with one value.
    pub fn float_full(dtype: DType, shape: &[usize], value: f64) -> Tensor {
        let count = shape.iter().product();
        match dtype {
            DType::F64 => Tensor::from_vec(shape, vec![value; count]),
            DType::F16 | DType::BF16 => {
                let bits = if dtype == DType::F16 { f16_bits(value as f32) } else { bf16_bits(value as f32) };
                let data: Vec<u8> = bits.to_le_bytes().repeat(count);
                Tensor { dtype, shape: shape.to_vec(), data: data.into() }
            }
            DType::I64 => Tensor::from_vec(shape, vec![value as i64; count]),
            DType::I32 => Tensor::from_vec(shape, vec![value as i32; count]),
            _ => Tensor::from_vec(shape, vec![value as f32; count]),
        }
    }

    /// Returns a rank-1 int64 tensor, as shapes and axes are.
    pub fn ints(values: &[i64]) -> Tensor {
        Tensor::from_vec(&[values.len()], values.to_vec())
    }

    /// Returns a tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let size = shape.iter().product::<usize>() * dtype.size();
        Tensor { dtype, shape: shape.to_vec(), data: vec![0; size].into() }
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns true when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the little-endian bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// Returns the elements as `T`.
    ///
    /// # Errors
    /// The dtype must be exactly `T`'s.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        if self.dtype != T::DTYPE {
            return Err(TensorError::DType { expected: T::NAME, found: self.dtype });
        }
        Ok(self.data.chunks_exact(T::DTYPE.size()).map(T::get).collect())
    }

    /// Returns the elements of any integer or floating-point tensor as f64; `None` for others.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        fn all<T: Element>(data: &[u8], convert: fn(T) -> f64) -> Vec<f64> {
            data.chunks_exact(T::DTYPE.size()).map(|chunk| convert(T::get(chunk))).collect()
        }
        let data = &self.data;
        Some(match self.dtype {
            DType::F32 => all::<f32>(data, f64::from),
            DType::F64 => all::<f64>(data, |v| v),
            DType::F16 => all::<u16>(data, |v| f64::from(f16_value(v))),
            DType::BF16 => all::<u16>(data, |v| f64::from(f32::from_bits(u32::from(v) << 16))),
            DType::I64 => all::<i64>(data, |v| v as f64),
            DType::I32 => all::<i32>(data, f64::from),
            DType::I16 => all::<i16>(data, f64::from),
            DType::I8 => all::<i8>(data, f64::from),
            DType::U64 => all::<u64>(data, |v| v as f64),
            DType::U32 => all::<u32>(data, f64::from),
            DType::U16 => all::<u16>(data, f64::from),
            DType::U8 | DType::Bool => data.iter().map(|v| f64::from(*v)).collect(),
            DType::String | DType::Other(_) => return None,
        })
    }

    /// Returns a floating-point tensor in another floating-point dtype, rounded to the nearest, ties to even; `None` where
    /// one of them is not floating-point.
    pub fn cast_float(&self, dtype: DType) -> Option<Tensor> {
        if !self.dtype.is_float() {
            return None;
        }
        if self.dtype == dtype {
            return Some(self.clone());
        }
        let values = self.to_f64s()?;
        let halves = |bits: fn(f32) -> u16| values.iter().flat_map(|v| bits(*v as f32).to_le_bytes()).collect();
        let data: Vec<u8> = match dtype {
            DType::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F32 => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
            DType::F16 => halves(f16_bits),
            DType::BF16 => halves(bf16_bits),
            _ => return None,
        };
        Some(Tensor { dtype, shape: self.shape.clone(), data: data.into() })
    }

    /// Returns float32 elements rounded to float16 or bfloat16, the nearest and of two the even one; finite ones beyond
    /// its range become its largest number of their sign. `None` for other dtypes.
    pub fn rounded(&self, dtype: DType) -> Option<Tensor> {
        let (bits, largest): (fn(f32) -> u16, f32) = match dtype {
            DType::F16 => (f16_bits, 65504.0),
            DType::BF16 => (bf16_bits, f32::from_bits(0x7f7f_0000)),
            _ => return None,
        };
        let within = |value: f32| if value.is_finite() { value.clamp(-largest, largest) } else { value };
        let elements = self.to_vec::<f32>().ok()?;
        let data: Vec<u8> = elements.into_iter().flat_map(|value| bits(within(value)).to_le_bytes()).collect();
        Some(Tensor { dtype, shape: self.shape.clone(), data: data.into() })
    }

    /// Returns the elements of an int64 or int32 tensor; `None` for other dtypes.
    pub fn to_ints(&self) -> Option<Vec<i64>> {
        match self.dtype {
            DType::I64 => self.to_vec::<i64>().ok(),
            DType::I32 => Some(self.to_vec::<i32>().ok()?.into_iter().map(i64::from).collect()),
            _ => None,
        }
    }

    /// Returns the bytes in memory aligned for any element type, copying only when they are not.
    pub fn aligned(&self) -> Cow<'_, [u8]> {
        let align = self.dtype.size().max(1);
        if (self.data.as_ptr() as usize).is_multiple_of(align) {
            return Cow::Borrowed(&self.data);
        }
        Cow::Owned(self.data.to_vec())
    }

    /// Returns the same elements under another shape.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "reshape keeps the element count");
        Tensor { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        let few = self.len() <= 8;
        match few.then(|| self.to_f64s()).flatten() {
            Some(values) => write!(f, "={values:?}"),
            None => Ok(()),
        }
    }
}

/// A Rust type that a tensor can hold.
pub trait Element: Copy + 'static {
    /// The dtype of a tensor of this type.
    const DTYPE: DType;
    /// The dtype's name in errors.
    const NAME: &'static str;
    /// Appends the little-endian bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads one element from exactly its bytes.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($type:ty, $dtype:ident, $name:literal;)*) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            const NAME: &'static str = $name;
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                <$type>::from_le_bytes(bytes.try_into().expect("invariant: one whole element"))
            }
        }
    )*};
}

element! {
    f32, F32, "float32"; f64, F64, "float64"; i64, I64, "int64"; i32, I32, "int32";
    i16, I16, "int16"; i8, I8, "int8"; u64, U64, "uint64"; u32, U32, "uint32";
    u16, U16, "uint16"; u8, U8, "uint8";
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    const NAME: &'static str = "bool";
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounding = 0x7fff + ((bits >> 16) & 1);
    if value.is_nan() { 0x7fc0 } else { ((bits.wrapping_add(rounding)) >> 16) as u16 }
}

fn f16_value(bits: u16) -> f32 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

fn f16_bits(value: f32) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if value.is_nan() {
        return 0x7e00;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    if magnitude < 2f32.powi(-14) {
        return sign | (magnitude * 2f32.powi(24)).round_ties_even() as u16;
    }
    let exponent = ((magnitude.to_bits() >> 23) as i32) - 127;
    let scaled = (magnitude / 2f32.powi(exponent) * 1024.0).round_ties_even() as i32;
    sign | (((exponent + 15) << 10) + (scaled - 1024)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_fill_the_shape() {
        let error = Tensor::new(DType::F32, vec![2, 3], Bytes::from_static(&[0; 20])).unwrap_err();
        assert_eq!(error.to_string(), "float32[2, 3] needs 24 bytes, found 20");
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], Bytes::new()).is_err());
    }

    #[test]
    fn packed_elements_fill_whole_bytes() {
        for (code, count, bytes) in [(22, 3, 2), (21, 4, 2), (26, 5, 2), (17, 3, 3), (14, 1, 8)] {
            let data = Bytes::from(vec![0; bytes]);
            assert!(Tensor::new(DType::from_code(code), vec![count], data.clone()).is_ok(), "{code}");
            assert!(Tensor::new(DType::from_code(code), vec![count + 4], data).is_err(), "{code}");
        }
        assert!(Tensor::new(DType::Other(99), vec![1 << 62, 4], Bytes::new()).is_err());
        assert_eq!(DType::from_code(22).to_string(), "int4");
    }

    #[test]
    fn half_precision_round_trips() {
        for value in [0.0, 1.0, -2.5, 65504.0, 6.1e-5, 5.96e-8, 0.333_251_95] {
            let tensor = Tensor::float_scalar(DType::F16, value);
            let back = tensor.to_f64s().unwrap()[0];
            assert!((back - value).abs() <= value.abs() * 1e-3 + 1e-8, "{value} became {back}");
        }
    }

    #[test]
    fn elements_are_rounded_to_the_nearest_and_stay_finite() {
        let cases = [
            (DType::F16, 1.0 + 2f32.powi(-11), 1.0),
            (DType::F16, 1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-9)),
            (DType::F16, 1e6, 65504.0),
            (DType::F16, -65519.0, -65504.0),
            (DType::F16, f32::INFINITY, f32::INFINITY),
            (DType::F16, 1e-8, 0.0),
            (DType::F16, 2f32.powi(-24), 2f32.powi(-24)),
            (DType::BF16, 1.0 + 2f32.powi(-8), 1.0),
            (DType::BF16, 1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6)),
            (DType::BF16, f32::MIN, -f32::from_bits(0x7f7f_0000)),
            (DType::BF16, f32::NEG_INFINITY, f32::NEG_INFINITY),
        ];
        for (dtype, value, expected) in cases {
            let rounded = Tensor::scalar(value).rounded(dtype).unwrap();
            assert_eq!(rounded.dtype(), dtype);
            assert_eq!(rounded.cast_float(DType::F32), Some(Tensor::scalar(expected)), "{value} in {dtype}");
        }
        let nan = Tensor::scalar(f32::NAN).rounded(DType::F16).unwrap().cast_float(DType::F32).unwrap();
        assert!(nan.to_f64s().unwrap()[0].is_nan());
        assert_eq!(Tensor::scalar(1_i64).rounded(DType::F16), None);
    }

    #[test]
    fn dtype_codes_and_names_round_trip() {
        for (dtype, code, name, _) in DTYPES {
            assert_eq!(DType::from_code(code), dtype);
            assert_eq!(dtype.code(), code);
            assert_eq!(DType::from_name(name), Some(dtype));
        }
        assert_eq!(DType::from_code(17).code(), 17);
    }
}
