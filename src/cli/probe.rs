//! A probing run in a process of its own: a model that nobody should trust may end the process that
//! runs it.

use super::failure::{CommandResult, Failure};
use crate::error::ErrorKind;
use crate::facts::Probe;
use crate::graph::{DType, Dim, Fact, Model, ValueId};
use crate::onnx::{read, to_bytes};
use crate::runner::{Device, EngineProbe, LocateOptions, OnnxRuntime, locate};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Name of the hidden command.
pub const COMMAND: &str = "probing-run";
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(60);
const MODEL: &str = "model.onnx";
const REQUEST: &str = "request.json";

/// Runs a model once for the facts of its values; the parent of this process asks for it
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder with the model and what is asked
    folder: PathBuf,
}

/// What the parent asks.
#[derive(Serialize, Deserialize)]
struct Request {
    library: PathBuf,
    values: Vec<String>,
    sizes: HashMap<String, usize>,
}

/// Dtype, by ONNX's code, and shape of a value.
type Found = (i32, Vec<usize>);

/// Runs models on the ONNX Runtime of this machine, which is looked for when it is first needed.
pub struct ChildProbe<'a> {
    /// The library that the command runs models with, where one was named.
    pub runtime: Option<&'a Path>,
}

impl Probe for ChildProbe<'_> {
    fn run(&mut self, model: &Model, ask: &[ValueId], sizes: &HashMap<String, usize>) -> Result<Vec<Fact>, String> {
        if self.runtime == Some(Path::new("embedded")) {
            return Err("the embedded executor is asked for".into());
        }
        let options =
            LocateOptions { runtime: self.runtime.map(Path::to_path_buf), offline: true, device: Device::Cpu };
        let library = locate(&options, &mut |_| {}).map_err(|error| error.to_string())?.path;
        let values = ask.iter().map(|id| model.graph.value_name(*id).to_string()).collect();
        let found = in_child(model, &Request { library, values, sizes: sizes.clone() })?;
        let fact =
            |(code, shape): &Found| Fact::new(DType::from_code(*code), shape.iter().copied().map(Dim::Known).collect());
        let facts: Vec<Fact> = found.iter().map(fact).collect();
        if facts.len() == ask.len() { Ok(facts) } else { Err("the run gave no answer".into()) }
    }
}

fn in_child(model: &Model, request: &Request) -> Result<Vec<Found>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("no run in a process of its own: {error}");
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    let request = serde_json::to_vec(request).map_err(|error| failed(&error))?;
    std::fs::write(folder.path().join(REQUEST), request).map_err(|error| failed(&error))?;
    std::fs::write(folder.path().join(MODEL), to_bytes(model)).map_err(|error| failed(&error))?;
    let mut child = Command::new(std::env::current_exe().map_err(|error| failed(&error))?)
        .arg(COMMAND)
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.map(|mut out| out.read_to_string(&mut text));
        text
    });
    let status = wait(&mut child)?;
    let text = reader.join().unwrap_or_default();
    if !status.success() && text.is_empty() {
        return Err(format!("ONNX Runtime ended the process that ran the model ({status})"));
    }
    let answer: Result<Vec<Found>, String> = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    answer
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() < LIMIT => {
                std::thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(50));
            }
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the run did not end within {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Runs the command: the answer goes to stdout.
pub fn run(args: &Args) -> CommandResult {
    let bad = |reason: String| Failure::new(ErrorKind::BadInput, reason);
    let request = std::fs::read(args.folder.join(REQUEST)).map_err(|error| bad(error.to_string()))?;
    let request: Request = serde_json::from_slice(&request).map_err(|error| bad(error.to_string()))?;
    let model = read(&args.folder.join(MODEL))?.model;
    let answer = answer(&model, &request);
    println!("{}", serde_json::to_string(&answer).map_err(|error| bad(error.to_string()))?);
    Ok(ExitCode::SUCCESS)
}

fn answer(model: &Model, request: &Request) -> Result<Vec<Found>, String> {
    let ask: Option<Vec<ValueId>> = request.values.iter().map(|name| model.graph.find(name)).collect();
    let ask = ask.ok_or("the model lost a value")?;
    let mut engine = OnnxRuntime::new(&request.library, 1).map_err(|error| error.to_string())?;
    let facts = EngineProbe::new(&mut engine).run(model, &ask, &request.sizes)?;
    let found = facts.iter().map(|fact| Some((fact.dtype?.code(), fact.sizes()?)));
    found.collect::<Option<Vec<Found>>>().ok_or_else(|| "a value has no dtype or shape".to_string())
}
