//! One model and the questions about it.

use crate::outside::Given;
use crate::question::Question;
use crate::{Failure, policies};
use freeze_plan::graph::{Dim, Graph, ValueId};
use freeze_plan::plan::FreezePlan;
use freeze_plan::planner::{Loaded, PlanRequest, Planning, identity};
use freeze_plan::report::plan_html;
use serde_json::{Value, json};

/// The model of the page. It is read once; a plan with other options does not read it again.
#[derive(Default)]
pub struct Session {
    kept: Vec<u8>,
    given: Given,
    model: Option<Opened>,
}

struct Opened {
    loaded: Loaded,
    notes: Vec<String>,
    sha256: Option<String>,
}

impl Session {
    /// Takes the bytes that the next question is about.
    pub fn keep(&mut self, bytes: Vec<u8>) {
        self.kept = bytes;
    }

    /// Answers a question, JSON to JSON: `{"ok": ..}` or `{"error": {"message": .., "hint": ..}}`.
    pub fn answer(&mut self, question: &[u8]) -> String {
        let answer = serde_json::from_slice(question).map_err(|error| Failure::new(error.to_string()));
        match answer.and_then(|question| self.reply(question)) {
            Ok(value) => json!({ "ok": value }),
            Err(failure) => json!({ "error": failure }),
        }
        .to_string()
    }

    fn reply(&mut self, question: Question) -> Result<Value, Failure> {
        match question {
            Question::Policies => Ok(policies::told()),
            Question::Close => {
                *self = Session::default();
                Ok(Value::Null)
            }
            Question::Open(name) => {
                self.model = None;
                self.given = Given::new(name, std::mem::take(&mut self.kept));
                Ok(json!({ "pieces": self.given.wanted()? }))
            }
            Question::Piece(piece) => {
                self.given.add(piece, std::mem::take(&mut self.kept));
                Ok(Value::Null)
            }
            Question::Read => {
                let (file, notes) = std::mem::take(&mut self.given).read()?;
                let loaded = Loaded::of_file(file);
                let inputs = inputs(&loaded.analysis.model.graph);
                self.model = Some(Opened { loaded, notes, sha256: None });
                Ok(json!({ "inputs": inputs }))
            }
            Question::Page(request) => Ok(plan_html(&self.opened()?.plan(&request)?).into()),
            Question::File(request) => {
                let opened = self.opened()?;
                let mut plan = opened.plan(&request)?;
                plan.model.sha256 = opened.sha256.get_or_insert_with(|| identity(&opened.loaded.file)).clone();
                Ok(plan.to_json().into())
            }
        }
    }

    fn opened(&mut self) -> Result<&mut Opened, Failure> {
        self.model.as_mut().ok_or_else(|| Failure::new("no model is open"))
    }
}

impl Opened {
    fn plan(&self, request: &PlanRequest) -> Result<FreezePlan, Failure> {
        let mut plan = request.of(Planning::of(&self.loaded.file.path))?.run_on(&self.loaded)?;
        plan.summary.notes.extend(self.notes.iter().cloned());
        Ok(plan)
    }
}

/// Returns name, dtype and shape of every input: a number for a fixed size, a name for an open one, null for one without.
fn inputs(graph: &Graph) -> Value {
    let dim = |dim: &Dim| match dim {
        Dim::Known(size) => json!(size),
        Dim::Symbol(name) => json!(name),
        Dim::Unknown => Value::Null,
    };
    let input = |id: &ValueId| {
        let fact = graph.fact(*id);
        let shape = fact.shape.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>());
        json!({ "name": graph.value_name(*id), "dtype": fact.dtype.map(|dtype| dtype.to_string()), "shape": shape })
    };
    graph.inputs().iter().map(input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(session: &mut Session, question: Value) -> Value {
        serde_json::from_str(&session.answer(question.to_string().as_bytes())).unwrap()
    }

    fn digits() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/digits/model.onnx")).unwrap()
    }

    #[test]
    fn a_model_is_opened_and_planned_as_by_the_library() {
        let mut session = Session::default();
        session.keep(digits());
        assert_eq!(ask(&mut session, json!({ "open": "model.onnx" })), json!({ "ok": { "pieces": [] } }));
        let opened = ask(&mut session, json!("read"));
        assert_eq!(opened["ok"]["inputs"][0]["shape"], json!(["batch", 1, 8, 8]));
        let request = json!({ "epochs": 6, "batch": 64, "options": { "policy": "linear", "freeze_start": 0.2 } });
        let file = ask(&mut session, json!({ "file": request }));
        let plan = freeze_plan::plan(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/digits/model.onnx"));
        let model = plan.epochs(6).batch(64).with("freeze_start", 0.2).open().unwrap();
        assert_eq!(file["ok"], json!(model.identified_plan().unwrap().to_json()));
        let page = ask(&mut session, json!({ "page": request }));
        assert!(page["ok"].as_str().unwrap().contains("Freeze plan of model.onnx"));
    }

    #[test]
    fn what_cannot_be_answered_is_told() {
        let mut session = Session::default();
        let error = |reply: Value| reply["error"]["message"].as_str().unwrap_or_default().to_string();
        assert_eq!(error(ask(&mut session, json!({ "page": {} }))), "no model is open");
        session.keep(b"no model".to_vec());
        let text = error(ask(&mut session, json!({ "open": "notes.txt" })));
        assert!(text.starts_with("notes.txt is no ONNX model"), "{text}");
        session.keep(digits());
        ask(&mut session, json!({ "open": "model.onnx" }));
        ask(&mut session, json!("read"));
        let wrong = |options: Value| json!({ "page": { "options": options } });
        let reply = ask(&mut session, wrong(json!({ "policy": "linear", "freeze_stat": 0.5 })));
        assert!(error(reply).contains("freeze_start"));
        let reply = ask(&mut session, wrong(json!({ "keep": ["none.*"] })));
        assert!(reply["error"]["hint"].is_string(), "{reply}");
        assert!(error(ask(&mut session, wrong(json!({ "unit": "atom" })))).starts_with("unit is \"atom\""));
        assert!(error(ask(&mut session, json!({ "page": { "epochs": 0 } }))).contains("epochs is 0"));
    }
}
