//! Turns the input of a release into a plan: a target for each instance whose case is open, with the steps to release.
//! Bad input is refused before anything is touched; an instance that was never contained, or is already released, is
//! left alone.
//!
//! Reads and writes the case table, so that a release and a containment of an instance never run at the same time.
//! Changes nothing else.

mod decision;
mod input;

use containment::{Error, Result, Target};
use request::{Event, LeftOut, MemberAccounts, check_region_exists};
use runtime::Aws;
use serde::Serialize;
use serde_json::Value;

use decision::ReleasePlanner;
use input::ReleaseRequest;

/// The plan for a release.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plan {
    /// Whether the execution is to change nothing.
    pub dry_run: bool,
    /// Whether to close a case even if part of it is not released.
    pub close_case: bool,
    /// One target for each distinct instance with an open case, in the order of the input.
    pub targets: Vec<Target>,
    /// The instances that this execution does not act on.
    pub left_out: Vec<LeftOut>,
}

/// The function: the input and the execution in, the plan out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Plan> {
    let event: Event = serde_json::from_value(event).map_err(|error| {
        Error::InvalidInput(format!("the event of plan-release is not {{Input, Execution}}: {error}"))
    })?;
    event.execution.check()?;
    let request = ReleaseRequest::read(
        &event.input,
        &event.execution,
        &MemberAccounts::named(&aws.setting("MEMBER_ACCOUNTS").unwrap_or_default()),
    )?;
    check_region_exists(aws.home(), &request.region).await?;
    let planner = ReleasePlanner { cases: aws.case_table()?, sfn: aws_sdk_sfn::Client::new(aws.home()) };
    planner.plan(request, &event.execution).await
}
