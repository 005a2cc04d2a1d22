//! `pipeline-app checkpoint`: looks into the checkpoints, whether the job runs or not.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use streamkit::Checkpoints;
use streamkit::checkpoint::{Detail, Fact, Inspector};
use streamkit::time::Timestamp;

use crate::cli::CheckpointCommand;
use crate::config::Config;
use crate::job::JOB;
use crate::show::Table;
use crate::text::{bytes, number, print};

/// Does what was asked for.
///
/// # Errors
/// If there are no checkpoints, they cannot be read, or `verify` has found damage.
pub fn checkpoint(config: &Config, command: &CheckpointCommand) -> Result<()> {
    let folder = &config.checkpoint_path;
    let no_folder = || {
        format!(
            "there are no checkpoints in {}: the job has not run yet, or its folder is another one \
             (--checkpoint-path, --data-dir)",
            folder.display()
        )
    };
    if !folder.is_dir() {
        bail!(no_folder());
    }
    let inspector = Checkpoints::Directory(folder.clone()).inspect(JOB)?;
    match command {
        CheckpointCommand::Ls => {
            let all = inspector.list()?;
            if all.is_empty() {
                bail!(no_folder());
            }
            let mut table =
                Table::new(["number#", "made", "kind", "bytes#", "records read#", "watermark"]);
            for one in all.into_iter().rev() {
                let kind = match one.base == one.number {
                    true => "base".to_owned(),
                    false => format!("on {}", one.base),
                };
                table.push([
                    one.number.to_string(),
                    time(one.created),
                    kind,
                    number(one.bytes),
                    number(one.read),
                    time(one.watermark),
                ]);
            }
            print(&table.to_string());
            Ok(())
        }
        CheckpointCommand::Show(args) => {
            let detail = inspector.show(args.number)?.with_context(|| match args.number {
                Some(number) => format!(
                    "there is no checkpoint {number} in {}; `checkpoint ls` lists them",
                    inspector.folder()
                ),
                None => no_folder(),
            })?;
            if args.json {
                print(&format!("{}\n", serde_json::to_string_pretty(&detail)?));
            } else {
                print(&text(&detail));
            }
            Ok(())
        }
        CheckpointCommand::Verify => verify(&inspector),
    }
}

fn verify(inspector: &Inspector) -> Result<()> {
    let found = inspector.verify()?;
    if found.objects == 0 && found.damage.is_empty() {
        bail!("there is no checkpoint in {}", inspector.folder());
    }
    let range = match (found.restorable.first(), found.restorable.last()) {
        (Some(first), Some(last)) => format!(" ({first} to {last})"),
        _ => String::new(),
    };
    print(&format!(
        "{} objects, {}, read in {}\n{} checkpoints can be restored{range}\n",
        number(found.objects),
        bytes(found.bytes),
        inspector.folder(),
        number(found.restorable.len() as u64),
    ));
    if found.damage.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} damaged or missing:", number(found.damage.len() as u64));
    for damage in &found.damage {
        // Writing into a text cannot fail.
        let _ = write!(text, "\n  {}: {}", damage.object, damage.problem);
    }
    bail!(text)
}

/// A time in UTC; a dash before the first one.
fn time(time: Timestamp) -> String {
    if time == Timestamp::MIN { "-".to_owned() } else { time.to_string() }
}

/// A checkpoint for people.
fn text(detail: &Detail) -> String {
    let Detail { manifest, bytes: size, state, facts, floors } = detail;
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let kind = match manifest.is_base() {
        true => "a base".to_owned(),
        false => format!("an increment on {}", manifest.base),
    };
    line(format!(
        "checkpoint {} of job {}, {kind}, {}",
        manifest.number,
        manifest.job,
        bytes(*size)
    ));
    line(format!("made {}, lineage {}", manifest.created, manifest.lineage));
    line(format!("watermark {}", time(manifest.watermark)));
    line("\nsplits: next record, records read and accepted, highest event time".to_owned());
    for entry in &manifest.splits {
        let at = &entry.position;
        let idle = if manifest.idle.contains(&entry.split.id) { ", idle" } else { "" };
        let high = at.high.map_or_else(|| "-".to_owned(), |high| high.to_string());
        line(format!(
            "  {}: {}, {} and {}, {high}{idle}",
            entry.split.id, at.next, at.read, at.accepted
        ));
        for (what, totals) in [
            ("dead letters", &entry.totals.dead),
            ("late", &entry.totals.late),
            ("for", &entry.totals.wanted),
        ] {
            for (name, n) in totals.iter().filter(|(_, n)| **n > 0) {
                line(format!("    {what} {name}: {}", number(*n)));
            }
        }
    }
    line("\nsinks: what they had confirmed".to_owned());
    for (sink, confirmed) in &manifest.confirmed {
        let what = match confirmed.w {
            Some(w) => format!("every result up to {w}"),
            None if confirmed.has_progress => "some progress".to_owned(),
            None => "nothing".to_owned(),
        };
        line(format!("  {sink}: {what}"));
    }
    line("\nstate: entries, bytes, records counted".to_owned());
    for (operator, size) in state {
        let counted = manifest.counted.get(operator).copied().unwrap_or(0);
        line(format!(
            "  {operator}: {}, {}, {}",
            number(size.entries),
            bytes(size.bytes),
            number(counted)
        ));
    }
    line("\nplan".to_owned());
    for step in &manifest.plan {
        line(format!("  {} {}: {}", step.kind, step.name, step.parameters));
    }
    line(format!("\nfacts of the log: {}", facts.len()));
    for fact in facts.iter().filter(|fact| !matches!(fact, Fact::Floor { .. })) {
        line(format!("  {}", serde_json::to_string(fact).unwrap_or_default()));
    }
    line("\nfloors ever set: from this record on, earlier events are late".to_owned());
    for (split, floors) in floors {
        for (from, floor) in floors {
            line(format!("  {split}: from {from}, {}", time(*floor)));
        }
    }
    text
}
