//! The input that a responder types, read strictly: any mistake in it is refused.

use std::collections::BTreeSet;

use containment::{AutoScaling, Capture, Result, Target};
use request::{Execution, account, fields, flag, instance_ids, refuse, region, tag_value};
use serde_json::{Map, Value};

use crate::Settings;
use crate::candidates::{Candidate, Request, Source, Trigger};
use crate::fleet::{self, FLEET_AT_MOST};

/// The workflow polls captures and hash lists, and an execution's history has 25,000 events
/// (aws-behaviour#execution-history). And no instance may stay connected while it waits for a place in the second Map,
/// which takes 40.
pub(crate) const LONG_AT_MOST: usize = 10;

/// The field that a fleet's execution adds to the input of its batches.
const BATCH: &str = "Batch";

const ACCEPTED: &str = "InstanceIds, Region, AccountId, IncidentTicket, Owner, DryRun, AutoScaling, RevokeAllSessions, \
     CaptureVolatile, CaptureMemory, CaptureMode, HashSnapshots";

/// Reads the input; the error names the field, the value and what is accepted.
pub(crate) fn read(input: &Value, execution: &Execution, settings: &Settings) -> Result<Request> {
    let input = fields(input, ACCEPTED, &[BATCH])?;
    let account_id = account(input, execution.account(), &settings.member_accounts)?;
    let region = region(input)?;
    let ids = instance_ids(input, FLEET_AT_MOST)?;
    let batch = input.get(BATCH).map(|value| fleet::batch(value, execution)).transpose()?;
    // A batch is never cut again, even if the limits have changed since.
    let is_fleet = batch.is_none() && ids.len() > settings.fleet_above;
    let auto_scaling = auto_scaling(input)?;
    let dry_run = flag(input, "DryRun")?;
    let revoke_all_sessions = flag(input, "RevokeAllSessions")?;
    let hash_snapshots = flag(input, "HashSnapshots")?;
    let capture = capture(input)?;
    for (field, asked) in [("CaptureVolatile", capture.is_some()), ("HashSnapshots", hash_snapshots)] {
        if asked && ids.len() > LONG_AT_MOST {
            let accepted = format!(
                "true for at most {LONG_AT_MOST} instances per execution, because it takes long; this input has {}",
                ids.len()
            );
            return refuse(field, &true.into(), &accepted);
        }
    }
    let incident_ticket = tag_value(input, "IncidentTicket")?;
    let owner = tag_value(input, "Owner")?;
    let candidates = ids.into_iter().map(|id| {
        let target = Target {
            dry_run,
            incident_ticket: incident_ticket.clone(),
            owner: owner.clone(),
            auto_scaling,
            revoke_all_sessions,
            hash_snapshots,
            capture,
            ..execution.target(&account_id, &region, &id)
        };
        Candidate { target, findings: BTreeSet::new(), ask: Vec::new() }
    });
    let trigger = Trigger { source: Source::Hand, findings: Vec::new(), drift: None };
    Ok(Request { trigger, candidates: candidates.collect(), left_out: Vec::new(), is_fleet, batch })
}

fn auto_scaling(input: &Map<String, Value>) -> Result<AutoScaling> {
    match input.get("AutoScaling") {
        None => Ok(AutoScaling::default()),
        Some(value) => serde_json::from_value(value.clone()).or_else(|_| {
            refuse("AutoScaling", value, "\"Replace\" (the default: the group launches a replacement) or \"Decrement\"")
        }),
    }
}

/// A memory image is part of the capture, and the mode says when the capture runs: both need a capture.
fn capture(input: &Map<String, Value>) -> Result<Option<Capture>> {
    let (volatile, memory) = (flag(input, "CaptureVolatile")?, flag(input, "CaptureMemory")?);
    if memory && !volatile {
        return refuse("CaptureMemory", &true.into(), "true only together with \"CaptureVolatile\": true");
    }
    let mode = match input.get("CaptureMode") {
        None => Default::default(),
        Some(value) if !volatile => {
            return refuse("CaptureMode", value, "a mode only together with \"CaptureVolatile\": true");
        }
        Some(value) => serde_json::from_value(value.clone()).or_else(|_| {
            refuse(
                "CaptureMode",
                value,
                "\"IsolateFirst\" (the default: the VPC's endpoints stay open until the capture has ended) or \"CaptureFirst\"",
            )
        })?,
    };
    Ok(volatile.then_some(Capture { mode, memory }))
}
