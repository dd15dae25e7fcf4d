//! Locks the forensic account's copies, so that for some days nobody can delete them.
//!
//! Only a completed copy that is under the account's own key is locked. A lock on a pending copy would be cancelled
//! silently if the copy failed, and its days would begin only with its completion (aws-behaviour#snapshot-lock); and a
//! compliance lock on a copy that turns out to be no evidence could not be removed. A longer or stricter lock stays as
//! it is.

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{LockMode, LockState, LockedSnapshotsInfo, Snapshot, SnapshotState};
use containment::{Error, Forensic, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use futures::{StreamExt, stream};
use runtime::Aws;
use serde::Serialize;
use snapshots::{is_verified, locked_days, tag};

/// The step. Reads the case's copies in the forensic account and their locks; writes by `LockSnapshot`. Never undone.
#[derive(Debug, Clone)]
pub struct LockSnapshots {
    there: Client,
    forensic: Forensic,
    wanted: Wanted,
}

/// The lock that the operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Who may remove it: whoever has `ec2:UnlockSnapshot`, or nobody.
    pub mode: LockMode,
    /// For how many days, from 1 to 36500.
    pub days: i32,
}

/// How a copy is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lock {
    /// `none`, `governance`, `compliance-cooloff`, `compliance`, `expired`, or `waiting for its copy`.
    pub state: String,
    /// For how many days, from the lock's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<i32>,
}

const LOCK: &str = "Lock";
const WAITING: &str = "waiting for its copy";
const COOLING_OFF: &str = "compliance-cooloff";

/// The lock that the function's environment asks for: `SNAPSHOT_LOCK_MODE` and `SNAPSHOT_LOCK_DAYS`.
///
/// Errors: `Misconfigured` for what EC2 would not take.
pub fn wanted(aws: &Aws) -> Result<Wanted> {
    parse(&aws.required("SNAPSHOT_LOCK_MODE")?, &aws.required("SNAPSHOT_LOCK_DAYS")?)
}

fn parse(mode: &str, days: &str) -> Result<Wanted> {
    let mode = LockMode::try_parse(mode)
        .map_err(|_| Error::Misconfigured(format!("SNAPSHOT_LOCK_MODE: {mode:?} is not governance or compliance")))?;
    let days = days.parse().ok().filter(|days| (1..=36_500).contains(days));
    let days = days.ok_or_else(|| Error::Misconfigured("SNAPSHOT_LOCK_DAYS is not from 1 to 36500".to_owned()))?;
    Ok(Wanted { mode, days })
}

impl LockSnapshots {
    /// The step, with the forensic account's configuration.
    pub fn new(there: &SdkConfig, forensic: Forensic, wanted: Wanted) -> Self {
        LockSnapshots { there: Client::new(there), forensic, wanted }
    }

    fn locked(&self, copy: &Snapshot, lock: Option<&LockedSnapshotsInfo>) -> Option<Lock> {
        match copy.state() {
            Some(SnapshotState::Pending) => Some(Lock { state: WAITING.to_owned(), days: None }),
            _ if !is_verified(copy, Some(&self.forensic.key_arn)) => None,
            _ => Some(Lock {
                state: lock.and_then(|lock| lock.lock_state()).map_or("none", LockState::as_str).to_owned(),
                days: lock.and_then(locked_days),
            }),
        }
    }

    /// The lock to end with: never a shorter or a milder one than there is.
    fn goal(&self, lock: &Lock) -> Lock {
        let strict = match lock.state.as_str() {
            "compliance" | COOLING_OFF => true,
            "governance" => self.wanted.mode == LockMode::Governance,
            _ => false,
        };
        let there_is = matches!(lock.state.as_str(), "governance" | "compliance" | COOLING_OFF);
        let days = lock.days.filter(|_| there_is).map_or(self.wanted.days, |days| days.max(self.wanted.days));
        let state = if strict { &lock.state } else { self.wanted.mode.as_str() };
        Lock { state: state.to_owned(), days: Some(days) }
    }

    async fn lock(&self, snapshot: &str, lock: &Lock) -> Result<()> {
        let mode = match lock.state.as_str() {
            "governance" => LockMode::Governance,
            _ => LockMode::Compliance,
        };
        // Without a cooling-off period, deliberately: during one, an attacker with an administrator's role could still
        // unlock. A mistake in the number of days costs storage; a late unlock costs the evidence.
        let call = self.there.lock_snapshot().snapshot_id(snapshot).lock_mode(mode).set_lock_duration(lock.days);
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:LockSnapshot", snapshot))
    }
}

impl Step for LockSnapshots {
    type Value = Lock;
    type Facts = ();
    const NAME: &'static str = "lock-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<Lock, ()>> {
        let case = snapshots::snapshots_of_case(&self.there, target).await?;
        let copies: Vec<&Snapshot> = case.iter().filter(|s| tag(s, "SourceSnapshotId").is_some()).collect();
        let ids: Vec<String> = copies.iter().filter_map(|copy| copy.snapshot_id.clone()).collect();
        let locks = snapshots::locks(&self.there, &ids).await?;
        let state = copies.into_iter().filter_map(|copy| {
            let id = copy.snapshot_id()?;
            Some((Key::new(id, LOCK), self.locked(copy, locks.get(id))?))
        });
        Ok(Found { state: state.collect(), facts: () })
    }

    fn contained(&self, _: &Target, found: &Found<Lock, ()>, _: &Journaled) -> Goal<Lock> {
        let mut goal = Goal::new(found.state.iter().map(|(key, lock)| (key.clone(), self.goal(lock))).collect());
        if found.state.is_empty() {
            goal.not_applicable = Some("the forensic account has no verified copy of the case's snapshots".to_owned());
        }
        let cooling = found.state.iter().filter(|(_, lock)| lock.state == COOLING_OFF);
        goal.residual_risk.extend(cooling.map(|(key, _)| {
            format!("until its cooling-off period ends, {} of the forensic account can still be unlocked", key.resource)
        }));
        goal
    }

    fn accepted(&self, lock: &Lock) -> bool {
        lock.state == WAITING
    }

    async fn write(&self, _: &Target, found: &Found<Lock, ()>, goal: &State<Lock>) -> Writes {
        let open = goal.iter().filter(|(key, lock)| {
            found.state.get(*key).is_some_and(|there_is| !self.accepted(there_is) && there_is != *lock)
        });
        let calls: Vec<_> = open.map(|(key, lock)| self.lock(&key.resource, lock)).collect();
        let mut writes = Writes::default();
        for result in stream::iter(calls).buffer_unordered(5).collect::<Vec<_>>().await {
            writes.note(result);
        }
        writes
    }
}

impl Irreversible for LockSnapshots {}

#[cfg(test)]
mod tests;
