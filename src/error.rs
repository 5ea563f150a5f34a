//! What kind of failure an error is, and the remedy that the program adds to its text.
//!
//! Every module has its own error enum; this file holds only what they share.

/// The group an error belongs to; the program's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file, a value or data given by the user is wrong.
    BadInput,
    /// The command line or a job key is wrong.
    Usage,
    /// The model contains something that is not supported where it is needed.
    Unsupported,
    /// A check on results failed (a non-finite loss, a frozen weight that moved).
    Check,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Returns the documented exit code: 1 bad input, 2 usage, 3 model not supported,
    /// 4 a check failed, 70 a defect of this program.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::BadInput => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Unsupported => 3,
            ErrorKind::Check => 4,
            ErrorKind::Internal => 70,
        }
    }
}

/// Returns the text of an error followed by those of its sources, in one line. What a text says already is not said again.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        source = inner.source();
    }
    told
}

/// Returns the entry of `known` nearest to `name`, when one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn an_error_is_told_with_its_sources_once() {
        let told = |texts: &[&'static str]| {
            let chain = texts.iter().rev().fold(None, |source, text| Some(Box::new(Told { text, source })));
            in_one_line(chain.unwrap().as_ref())
        };
        assert_eq!(told(&["cannot read a.onnx", "no such file"]), "cannot read a.onnx: no such file");
        assert_eq!(
            told(&["cannot read: no such file", "no such file", "errno 2"]),
            "cannot read: no such file: errno 2"
        );
    }

    #[test]
    fn nearest_finds_the_meant_word_and_nothing_far_away() {
        let known = ["freeze_start", "freeze_level", "policy"];
        assert_eq!(nearest("freze_start", known), Some("freeze_start"));
        assert_eq!(nearest("polcy", known), Some("policy"));
        assert_eq!(nearest("batch_norm", known), None);
    }
}
