//! What every function returns, and what the last failure of a thread was.

use freeze_plan::artifacts::ArtifactsError;
use freeze_plan::error::{ErrorKind, in_one_line};
use freeze_plan::onnx::OnnxError;
use freeze_plan::plan::PlanError;
use freeze_plan::planner::PlannerError;
use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended; the numbers are the exit codes of the program freeze-plan. Later versions may return
/// others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fp_status {
    /// Done.
    FP_OK = 0,
    /// A file or bytes that were given are wrong.
    FP_BAD_INPUT = 1,
    /// The call is wrong: a NULL pointer, an index out of range, an option that does not exist.
    FP_USAGE = 2,
    /// The model holds something that is not supported.
    FP_UNSUPPORTED = 3,
    /// A check on results failed.
    FP_CHECK = 4,
    /// A defect of this library, which was caught. The handles that were passed may be read and freed.
    FP_PANIC = 70,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    status: fp_status,
    message: String,
    hint: String,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { status: fp_status::FP_USAGE, message: message.into(), hint: String::new() }
    }

    pub fn bad_input(message: impl Into<String>) -> Failure {
        Failure { status: fp_status::FP_BAD_INPUT, ..Failure::usage(message) }
    }

    pub fn unsupported(message: impl Into<String>) -> Failure {
        Failure { status: fp_status::FP_UNSUPPORTED, ..Failure::usage(message) }
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: hint.into(), ..self }
    }

    fn of(kind: ErrorKind, error: &dyn Error) -> Failure {
        let status = match kind.exit_code() {
            1 => fp_status::FP_BAD_INPUT,
            2 => fp_status::FP_USAGE,
            3 => fp_status::FP_UNSUPPORTED,
            4 => fp_status::FP_CHECK,
            _ => fp_status::FP_PANIC,
        };
        Failure { status, message: in_one_line(error), hint: String::new() }
    }

    fn panic(payload: Box<dyn Any + Send>) -> Failure {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => text.to_string(),
            (_, Some(text)) => text.clone(),
            _ => {
                // Dropping it might panic again.
                std::mem::forget(payload);
                "no message".into()
            }
        };
        let message = format!("the library panicked: {text}");
        let hint = "this is a defect of freeze-plan; please report it with the model and the calls";
        Failure { status: fp_status::FP_PANIC, message, hint: hint.into() }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let failure = Failure::of(error.kind(), &error);
        match error.remedy() {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        }
    }
}

impl From<PlannerError> for Failure {
    fn from(error: PlannerError) -> Failure {
        match error {
            PlannerError::Plan(error) => error.into(),
            error => Failure::of(error.kind(), &error),
        }
    }
}

impl From<OnnxError> for Failure {
    fn from(error: OnnxError) -> Failure {
        Failure::of(error.kind(), &error)
    }
}

impl From<ArtifactsError> for Failure {
    fn from(error: ArtifactsError) -> Failure {
        Failure::of(error.kind(), &error)
    }
}

/// The texts of a failure.
struct Last {
    message: CString,
    hint: CString,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Runs the body of a function of the interface. Nothing unwinds out of it.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> fp_status {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return fp_status::FP_OK,
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::panic(payload),
    };
    let last = Last { message: line(&failure.message), hint: line(&failure.hint) };
    // Fails where the thread is ending, and nobody can ask any more.
    let _ = LAST.try_with(|slot| slot.replace(Some(last)));
    failure.status
}

/// Returns a text without control characters, of which C strings cannot hold NUL.
fn line(text: &str) -> CString {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    CString::new(shown).unwrap_or_default()
}

fn last(text: impl FnOnce(&Last) -> *const c_char) -> *const c_char {
    let found = LAST.try_with(|slot| slot.borrow().as_ref().map(text));
    found.ok().flatten().unwrap_or(c"".as_ptr())
}

/// Returns the version of the library, such as "0.1.0". It is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn fp_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version holds no NUL"),
        };
    VERSION.as_ptr()
}

/// Returns what went wrong in the last call of this thread that failed, in one line; "" before the first.
/// Valid until the next call of this thread that fails. Calls that succeed leave it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn fp_last_error() -> *const c_char {
    last(|last| last.message.as_ptr())
}

/// Returns what to do about fp_last_error(), in one line; "" where that is not known. Valid as long as that.
#[unsafe(no_mangle)]
pub extern "C" fn fp_last_hint() -> *const c_char {
    last(|last| last.hint.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    extern "C" fn panics(kind: u8) -> fp_status {
        guard(|| match kind {
            0 => panic!("a fixed text"),
            1 => panic!("entry {kind}\0\n"),
            2 => std::panic::panic_any(Explodes),
            _ => Ok(()),
        })
    }

    struct Explodes;

    impl Drop for Explodes {
        fn drop(&mut self) {
            panic!("while it is dropped");
        }
    }

    fn told() -> (String, String) {
        // SAFETY: both are C strings that live until the next failure.
        let texts = unsafe { (CStr::from_ptr(fp_last_error()), CStr::from_ptr(fp_last_hint())) };
        (texts.0.to_str().unwrap().into(), texts.1.to_str().unwrap().into())
    }

    #[test]
    fn a_panic_does_not_cross_the_interface() {
        assert_eq!(told(), (String::new(), String::new()));
        let cases = [(0, "a fixed text"), (1, "entry 1\\u{0}\\n"), (2, "no message")];
        for (kind, text) in cases {
            let call: extern "C" fn(u8) -> fp_status = panics;
            assert_eq!(call(kind), fp_status::FP_PANIC);
            let (message, hint) = told();
            assert_eq!(message, format!("the library panicked: {text}"));
            assert!(hint.contains("defect"), "{hint}");
        }
        assert_eq!(panics(3), fp_status::FP_OK);
        assert_eq!(told().0, "the library panicked: no message");
    }

    #[test]
    fn a_thread_sees_its_own_failures_alone() {
        assert_eq!(guard(|| Err(Failure::usage("here").hint("do that"))), fp_status::FP_USAGE);
        std::thread::spawn(|| {
            assert_eq!(told().0, "");
            assert_eq!(guard(|| Err(Failure::unsupported("there"))), fp_status::FP_UNSUPPORTED);
            assert_eq!(told(), ("there".into(), String::new()));
        })
        .join()
        .unwrap();
        assert_eq!(told(), ("here".into(), "do that".into()));
    }

    #[test]
    fn a_failure_tells_its_sources_and_its_exit_code() {
        let failure = Failure::from(freeze_plan::plan::read("no/such.json".as_ref()).unwrap_err());
        assert_eq!(failure.status, fp_status::FP_BAD_INPUT);
        assert!(failure.message.starts_with("cannot read no/such.json: "), "{}", failure.message);
        for kind in
            [ErrorKind::BadInput, ErrorKind::Usage, ErrorKind::Unsupported, ErrorKind::Check, ErrorKind::Internal]
        {
            let status = Failure::of(kind, &std::fmt::Error).status;
            assert_eq!(status as u8, kind.exit_code(), "{kind:?}");
        }
    }
}
