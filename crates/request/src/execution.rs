//! The execution that a function works for.

use containment::{AutoScaling, Error, Result, Target};
use serde::Deserialize;
use serde_json::Value;

/// The event from the state machine: the execution's input, unchanged, and the execution.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The execution's input: a responder's, or an event as EventBridge delivered it.
    pub input: Value,
    /// Which execution it is.
    pub execution: Execution,
}

/// The execution's own data, from the Step Functions context object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Execution {
    /// The execution's ARN, which has Cordon's account and Region.
    pub id: String,
    /// When it was started: `2026-11-21T03:00:00.000Z`.
    pub start_time: String,
}

impl Execution {
    /// Cordon's own account. Empty if the id is not an ARN; see [`check`](Execution::check).
    pub fn account(&self) -> &str {
        self.id.split(':').nth(4).unwrap_or_default()
    }

    /// The clock hour of the start: `2026-11-21T03`.
    pub fn hour(&self) -> &str {
        self.start_time.get(..13).unwrap_or_default()
    }

    /// The start in UTC to the second, for the names of cases: `20261121T030000Z`. Empty if it is not a time.
    fn stamp(&self) -> String {
        let digits: String = self.start_time.chars().filter(char::is_ascii_digit).take(14).collect();
        match digits.split_at_checked(8) {
            Some((day, time)) if time.len() == 6 => format!("{day}T{time}Z"),
            _ => String::new(),
        }
    }

    /// The start to the millisecond and the characters of the execution's name that need no quoting: 70 at most, so
    /// that a batch's number still fits into the 80 of an execution's name.
    pub fn fleet_id(&self) -> String {
        let digits: String = self.start_time.chars().filter(char::is_ascii_digit).take(17).collect();
        let (day, time) = digits.split_at_checked(8).unwrap_or_default();
        let name = self.id.splitn(8, ':').nth(7).unwrap_or_default();
        let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
        format!("{day}T{time}Z-{plain}")
    }

    /// Refuses an invalid execution. Calls nothing.
    pub fn check(&self) -> Result<()> {
        if self.account().len() != 12 {
            return Err(Error::InvalidInput(format!("Execution.Id: {:?} is not an execution's ARN", self.id)));
        }
        if self.stamp().is_empty() || self.hour().is_empty() {
            return Err(Error::InvalidInput(format!(
                "Execution.StartTime: {:?} is not a time such as 2026-11-21T03:00:00.000Z",
                self.start_time
            )));
        }
        Ok(())
    }

    /// A target with a new case and the default options.
    pub fn target(&self, account_id: &str, region: &str, instance_id: &str) -> Target {
        Target {
            account_id: account_id.to_owned(),
            region: region.to_owned(),
            instance_id: instance_id.to_owned(),
            case_id: format!("{instance_id}-{}", self.stamp()),
            execution: Some(self.id.clone()),
            release: None,
            dry_run: false,
            incident_ticket: None,
            owner: None,
            auto_scaling: AutoScaling::default(),
            revoke_all_sessions: false,
            capture: None,
            hash_snapshots: false,
            capture_window: false,
            approval: None,
            instance_profile_arn: None,
        }
    }
}
