//! The input with which `watch-drift` starts an execution: an instance that somebody else has changed, and the change.
//!
//! Nobody is asked for approval, because the open case has already been decided; without such a case, nothing is done.

use cases::{CaseTable, Drift};
use containment::{Error, Result, Status, Target};
use request::{Execution, LeftOut, refuse};
use serde_json::Value;

use crate::candidates::{Candidate, Request, Source};
use crate::{Settings, manual};

const FIELD: &str = "Drift";

/// Whether the input is of this kind.
pub(crate) fn is_drift(input: &Value) -> bool {
    input.get(FIELD).is_some()
}

/// Reads the input: one instance, without options, and the call that changed it.
pub(crate) fn read(input: &Value, execution: &Execution, settings: &Settings) -> Result<Request> {
    let mut rest = input.clone();
    let drift = rest.as_object_mut().and_then(|fields| fields.remove(FIELD)).unwrap_or_default();
    let accepted = "only together with InstanceIds, Region and AccountId";
    if let Some((field, value)) = rest
        .as_object()
        .into_iter()
        .flatten()
        .find(|(f, _)| !["InstanceIds", "Region", "AccountId"].contains(&f.as_str()))
    {
        return refuse(field, value, &format!("{FIELD} {accepted}"));
    }
    let drift: Drift = serde_json::from_value(drift)
        .map_err(|error| Error::InvalidInput(format!("{FIELD}: {error}; only watch-drift sets this field")))?;
    let mut request = manual::read(&rest, execution, settings)?;
    if request.candidates.len() != 1 {
        return refuse("InstanceIds", &rest["InstanceIds"], &format!("one instance together with {FIELD}"));
    }
    request.trigger.source = Source::Drift;
    request.trigger.drift = Some(drift.shortened());
    Ok(request)
}

/// Leaves out instances that are not monitored, and gives the others their cases' options. Reads the case table.
pub(crate) async fn with_options(cases: &CaseTable, mut request: Request) -> Result<Request> {
    for candidate in std::mem::take(&mut request.candidates) {
        match cases.monitored(&candidate.target.key()).await? {
            Some(monitored) => {
                let options = monitored.options;
                let target = Target {
                    incident_ticket: options.incident_ticket,
                    owner: options.owner,
                    auto_scaling: options.auto_scaling,
                    revoke_all_sessions: options.revoke_all_sessions,
                    ..candidate.target
                };
                request.candidates.push(Candidate { target, ..candidate });
            }
            None => {
                let reason = "it has no open case that contained it, so there is nothing to repair";
                let left_out = LeftOut::instance(&candidate.target, Status::NotApplicable, reason);
                request.left_out.push(left_out.quiet(true));
            }
        }
    }
    Ok(request)
}
