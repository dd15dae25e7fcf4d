//! From its isolation on, an instance is monitored: drift is detected however long the rest of the containment takes.

use std::time::Duration;

use cases::CaseTable;
use containment::{Outcome, Result, Status, Step, Target};
use runtime::{Aws, answer, run_reversible};
use serde_json::Value;

use crate::IsolateNetwork;

/// The next step must not wait for long, and the verification starts monitoring too.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// The function: a target in, an outcome out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Outcome> {
    let target = Target::parse(event)?;
    let step = IsolateNetwork::new(&aws.of(&target, IsolateNetwork::NAME).await?);
    let mut outcome = run_reversible(aws, &step, &target).await;
    if let Ok(outcome) = &mut outcome
        && outcome.status == Status::Done
        && target.release.is_none()
        && !target.dry_run
    {
        let unmonitored = monitor(&aws.case_table()?, &target, outcome).await;
        outcome.residual_risk.extend(unmonitored);
    }
    answer(&target, outcome)
}

/// Notes the interfaces and their groups in the case; a sentence where that failed.
async fn monitor(cases: &CaseTable, target: &Target, outcome: &Outcome) -> Option<String> {
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    let noted = Box::pin(cases.monitor_from_now(target, outcome));
    let why = match tokio::time::timeout(NOTED_WITHIN, noted).await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the case table has not answered within {} seconds", NOTED_WITHIN.as_secs()),
    };
    Some(format!("changes that somebody makes before the verification go undetected: {why}"))
}
