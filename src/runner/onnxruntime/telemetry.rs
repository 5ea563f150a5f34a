//! What ONNX Runtime reports to its makers.

/// The variable that ONNX Runtime reads once, when it is loaded.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Keeps ONNX Runtime from reporting to its makers. From version 1.29 on its packages send an event with the name of the
/// program when they start, and leave an identifier of the device in the user's cache folder, before anything can be
/// asked of them; only the variable `ORT_DISABLE_TELEMETRY` of the environment prevents that. One that is set already is
/// left as it is.
///
/// # Safety
/// As with [`std::env::set_var`]: no other thread reads or writes the environment. The first line of `main` is the place.
pub unsafe fn disable_telemetry() {
    if is_undecided() {
        // SAFETY: the caller promises what `set_var` asks for.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// Returns true where nobody has decided whether ONNX Runtime reports.
pub(crate) fn is_undecided() -> bool {
    std::env::var_os(VARIABLE).is_none()
}
