//! The interface as C and C++ see it. `UPDATE_HEADER=1 cargo test -p freeze-plan-capi` writes the header anew.

use freeze_plan::plan::{FreezePlan, PlanOptions};
use freeze_plan::planner::{Analysis, Request, identify, plan, sizes};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The files of the crate that make the header, in its order.
const SOURCES: &[&str] = &["status", "out", "model", "options", "plan", "epoch", "unit"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn digits() -> PathBuf {
    root().join("../fixtures/digits/model.onnx")
}

#[test]
fn the_header_is_current() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join("src").join(source).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let file = root().join("include/freeze_plan.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default().replace("\r\n", "\n");
    assert!(committed == made, "include/freeze_plan.h is not what cbindgen makes of src/");
}

#[test]
fn every_function_is_guarded_and_in_the_header() {
    let header = fs::read_to_string(root().join("include/freeze_plan.h")).unwrap();
    let mut found = 0;
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let (name, body) = function.split_once("extern \"C\" fn ").unwrap().1.split_once('(').unwrap();
            let body = body.split_once(" {\n").unwrap().1.trim_start();
            let texts = ["fp_version", "fp_last_error", "fp_last_hint"];
            // What holds at the start of an epoch is what holds after no step of it.
            let start = body.lines().map(|line| line.trim().trim_start_matches("unsafe { "));
            let start = start.take_while(|line| *line != "}").find(|line| !line.starts_with("//"));
            let passes_on = start.is_some_and(|line| line.starts_with(&format!("{name}_at(plan, epoch, 0, ")));
            assert!(body.starts_with("guard(") || texts.contains(&name) || passes_on, "{name} is not guarded");
            assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
            found += 1;
        }
    }
    assert_eq!(found, header.matches(");\n").count(), "functions and declarations");
}

/// Compiles a file against the library of this build; `None`, with the reason on stdout, where that cannot be.
fn compiled(language: &str, source: &str) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        println!("skipped: what the compiler is told to find the library with is known for Linux");
        return None;
    }
    let (compiler, flags) = match language {
        "c" => ("cc", ["-std=c99", "-x", "c"]),
        _ => ("c++", ["-std=c++11", "-x", "c++"]),
    };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.replace('/', "-") + "." + language);
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let mut command = Command::new(compiler);
    command.args(flags).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]).arg(root().join("include"));
    command.arg(root().join(source)).arg("-o").arg(&program).arg("-L").arg(&libraries).arg("-lfreeze_plan_c");
    match command.arg(format!("-Wl,-rpath,{}", libraries.display())).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && language != "c" => {
            println!("skipped: there is no {compiler}");
            return None;
        }
        Err(error) => panic!("{compiler}: {error}"),
    }
    Some(program)
}

/// Runs a program with the library that it was compiled against, and not with one that Cargo built earlier.
fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).env_remove("LD_LIBRARY_PATH").arg(digits()).args(arguments).output().unwrap()
}

/// The plan of the digits that the library makes.
fn of_the_library(options: &PlanOptions) -> FreezePlan {
    let file = freeze_plan::onnx::read(&digits()).unwrap();
    let analysis = Analysis::of(&file.model);
    let sizes = sizes(&analysis.model.graph, 1, &[]).unwrap();
    let request = Request { epochs: 10, steps_per_epoch: 0, options, slots: 1, own_slots: Default::default(), sizes };
    let mut made = plan(&file, &analysis, &request).unwrap();
    identify(&mut made, &file);
    made
}

#[test]
fn the_example_prints_the_plan_of_the_library() {
    let plan = of_the_library(&PlanOptions::default().with("freeze_start", 0.25));
    let mut expected = format!("freeze-plan {}\n", env!("CARGO_PKG_VERSION"));
    for epoch in &plan.epochs {
        let names: String = epoch.frozen.iter().map(|name| format!(" {name}")).collect();
        expected += &format!("epoch {}, step cost {:.3}:{names}\n", epoch.epoch, epoch.predicted.step_cost);
    }
    expected += &format!("{}\n", plan.summary.verdict);
    expected += "an error, for once: 2: the plan has no parameter \"no.such.weight\"\n";
    assert!(expected.contains("epoch 10, step cost 0.") && expected.contains(" conv1.weight"));
    for language in ["c", "c++"] {
        let Some(program) = compiled(language, "examples/plan.c") else { continue };
        let output = run(&program, &["freeze_start=0.25"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{language}");
        assert_eq!(output.status.code(), Some(0), "{language}");
        let output = run(&program, &["freze_start=0.25"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("error 2: policy \"linear\" has no setting \"freze_start\""), "{told}");
        assert_eq!(output.status.code(), Some(2), "{language}");
    }
}

#[test]
fn wrong_calls_are_errors() {
    for language in ["c", "c++"] {
        let Some(program) = compiled(language, "tests/errors.c") else { continue };
        let output = run(&program, &[]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "as expected\n", "{language}");
        assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_text_of_a_plan_is_that_of_the_library() {
    use freeze_plan_c as c;
    use std::ffi::{CStr, CString};
    use std::mem::MaybeUninit;
    let path = CString::new(digits().to_str().unwrap()).unwrap();
    let (mut model, mut plan, mut json) = (MaybeUninit::uninit(), MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the texts are C strings, and what is taken was written by a call that returned FP_OK.
    let text = unsafe {
        assert_eq!(c::fp_model_read(path.as_ptr(), Some(&mut model)), c::fp_status::FP_OK);
        let model = model.assume_init();
        assert_eq!(c::fp_plan_make(Some(&model), 10, None, Some(&mut plan)), c::fp_status::FP_OK);
        c::fp_model_free(Some(model));
        let plan = plan.assume_init();
        assert_eq!(c::fp_plan_to_json(Some(&plan), Some(&mut json)), c::fp_status::FP_OK);
        let json = json.assume_init();
        let text = CStr::from_ptr(json).to_str().unwrap().to_string();
        c::fp_string_free(json);
        c::fp_plan_free(Some(plan));
        text
    };
    assert_eq!(text, of_the_library(&PlanOptions::default()).to_json());
}

#[test]
#[ignore = "takes seconds and wants valgrind; capi/valgrind.sh runs it"]
fn valgrind_finds_nothing() {
    let found = Command::new("valgrind").arg("--version").output();
    if !cfg!(target_os = "linux") || found.is_err() {
        println!("skipped: there is no valgrind");
        return;
    }
    for (source, arguments) in [("examples/plan.c", &["batch_norm=frozen"] as &[_]), ("tests/errors.c", &[])] {
        let Some(program) = compiled("c", source) else { continue };
        let mut command = Command::new("valgrind");
        command.env_remove("LD_LIBRARY_PATH");
        command.args([
            "--quiet",
            "--leak-check=full",
            "--show-leak-kinds=all",
            "--errors-for-leak-kinds=definite,possible",
        ]);
        command.arg("--error-exitcode=99").arg(program).arg(digits()).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
