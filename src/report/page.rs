//! What pages share: escaping.

use super::human::clean;

/// Returns text as HTML shows it literally.
pub(super) fn escape(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
