//! One table for the whole execution: a row per instance and step. Changes nothing of an instance.
//!
//! A fleet is contained in batches: each batch's execution puts its report into the evidence bucket, and the fleet's
//! execution reads them all, since no state could carry them. Nothing else in AWS is read or written.

mod event;
mod fleet;
mod table;

use containment::{Error, Outcome, Result};
use runtime::Aws;
use serde_json::Value;
use verdict::{ExecutionReport, InstanceReport, Verdict, Word};

use event::Event;

/// The function: all instances in, the table out.
pub async fn handle(aws: &Aws, event: Value) -> Result<ExecutionReport> {
    let mut event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("invalid report event: {error}")))?;
    match (event.fleet.take(), event.batch.take()) {
        (Some(fleet), _) => fleet::Folder::of(aws, &fleet.id)?.combined(fleet, event).await,
        (None, Some(batch)) => fleet::Folder::of(aws, &batch.id)?.put(batch.number, event).await,
        (None, None) => Ok(report(event)),
    }
}

fn report(event: Event) -> ExecutionReport {
    let Event { workflow, dry_run, sample, left_out, .. } = event;
    let instances: Vec<InstanceReport> =
        event.instances.into_iter().map(|instance| instance.report(workflow, sample)).collect();
    let of_left_out = left_out.iter().map(|left| if left.has_failed() { workflow.worst() } else { workflow.nothing() });
    let verdicts: Vec<Word<Verdict>> =
        instances.iter().map(|i| i.verdict.clone()).chain(of_left_out.map(Word::from)).collect();
    let (verdict, succeeded) = workflow.conclude(&verdicts, dry_run);
    // A partial release is all that was asked for, unless something is open.
    let is_open = |i: &InstanceReport| i.verdict == Verdict::PartiallyReleased && !i.open.is_empty();
    let succeeded = succeeded && !instances.iter().any(is_open);
    let table = table::table(&instances, &left_out, workflow, event.told.map(Outcome::from).as_ref());
    ExecutionReport { verdict: verdict.into(), succeeded, table, instances, left_out, counts: None, results: None }
}

#[cfg(test)]
mod tests;
