//! The report as text: the cause of a failed execution, and the end of a message.

use containment::{Outcome, Status};
use verdict::{InstanceReport, LeftOut, NOT_ASKED_FOR, StepName, Workflow};

/// A failed execution's cause has at most 32,768 characters.
const AT_MOST: usize = 30_000;

/// The table of all instances and their steps.
pub(crate) fn table(
    instances: &[InstanceReport],
    left_out: &[LeftOut],
    workflow: Workflow,
    told: Option<&Outcome>,
) -> String {
    let mut rows: Vec<String> = start_not_announced(told).into_iter().collect();
    for instance in instances {
        rows.push(heading(instance));
        rows.extend(instance.steps.iter().map(row));
        // Whatever is open and belongs to no step.
        let of_a_step = |line: &str| instance.steps.iter().any(|step| line.starts_with(&step.step));
        rows.extend(instance.open.iter().filter(|line| !of_a_step(line)).map(|line| format!("  {line}")));
    }
    for left in left_out {
        let region = left.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        let what = left.instance_id.as_ref().map(|id| format!("{id}{region}: ")).unwrap_or_default();
        let verdict = if left.has_failed() { format!("{}: ", workflow.worst()) } else { String::new() };
        rows.push(format!("{what}{verdict}{}", left.reason));
    }
    bounded(&rows)
}

/// A row if the start notification failed.
pub(crate) fn start_not_announced(told: Option<&Outcome>) -> Option<String> {
    let failed = told.filter(|told| told.status == Status::Failed)?;
    Some(format!("start notification failed: {}", failed.reason.as_deref().unwrap_or_default()))
}

fn heading(instance: &InstanceReport) -> String {
    let text = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    format!("{} in {}: {}", text(&instance.instance_id), text(&instance.region), text(instance.verdict.as_str()))
}

/// A step's row. A step that went well has its reason only where a person must know it.
fn row(step: &Outcome) -> String {
    let reason = step.reason.as_deref().unwrap_or_default();
    let explained = StepName::from_name(&step.step).is_some_and(StepName::always_explained)
        || !step.status.is_good()
        || reason.starts_with(NOT_ASKED_FOR);
    let reason = if explained { reason } else { "" };
    format!("  {:<20} {:<14} {reason}", step.step, step.status).trim_end().to_owned()
}

/// The rows, as far as a cause has room for them. A row is a line: a reason may quote what others wrote, who would write
/// rows of their own.
pub(crate) fn bounded(rows: &[String]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|row| row.replace(|c: char| c.is_control() || c == '\u{2028}', " ")).collect();
    let table = rows.join("\n");
    match table.char_indices().nth(AT_MOST) {
        Some((end, _)) => format!("{}\n… the rest is in the output of the state Report", &table[..end]),
        None => table,
    }
}
