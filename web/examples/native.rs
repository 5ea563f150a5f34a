//! Answers what the check of the page asks, without a browser: a line `{"path": .., "request": ..}` in, the reply out.

use freeze_plan_web::Session;
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let path = Path::new(case["path"].as_str().unwrap_or_default());
        let mut session = Session::default();
        session.keep(std::fs::read(path)?);
        let opened = session
            .answer(json!({ "open": path.file_name().map(|name| name.to_string_lossy()) }).to_string().as_bytes());
        let failed = serde_json::from_str::<Value>(&opened)?.get("error").is_some();
        let plan = || session.answer(json!({ "file": case["request"] }).to_string().as_bytes());
        println!(
            "{}",
            if failed {
                opened
            } else {
                {
                    plan
                }
                ()
            }
        );
    }
    Ok(())
}
