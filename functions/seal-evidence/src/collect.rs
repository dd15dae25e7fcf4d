//! Collects what the case must have, what is in the bucket, and the case's snapshots. What cannot be read is trouble, and
//! stops nothing.

use containment::{Journal, Result, Target};
use custody::Snapshot;
use evidence::Entry;
use futures::FutureExt;
use runtime::Aws;
use snapshots::ForensicCopy;

use crate::objects::Listed;
use crate::{NAME, OURS, Sealer, Trouble, lineage};

/// Where snapshots are read: the instance's account, and the forensic one, if there is one.
pub(crate) struct Sources {
    pub(crate) ec2: Result<aws_sdk_ec2::Client>,
    pub(crate) copies: Result<Option<Vec<ForensicCopy>>>,
}

/// What was collected.
pub(crate) struct Collected {
    /// What the keys of the case's objects begin with.
    pub(crate) prefix: String,
    /// What must be in the bucket, except what sealing itself wrote.
    pub(crate) ledger: Vec<Entry>,
    /// What earlier sealings wrote.
    pub(crate) before: Vec<Entry>,
    /// What is in the bucket; none where it could not be listed.
    pub(crate) listed: Option<Listed>,
    /// The case's snapshots, with their copies.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Sources {
    pub(crate) async fn of(aws: &Aws, target: &Target) -> Sources {
        let (config, copies) = futures::join!(aws.of(target, NAME), forensic_copies(aws, target).boxed());
        Sources { ec2: config.map(|config| aws_sdk_ec2::Client::new(&config)), copies }
    }
}

/// The case's copies in the forensic account with their locks; none where no forensic account is configured.
async fn forensic_copies(aws: &Aws, target: &Target) -> Result<Option<Vec<ForensicCopy>>> {
    let Some(forensic) = aws.forensic()? else { return Ok(None) };
    let there = aws_sdk_ec2::Client::new(&aws.of_forensic(&forensic, target, NAME).await?);
    snapshots::forensic_copies(&there, target, forensic.region_for(target)).await.map(Some)
}

impl Sealer {
    pub(crate) async fn collect(
        &self,
        journal: &impl Journal,
        sources: Sources,
        target: &Target,
        described: Option<Entry>,
        trouble: &mut Trouble,
    ) -> Collected {
        if let Some(entry) = &described {
            let entered = evidence::enter(journal, target, entry).await;
            trouble.or_none("the evidence of describe-instance could not be entered into the ledger", entered);
        }
        let prefix = format!("{}/", target.evidence_prefix());
        let (ledger, listed, found, lists) = futures::join!(
            evidence::ledger(journal, target),
            self.objects.listed(&prefix),
            lineage::of_case(sources.ec2, target),
            snapshots::block_lists(journal, target),
        );
        let unknown = "the ledger could not be read, so what must be in the bucket is unknown";
        let ledger = trouble.or_none(unknown, ledger).unwrap_or_default();
        if ledger.is_empty() {
            trouble.0.push("the case's ledger is empty, so missing evidence cannot be noticed".to_owned());
        }
        let is_ours = |entry: &Entry| {
            let name = entry.pointer.key.strip_prefix(&prefix).unwrap_or_default();
            OURS.contains(&name)
        };
        let (before, mut ledger): (Vec<Entry>, Vec<Entry>) = ledger.into_iter().partition(is_ours);
        ledger.extend(described.filter(|entry| !ledger.iter().any(|known| known.pointer == entry.pointer)));
        let listed = trouble.or_none("the bucket could not be listed, so what else is in it is unknown", listed);
        let mut snapshots = trouble.or_none("the snapshots could not be read", found).unwrap_or_default();
        let copies = trouble.or_none("the copies in the forensic account could not be read", sources.copies).flatten();
        snapshots.extend(copies.into_iter().flatten().map(lineage::in_forensic_account));
        let lists = trouble.or_none("the lists of the snapshots' blocks could not be read", lists).unwrap_or_default();
        for snapshot in &mut snapshots {
            snapshot.blocks = lists.get(&snapshot.snapshot_id).map(lineage::blocks);
        }
        Collected { prefix, ledger, before, listed, snapshots }
    }
}
