//! The last answer to a question that is asked again and again.

use std::sync::{Mutex, PoisonError};

/// Keeps one answer with its question. What is kept changes how long an answer takes, never the answer.
#[derive(Debug)]
pub(super) struct Memo<Q, A>(Mutex<Option<(Q, A)>>);

impl<Q, A> Default for Memo<Q, A> {
    fn default() -> Memo<Q, A> {
        Memo(Mutex::new(None))
    }
}

impl<Q: PartialEq, A: Clone> Memo<Q, A> {
    /// Returns the answer to a question, which `answer` finds where it is not the last one.
    pub(super) fn get(&self, question: Q, answer: impl FnOnce() -> A) -> A {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, known)) = &*kept
            && *last == question
        {
            return known.clone();
        }
        let found = answer();
        *kept = Some((question, found.clone()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_question_is_answered_without_work() {
        let (memo, mut asked) = (Memo::default(), Vec::new());
        for question in [1, 1, 2, 1] {
            let found = memo.get(question, || {
                asked.push(question);
                10 * question
            });
            assert_eq!(found, 10 * question);
        }
        assert_eq!(asked, [1, 2, 1]);
    }
}
