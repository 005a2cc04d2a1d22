//! The plan, printed.

use std::fmt::Write;

use super::Plan;
use crate::error::place;

/// How to print a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PlanFormat {
    /// A line per step: number, kind, name, inputs, place in the source.
    #[default]
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
    /// JSON.
    Json,
}

impl Plan {
    pub(crate) fn describe(&self, job: &str, format: PlanFormat) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match format {
            PlanFormat::Text => self.text(job, &mut out),
            PlanFormat::Mermaid => self.mermaid(&mut out),
            PlanFormat::Dot => self.dot(job, &mut out),
            PlanFormat::Json => self.json(job, &mut out),
        };
        out
    }

    fn label(&self, i: usize) -> String {
        let node = &self.nodes[i];
        let mut label = node.kind.to_owned();
        if let Some(name) = &node.name {
            label += &format!(" {name}");
        }
        if !node.parameters.is_empty() {
            label += &format!(": {}", node.parameters);
        }
        label
    }

    fn text(&self, job: &str, out: &mut String) -> std::fmt::Result {
        writeln!(out, "job {job}")?;
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<String> = node.inputs.iter().map(ToString::to_string).collect();
            let from = if inputs.is_empty() {
                String::new()
            } else {
                format!(" <- {}", inputs.join(", "))
            };
            writeln!(out, "{i:>3}  {}{from}  ({})", self.label(i), place(node.location))?;
        }
        Ok(())
    }

    fn mermaid(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "flowchart LR")?;
        for (i, node) in self.nodes.iter().enumerate() {
            let label = self.label(i).replace('"', "'");
            writeln!(out, "  n{i}[\"{label}\"]")?;
            node.inputs.iter().try_for_each(|from| writeln!(out, "  n{from} --> n{i}"))?;
        }
        Ok(())
    }

    fn dot(&self, job: &str, out: &mut String) -> std::fmt::Result {
        writeln!(out, "digraph {job:?} {{\n  rankdir=LR;\n  node [shape=box];")?;
        for (i, node) in self.nodes.iter().enumerate() {
            writeln!(out, "  n{i} [label={:?}];", self.label(i))?;
            node.inputs.iter().try_for_each(|from| writeln!(out, "  n{from} -> n{i};"))?;
        }
        writeln!(out, "}}")
    }

    fn json(&self, job: &str, out: &mut String) -> std::fmt::Result {
        let steps: Vec<_> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, node)| {
                serde_json::json!({
                    "id": i, "kind": node.kind, "name": node.name, "parameters": node.parameters,
                    "inputs": node.inputs, "place": place(node.location),
                })
            })
            .collect();
        write!(out, "{}", serde_json::json!({ "job": job, "steps": steps }))
    }
}
