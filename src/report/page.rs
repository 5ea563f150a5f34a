//! What pages share: escaping, and the frame of a run's page.

use super::human::clean;

#[cfg(feature = "runner")]
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2730;--dim:#5c6b78;--page:#fff;--line:#d5dce2;--train:#eef2f5;--frozen:#2f7fb8;--part:#93c1e0}
@media(prefers-color-scheme:dark){:root{--ink:#dbe4ec;--dim:#93a3b1;--page:#14191e;--line:#333d46;--train:#222a31;--frozen:#4a9ad4;--part:#2b567a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.4rem 0}
.dim{color:var(--dim)}.note{border-left:3px solid var(--frozen);padding-left:.7rem}
svg{width:100%;height:auto;display:block}rect{shape-rendering:crispEdges}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.train{fill:var(--train)}.frozen{fill:var(--frozen)}.part{fill:var(--part)}.grid{stroke:var(--page)}
.key{display:inline-block;width:.9em;height:.9em;vertical-align:-.1em;margin:0 .3em 0 1em;border:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
polyline{fill:none;stroke:var(--frozen);stroke-width:1.5}.mark{stroke:var(--dim);stroke-dasharray:3 3}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{color:var(--dim)}dd{margin:0}
th{color:var(--dim);font-weight:600}.left,.path{text-align:left}.path{white-space:normal;overflow-wrap:anywhere;min-width:13rem}
";

/// Returns the start of a run's page up to its heading. `title` is escaped already.
#[cfg(feature = "runner")]
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    )
}

/// Returns text as HTML shows it literally.
pub(super) fn escape(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
