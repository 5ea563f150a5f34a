//! Names as C strings, each once, with a number.

use crate::status::Failure;
use std::collections::HashMap;
use std::ffi::{CString, c_char};

#[derive(Default)]
pub(crate) struct Names {
    numbers: HashMap<String, usize>,
    texts: Vec<CString>,
}

impl Names {
    /// Adds a name that is not there yet.
    pub fn add(&mut self, name: &str) -> Result<(), Failure> {
        if !self.numbers.contains_key(name) {
            let text = CString::new(name);
            let text = text.map_err(|_| {
                Failure::unsupported(format!("the name \"{name}\" holds a NUL character, which ends a C string"))
            })?;
            self.numbers.insert(name.to_string(), self.texts.len());
            self.texts.push(text);
        }
        Ok(())
    }

    /// Adds names.
    pub fn extend<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) -> Result<(), Failure> {
        names.into_iter().try_for_each(|name| self.add(name))
    }

    /// Returns how many names there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns the number of a name.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// Returns a name that was added, as it lies here.
    pub fn text(&self, name: &str) -> *const c_char {
        let number = self.number(name).expect("invariant: the names of a handle are added when it is made");
        self.texts[number].as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lies_there_once_and_holds_no_nul() {
        let mut names = Names::default();
        for name in ["a", "b", "a"] {
            names.add(name).unwrap();
        }
        assert_eq!((names.len(), names.number("a"), names.number("b"), names.number("c")), (2, Some(0), Some(1), None));
        assert!(names.add("a\0b").is_err());
        assert_eq!(names.len(), 2);
    }
}
