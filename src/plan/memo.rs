//! The last answer to a question that is asked again and again.

use std::cell::RefCell;

/// Keeps one answer with its question. What is kept changes how long an answer takes, never the answer.
#[derive(Debug)]
pub(super) struct Memo<Q, A>(RefCell<Option<(Q, A)>>);

impl<Q, A> Default for Memo<Q, A> {
    fn default() -> Memo<Q, A> {
        Memo(RefCell::new(None))
    }
}

impl<Q: PartialEq, A: Clone> Memo<Q, A> {
    /// Returns the answer to a question, which `answer` finds where it is not the last one.
    pub(super) fn get(&self, question: Q, answer: impl FnOnce() -> A) -> A {
        if let Some((last, known)) = &*self.0.borrow()
            && *last == question
        {
            return known.clone();
        }
        let found = answer();
        *self.0.borrow_mut() = Some((question, found.clone()));
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
