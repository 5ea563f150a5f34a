//! Sizes that may depend on named ones: `12`, `2*batch`, `batch*tokens + 1`, `(height + 1)//2`.
//!
//! A [`Size`] is a polynomial in names with integer coefficients, in one normal form, so that equal
//! texts are equal sizes. A quotient that is not exact is a name of its own, spelt as a Python
//! expression, which is how exporters write such dimensions too. What grows too large to be a
//! dimension of a real model is given up.

use std::collections::HashMap;
use std::fmt;

const MOST_TERMS: usize = 8;
const MOST_FACTORS: usize = 6;
const LONGEST: usize = 160;
const DEEPEST: usize = 16;

/// An integer that is fixed or depends on named sizes, each of which is at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    fixed: i64,
    /// Sorted by the sorted names of each product; no coefficient is 0.
    terms: Vec<(Vec<String>, i64)>,
}

impl From<i64> for Size {
    fn from(fixed: i64) -> Size {
        Size { fixed, terms: Vec::new() }
    }
}

impl Size {
    /// Returns the size of a name.
    pub fn named(name: &str) -> Size {
        Size { fixed: 0, terms: vec![(vec![name.to_string()], 1)] }
    }

    /// Returns the size that a text means; text that is no expression is a name.
    pub fn parse(text: &str) -> Size {
        Size::parse_with(text, &HashMap::new())
    }

    /// Returns the size that a text means where some names have a number.
    pub fn parse_with(text: &str, numbers: &HashMap<String, usize>) -> Size {
        if let Some(number) = numbers.get(text).and_then(|number| i64::try_from(*number).ok()) {
            return Size::from(number);
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
        if plain && !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Size::named(text);
        }
        let mut parser = Parser { rest: text, numbers, depth: 0 };
        let whole = if text.len() <= LONGEST { parser.sum().filter(|_| parser.rest.trim().is_empty()) } else { None };
        whole.unwrap_or_else(|| Size::named(text))
    }

    /// Returns the number of a size that depends on nothing.
    pub fn fixed(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.fixed)
    }

    /// Returns a number that this size is never below; `None` where there is no such number.
    pub fn at_least(&self) -> Option<i64> {
        self.terms.iter().try_fold(self.fixed, |sum, (names, count)| {
            let least = i64::from(names.iter().all(|name| !name.contains("//")));
            if *count < 0 { None } else { sum.checked_add(least * count) }
        })
    }

    /// Returns the sum.
    pub fn plus(&self, other: &Size) -> Option<Size> {
        let mut terms = self.terms.clone();
        for (names, count) in &other.terms {
            match terms.binary_search_by(|term| term.0.cmp(names)) {
                Ok(at) => {
                    terms[at].1 = terms[at].1.checked_add(*count)?;
                    if terms[at].1 == 0 {
                        terms.remove(at);
                    }
                }
                Err(at) => terms.insert(at, (names.clone(), *count)),
            }
        }
        let fixed = self.fixed.checked_add(other.fixed)?;
        (terms.len() <= MOST_TERMS).then_some(Size { fixed, terms })
    }

    /// Returns the difference.
    pub fn minus(&self, other: &Size) -> Option<Size> {
        self.plus(&other.times(&Size::from(-1))?)
    }

    /// Returns the product.
    pub fn times(&self, other: &Size) -> Option<Size> {
        let mut sum = Size::from(self.fixed.checked_mul(other.fixed)?);
        let mut add = |names: Vec<String>, count: i64| -> Option<()> {
            if names.len() > MOST_FACTORS {
                return None;
            }
            if count != 0 {
                sum = sum.plus(&Size { fixed: 0, terms: vec![(names, count)] })?;
            }
            Some(())
        };
        for (names, count) in &self.terms {
            add(names.clone(), count.checked_mul(other.fixed)?)?;
            for (more, times) in &other.terms {
                let mut all = [names.as_slice(), more].concat();
                all.sort();
                add(all, count.checked_mul(*times)?)?;
            }
        }
        for (names, count) in &other.terms {
            add(names.clone(), count.checked_mul(self.fixed)?)?;
        }
        Some(sum)
    }

    /// Returns the quotient where the division leaves no rest whatever the names are.
    pub fn exactly_by(&self, divisor: &Size) -> Option<Size> {
        if self == divisor {
            return Some(Size::from(1)).filter(|_| *self != Size::from(0));
        }
        let (divided, count) = match (divisor.terms.as_slice(), divisor.fixed) {
            ([], count) => (&[] as &[String], count),
            ([(names, count)], 0) => (names.as_slice(), *count),
            _ => return None,
        };
        if !divided.is_empty() && self.fixed != 0 {
            return None;
        }
        let whole = |number: i64| number.checked_rem(count)?.eq(&0).then(|| number.checked_div(count))?;
        let mut quotient = Size::from(whole(self.fixed)?);
        for (names, number) in &self.terms {
            let mut left = names.clone();
            for name in divided {
                let at = left.iter().position(|other| other == name)?;
                left.remove(at);
            }
            let number = whole(*number)?;
            let term =
                if left.is_empty() { Size::from(number) } else { Size { fixed: 0, terms: vec![(left, number)] } };
            quotient = quotient.plus(&term)?;
        }
        Some(quotient)
    }

    /// Returns the quotient rounded down.
    pub fn floor_by(&self, divisor: i64) -> Option<Size> {
        if divisor <= 0 {
            return None;
        }
        let (whole, rest): (Vec<_>, Vec<_>) = self.terms.iter().cloned().partition(|term| term.1 % divisor == 0);
        let whole = whole.into_iter().map(|(names, count)| (names, count / divisor)).collect();
        let whole = Size { fixed: self.fixed.div_euclid(divisor), terms: whole };
        let rest = Size { fixed: self.fixed.rem_euclid(divisor), terms: rest };
        if rest.terms.is_empty() {
            return Some(whole);
        }
        let text = match (rest.terms.as_slice(), rest.fixed) {
            ([(names, 1)], 0) if names.len() == 1 => format!("{}//{divisor}", names[0]),
            _ => format!("({rest})//{divisor}"),
        };
        if text.len() > LONGEST { None } else { whole.plus(&Size::named(&text)) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (names, count) in &self.terms {
            let sign = match (first, *count < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            f.write_str(sign)?;
            if count.unsigned_abs() != 1 {
                write!(f, "{}*", count.unsigned_abs())?;
            }
            let factor = |name: &String| if name.contains("//") { format!("({name})") } else { name.clone() };
            let product = names.len() > 1 || count.unsigned_abs() != 1;
            let factors: Vec<String> =
                names.iter().map(|name| if product { factor(name) } else { name.clone() }).collect();
            f.write_str(&factors.join("*"))?;
            first = false;
        }
        match self.fixed {
            fixed if first => write!(f, "{fixed}"),
            0 => Ok(()),
            fixed if fixed < 0 => write!(f, " - {}", fixed.unsigned_abs()),
            fixed => write!(f, " + {fixed}"),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    numbers: &'a HashMap<String, usize>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.trim_start().strip_prefix(token);
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    fn sum(&mut self) -> Option<Size> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut sum = self.product()?;
        loop {
            if self.take("+") {
                sum = sum.plus(&self.product()?)?;
            } else if self.take("-") {
                sum = sum.minus(&self.product()?)?;
            } else {
                self.depth -= 1;
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<Size> {
        let mut product = self.factor()?;
        loop {
            if self.take("**") {
                return None;
            } else if self.take("*") {
                product = product.times(&self.factor()?)?;
            } else if self.take("//") {
                product = product.floor_by(self.factor()?.fixed()?)?;
            } else {
                return Some(product);
            }
        }
    }

    fn factor(&mut self) -> Option<Size> {
        let mut negative = false;
        while self.take("-") {
            negative = !negative;
        }
        let factor = if self.take("(") {
            let inner = self.sum()?;
            self.take(")").then_some(inner)?
        } else {
            self.word()?
        };
        if negative { factor.times(&Size::from(-1)) } else { Some(factor) }
    }

    fn word(&mut self) -> Option<Size> {
        let text: &'a str = self.rest.trim_start();
        let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let end = text.find(|c: char| !inside(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        if word.is_empty() || rest.trim_start().starts_with('(') {
            return None;
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse::<i64>().ok().map(Size::from);
        }
        let number = self.numbers.get(word).and_then(|number| i64::try_from(*number).ok());
        Some(number.map_or_else(|| Size::named(word), Size::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_normal_form() {
        let cases = [
            ("batch", "batch"),
            ("batch*2", "2*batch"),
            ("2 * (batch + 1) - 2", "2*batch"),
            ("tokens*batch + 3 - batch*tokens", "3"),
            ("(4*batch + 6)//4", "batch + 1"),
            ("((height - 1)//2) + 1", "(height + 1)//2"),
            ("2*((height+1)//2)", "2*((height + 1)//2)"),
            ("h//2*w", "(h//2)*w"),
            ("-batch + 2", "-batch + 2"),
            ("floor(h/2)", "floor(h/2)"),
            ("a.0", "a.0"),
            ("7", "7"),
            ("x**2", "x**2"),
            ("(x", "(x"),
        ];
        let failures: Vec<String> = cases
            .iter()
            .map(|(text, expected)| (text, expected, Size::parse(text).to_string()))
            .filter(|(_, expected, found)| *expected != found)
            .map(|(text, expected, found)| format!("{text}: expected {expected}, found {found}"))
            .collect();
        assert!(failures.is_empty(), "{failures:?}");
        for (text, _) in cases {
            let once = Size::parse(text);
            assert_eq!(Size::parse(&once.to_string()), once, "{text}");
        }
    }

    #[test]
    fn numbers_take_the_place_of_names() {
        let numbers = HashMap::from([("h".to_string(), 7), ("batch".to_string(), 3), ("a b".to_string(), 9)]);
        for (text, expected) in [
            ("2*batch + h", "13"),
            ("batch*((h + 1)//2)", "12"),
            ("((h - 1)//2 + 2*w)//2", "w + 1"),
            ("a b", "9"),
            ("batch*w", "3*w"),
        ] {
            assert_eq!(Size::parse_with(text, &numbers).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn divisions() {
        let exact = |a: &str, b: &str| Size::parse(a).exactly_by(&Size::parse(b)).map(|size| size.to_string());
        assert_eq!(exact("6*batch*h", "2*h"), Some("3*batch".into()));
        assert_eq!(exact("6*batch*h + h", "h"), Some("6*batch + 1".into()));
        assert_eq!(exact("5*batch", "2"), None);
        assert_eq!(exact("batch", "h"), None);
        assert_eq!(exact("0", "0"), None);
        assert_eq!(Size::parse("batch").floor_by(0), None);
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut size = Size::parse("a + b + c");
        let mut steps = 0;
        while let Some(square) = size.times(&size) {
            size = square;
            steps += 1;
        }
        assert!(steps < 4, "{size}");
        let nested = format!("{}a{}", "(".repeat(70), ")".repeat(70));
        assert_eq!(Size::parse(&nested), Size::named(&nested));
        assert_eq!(Size::parse("9223372036854775807 + 1"), Size::named("9223372036854775807 + 1"));
    }
}
