//! Makes the manifest: what the verifier found, what the comparison found, and how the sealing itself went. Pure.

use std::time::SystemTime;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use containment::Target;
use custody::{FORMAT, ItemState, Manifest};
use verdict::InstanceReport;

use crate::collect::Collected;
use crate::compare::Compared;
use crate::{Sealer, Trouble, record};

impl Sealer {
    /// The manifest without this step's own outcome, and what that says if all goes well.
    pub(crate) fn manifest(
        &self,
        target: &Target,
        report: &InstanceReport,
        collected: &Collected,
        compared: Compared,
        trouble: &mut Trouble,
    ) -> (Manifest, String) {
        let Compared { items, previous, record, contained, facts } = compared;
        let record = record::full(report, record.as_deref(), record::verifier(target), &mut trouble.0);
        let execution = target.execution.clone().unwrap_or_default();
        let (record, release) = match &target.release {
            None => (record, None),
            Some(_) => {
                let (record, release) = record::with_containment(record, contained.as_deref(), &execution);
                (record, Some(release))
            }
        };
        let unlisted = items.iter().filter(|item| item.state == ItemState::Unlisted).count();
        let snapshots = collected.snapshots.clone();
        let mut good = format!("sealed {} pieces of evidence and {} snapshots", items.len(), snapshots.len());
        if unlisted > 0 {
            good += &format!("; {unlisted} of the pieces are not in the ledger, so nothing vouches for them");
        }
        let manifest = Manifest {
            format: FORMAT,
            case_id: target.case_id.clone(),
            account_id: target.account_id.clone(),
            region: target.region.clone(),
            instance_id: target.instance_id.clone(),
            sealed_at: now(),
            execution,
            sealed_by: self.sealed_by.clone(),
            verdict: record.verdict,
            open: record.open,
            residual_risk: record.residual_risk,
            steps: record.steps,
            release,
            evidence: items,
            snapshots,
            facts: record::with_collected(record.facts, facts.as_deref()),
            previous,
        };
        (manifest, good)
    }
}

/// The current time, by the clock of the machine in AWS that this runs on.
fn now() -> String {
    DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime).unwrap_or_default()
}
