//! Arithmetic on single elements, as the model's dtype rounds it.

use crate::graph::{DType, Number, Size};
use std::cmp::Ordering;

fn truth(value: bool) -> Number {
    Number::Size(Size::from(i64::from(value)))
}

fn symbolic(size: Option<Size>) -> Number {
    size.map_or(Number::Unknown, Number::Size)
}

/// Returns a real number as a dtype stores it.
fn rounded(real: f64, dtype: DType) -> Number {
    match dtype {
        DType::F64 => Number::of_real(real),
        DType::F32 => Number::of_real(f64::from(real as f32)),
        DType::F16 | DType::BF16 if real.fract() == 0.0 && real.abs() <= 256.0 => Number::of_real(real),
        _ => Number::Unknown,
    }
}

/// Returns an integer as a dtype stores it; what wraps around is unknown.
fn stored(size: Option<Size>, dtype: DType) -> Number {
    let range = match dtype {
        DType::I64 => return symbolic(size),
        DType::I32 => i64::from(i32::MIN)..=i64::from(i32::MAX),
        DType::I16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        DType::I8 => i64::from(i8::MIN)..=i64::from(i8::MAX),
        DType::U8 => 0..=i64::from(u8::MAX),
        DType::U16 => 0..=i64::from(u16::MAX),
        DType::U32 => 0..=i64::from(u32::MAX),
        _ => return Number::Unknown,
    };
    match size.as_ref().map(Size::fixed) {
        Some(Some(fixed)) if range.contains(&fixed) => symbolic(size),
        Some(None) if dtype == DType::I32 => symbolic(size),
        _ => Number::Unknown,
    }
}

/// Returns an element cast to a dtype.
pub(super) fn cast(number: &Number, to: DType) -> Number {
    match (number, to) {
        (Number::Unknown, _) => Number::Unknown,
        (number, DType::Bool) => match (number.real(), number) {
            (Some(real), _) => truth(real != 0.0),
            (None, Number::Size(size)) if size.at_least().is_some_and(|least| least > 0) => truth(true),
            _ => Number::Unknown,
        },
        (number, to) if to.is_float() => match (number.real(), number) {
            (Some(real), _) => rounded(real, to),
            (None, symbol) => symbol.clone(),
        },
        (Number::Real(real), to) if real.is_finite() && real.abs() < 9e15 => {
            stored(Some(Size::from(real.trunc() as i64)), to)
        }
        (Number::Size(size), to) => stored(Some(size.clone()), to),
        _ => Number::Unknown,
    }
}

/// Returns the result of an operator of one input; `None` for operators that are not known here.
pub(super) fn unary(op: &str, number: &Number, dtype: DType) -> Option<Number> {
    let real = |apply: fn(f64) -> f64| number.real().map_or(Number::Unknown, |real| rounded(apply(real), dtype));
    Some(match op {
        "Floor" | "Ceil" | "Round" => match number {
            Number::Size(_) => number.clone(),
            _ if op == "Floor" => real(f64::floor),
            _ if op == "Ceil" => real(f64::ceil),
            _ => real(f64::round_ties_even),
        },
        "Sqrt" => real(f64::sqrt),
        "Reciprocal" => real(f64::recip),
        "Neg" if dtype.is_float() => real(|real| -real),
        "Neg" => match number {
            Number::Size(size) => stored(size.times(&Size::from(-1)), dtype),
            _ => Number::Unknown,
        },
        "Abs" if dtype.is_float() => real(f64::abs),
        "Abs" => match number {
            Number::Size(size) if size.at_least().is_some_and(|least| least >= 0) => number.clone(),
            Number::Size(size) => stored(size.fixed().and_then(i64::checked_abs).map(Size::from), dtype),
            _ => Number::Unknown,
        },
        "Not" => number.fixed().map_or(Number::Unknown, |value| truth(value == 0)),
        _ => return None,
    })
}

/// Returns how two elements compare, where that is sure.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (a.fixed(), b.fixed()) {
        return Some(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (a.real(), b.real()) {
        return a.partial_cmp(&b);
    }
    let (Number::Size(a), Number::Size(b)) = (a, b) else { return None };
    let difference = a.minus(b)?;
    if let Some(fixed) = difference.fixed() {
        return Some(fixed.cmp(&0));
    }
    if difference.at_least().is_some_and(|least| least > 0) {
        return Some(Ordering::Greater);
    }
    b.minus(a)?.at_least().is_some_and(|least| least > 0).then_some(Ordering::Less)
}

/// Returns true where `a >= b` is sure, also when they may be equal.
fn no_less(a: &Number, b: &Number) -> bool {
    match (a, b) {
        (Number::Size(a), Number::Size(b)) => {
            a.minus(b).and_then(|difference| difference.at_least()).is_some_and(|least| least >= 0)
        }
        _ => compare(a, b).is_some_and(|order| order != Ordering::Less),
    }
}

/// Returns the result of an operator of two inputs of a dtype; `None` for operators that are not
/// known here. `floor` says that `Mod` takes the sign of the divisor.
pub(super) fn binary(op: &str, a: &Number, b: &Number, dtype: DType, floor: bool) -> Option<Number> {
    let test = |wanted: fn(Ordering) -> bool| compare(a, b).map_or(Number::Unknown, |order| truth(wanted(order)));
    Some(match op {
        "Equal" => test(Ordering::is_eq),
        "Less" => test(Ordering::is_lt),
        "Greater" => test(Ordering::is_gt),
        "LessOrEqual" if no_less(b, a) => truth(true),
        "LessOrEqual" => test(Ordering::is_le),
        "GreaterOrEqual" if no_less(a, b) => truth(true),
        "GreaterOrEqual" => test(Ordering::is_ge),
        "And" | "Or" | "Xor" => logic(op, a.fixed().map(|a| a != 0), b.fixed().map(|b| b != 0)),
        "Max" | "Min" => match (no_less(a, b), no_less(b, a)) {
            (true, _) => {
                if op == "Max" {
                    a.clone()
                } else {
                    b.clone()
                }
            }
            (_, true) => {
                if op == "Max" {
                    b.clone()
                } else {
                    a.clone()
                }
            }
            _ => Number::Unknown,
        },
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" if dtype.is_float() => real(op, a, b, dtype),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" => match (a, b) {
            (Number::Size(a), Number::Size(b)) => stored(integer(op, a, b, floor), dtype),
            (Number::Size(zero), _) | (_, Number::Size(zero)) if op == "Mul" && zero.fixed() == Some(0) => truth(false),
            _ => Number::Unknown,
        },
        _ => return None,
    })
}

fn logic(op: &str, a: Option<bool>, b: Option<bool>) -> Number {
    let known = match (op, a, b) {
        ("And", Some(false), _) | ("And", _, Some(false)) => Some(false),
        ("And", Some(a), Some(b)) => Some(a && b),
        ("Or", Some(true), _) | ("Or", _, Some(true)) => Some(true),
        ("Or", Some(a), Some(b)) => Some(a || b),
        ("Xor", Some(a), Some(b)) => Some(a != b),
        _ => None,
    };
    known.map_or(Number::Unknown, truth)
}

fn integer(op: &str, a: &Size, b: &Size, floor: bool) -> Option<Size> {
    match op {
        "Add" => a.plus(b),
        "Sub" => a.minus(b),
        "Mul" => a.times(b),
        "Pow" => Some(Size::from(a.fixed()?.checked_pow(u32::try_from(b.fixed()?).ok()?)?)),
        "Mod" => match (a.fixed(), b.fixed()) {
            (Some(a), Some(b)) => {
                let rest = a.checked_rem(b)?;
                Some(Size::from(if floor && rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
            }
            _ => a.exactly_by(b).map(|_| Size::from(0)),
        },
        _ => match (a.fixed(), b.fixed()) {
            // Integers are cut towards zero.
            (Some(a), Some(b)) => a.checked_div(b).map(Size::from),
            _ => a.exactly_by(b).or_else(|| a.at_least().filter(|least| *least >= 0).and(a.floor_by(b.fixed()?))),
        },
    }
}

fn real(op: &str, a: &Number, b: &Number, dtype: DType) -> Number {
    if let (Some(a), Some(b)) = (a.real(), b.real()) {
        let result = match op {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            "Pow" if b == 2.0 => a * a,
            "Pow" if b == 0.5 => a.sqrt(),
            "Pow" if b == 1.0 => a,
            _ => return Number::Unknown,
        };
        return if result.is_finite() { rounded(result, dtype) } else { Number::Unknown };
    }
    match (op, a, b) {
        ("Add", Number::Size(a), Number::Size(b)) => symbolic(a.plus(b)),
        ("Sub", Number::Size(a), Number::Size(b)) => symbolic(a.minus(b)),
        ("Mul", Number::Size(a), Number::Size(b)) => symbolic(a.times(b)),
        ("Div", Number::Size(a), Number::Size(b)) => symbolic(a.exactly_by(b)),
        _ => Number::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements() {
        let number = |text: &str| match text.parse::<f64>() {
            Ok(real) => Number::of_real(real),
            Err(_) if text == "?" => Number::Unknown,
            Err(_) => Number::Size(Size::parse(text)),
        };
        let text = |number: Number| match number {
            Number::Size(size) => size.to_string(),
            Number::Real(real) => real.to_string(),
            Number::Unknown => "?".into(),
        };
        let cases = [
            ("Div", "-7", "2", DType::I64, "-3"),
            ("Mod", "-7", "2", DType::I64, "1"),
            ("Mod", "7", "-4", DType::I64, "-1"),
            ("Div", "7", "2", DType::F32, "3.5"),
            ("Div", "1", "3", DType::F32, "0.3333333432674408"),
            ("Div", "6*batch", "2", DType::I64, "3*batch"),
            ("Div", "height", "2", DType::I64, "height//2"),
            ("Div", "height - 5", "2", DType::I64, "?"),
            ("Mod", "6*batch", "batch", DType::I64, "0"),
            ("Mul", "batch", "2", DType::F32, "2*batch"),
            ("Mul", "batch", "0.5", DType::F32, "?"),
            ("Add", "9223372036854775807", "1", DType::I64, "?"),
            ("Mul", "65536", "65536", DType::I32, "?"),
            ("Mul", "?", "0", DType::I64, "0"),
            ("Equal", "batch", "-1", DType::I64, "0"),
            ("Equal", "batch", "1", DType::I64, "?"),
            ("Equal", "batch", "batch", DType::I64, "1"),
            ("GreaterOrEqual", "batch", "1", DType::I64, "1"),
            ("Greater", "batch", "1", DType::I64, "?"),
            ("Max", "batch", "1", DType::I64, "batch"),
            ("Min", "batch + 2", "batch", DType::I64, "batch"),
            ("Max", "batch", "tokens", DType::I64, "?"),
            ("And", "?", "0", DType::Bool, "0"),
            ("Or", "?", "0", DType::Bool, "?"),
            ("Pow", "3", "4", DType::I64, "81"),
        ];
        let found = |(op, a, b, dtype, _): &(&str, &str, &str, DType, &str)| {
            binary(op, &number(a), &number(b), *dtype, true).map_or("no operator".into(), text)
        };
        let failures: Vec<String> = cases
            .iter()
            .filter(|case| found(case) != case.4)
            .map(|case| format!("{case:?}: found {}", found(case)))
            .collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert_eq!(cast(&Number::Real(-2.7), DType::I64), number("-2"));
        assert_eq!(cast(&number("16777217"), DType::F32), number("16777216"));
        assert_eq!(cast(&number("300"), DType::U8), Number::Unknown);
    }
}
