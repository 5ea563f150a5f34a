//! Completions of shells and manual pages.

use crate::cli::{freeze_plan, path, text};

#[test]
fn completions_and_manual_pages_name_every_command() {
    let commands = [
        "tree",
        "compare",
        "diff",
        "attach",
        "schema",
        "graph",
        "init",
        "train",
        "report",
        "doctor",
        "policies",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = freeze_plan(&["completions", shell]);
        let script = text(&output.stdout);
        assert!(output.status.success() && commands.iter().all(|name| script.contains(name)), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man");
    let output = freeze_plan(&["man", "--out", path(&out)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in commands {
        let page = std::fs::read_to_string(out.join(format!("freeze-plan-{name}.1"))).unwrap();
        assert!(page.starts_with(".ie") && page.contains("Example"), "{name}: {page}");
    }
    let main = std::fs::read_to_string(out.join("freeze-plan.1")).unwrap();
    assert!(commands.iter().all(|name| main.contains(&format!("freeze\\-plan\\-{name}(1)"))), "{main}");
    assert_eq!(text(&output.stdout).lines().count(), std::fs::read_dir(&out).unwrap().count());
}
