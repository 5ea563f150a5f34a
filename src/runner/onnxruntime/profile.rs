//! Reads the profile that ONNX Runtime writes of a session: a JSON array of events.
//!
//! An event of category `Node` with a name that ends in `_kernel_time` is a node of a run; `model_run` ends a run. Times
//! are whole microseconds. Nodes of a subgraph lie within the node that runs it, and are left out.

use super::super::engine::NodeTime;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

const SUFFIX: &str = "_kernel_time";

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
}

impl Event {
    fn end(&self) -> f64 {
        self.ts + self.dur
    }
}

/// Returns what the nodes took in each run, in the order in which they first ran.
///
/// # Errors
/// The file cannot be read, or is no profile.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<NodeTime>> {
    let events: Vec<Event> = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    Ok(times(&events))
}

fn times(events: &[Event]) -> Vec<NodeTime> {
    let mut found: Vec<NodeTime> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut runs = 0;
    for run in events.chunk_by(|before, _| before.name != "model_run") {
        if run.last().is_none_or(|event| event.name != "model_run") {
            continue;
        }
        let mut nodes: Vec<(&str, &Event)> = run
            .iter()
            .filter(|event| event.cat == "Node")
            .filter_map(|event| Some((event.name.strip_suffix(SUFFIX)?, event)))
            .collect();
        nodes.sort_by(|(_, a), (_, b)| a.ts.total_cmp(&b.ts).then(b.dur.total_cmp(&a.dur)));
        runs += 1;
        let mut until = f64::NEG_INFINITY;
        for (name, event) in nodes {
            // Ends are rounded to a microsecond.
            if event.ts + 1.0 < until {
                continue;
            }
            until = until.max(event.end());
            let index = *place.entry(name).or_insert_with(|| {
                found.push(NodeTime { name: name.to_string(), seconds: Vec::new() });
                found.len() - 1
            });
            let seconds = &mut found[index].seconds;
            seconds.resize(runs, 0.0);
            seconds[runs - 1] += event.dur * 1e-6;
        }
    }
    found.iter_mut().for_each(|node| node.seconds.resize(runs, 0.0));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_by_run_and_those_of_subgraphs_are_part_of_their_node() {
        let text = r#"[
            {"cat":"Session","name":"model_loading_array","ts":1,"dur":50},
            {"cat":"Node","name":"a_fence_before","ts":100,"dur":0},
            {"cat":"Node","name":"a_kernel_time","ts":100,"dur":30,"args":{"op_name":"Conv"}},
            {"cat":"Node","name":"inner_kernel_time","ts":131,"dur":10},
            {"cat":"Node","name":"loop_kernel_time","ts":129,"dur":40},
            {"cat":"Session","name":"SequentialExecutor::Execute","ts":99,"dur":80},
            {"cat":"Session","name":"model_run","ts":98,"dur":90},
            {"cat":"Node","name":"a_kernel_time","ts":200,"dur":20},
            {"cat":"Node","name":"loop_kernel_time","ts":220,"dur":41},
            {"cat":"Node","name":"late_kernel_time","ts":261,"dur":5},
            {"cat":"Session","name":"model_run","ts":199,"dur":90},
            {"cat":"Node","name":"a_kernel_time","ts":300,"dur":9}
        ]"#;
        let events: Vec<Event> = serde_json::from_str(text).unwrap();
        let found: Vec<(String, Vec<i64>)> = times(&events)
            .into_iter()
            .map(|node| (node.name, node.seconds.iter().map(|seconds| (seconds * 1e6).round() as i64).collect()))
            .collect();
        let expected = [("a", [30, 20]), ("loop", [40, 41]), ("late", [0, 5])];
        assert_eq!(found, expected.map(|(name, runs)| (name.to_string(), runs.to_vec())));
    }
}
