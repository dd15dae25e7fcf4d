//! Seals a case: compares what is in the evidence bucket with what the case's ledger says must be there, and writes the
//! manifest, its signature and the report beside it. Changes nothing of the instance.
//!
//! Whatever is wrong is in the manifest, which is written and signed all the same: a case with a hole is evidence too.

mod objects;
mod record;
mod snapshots;

use std::time::{Duration, SystemTime};

use ::snapshots::ForensicCopy;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use containment::{Error, Journal, Outcome, Result, Status, Target};
use custody::{FORMAT, Item, ItemState, MANIFEST, Manifest, Previous, REPORT, SIGNATURE, digest};
use evidence::{Bucket, Entry};
use futures::FutureExt;
use runtime::Aws;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use objects::{Listed, Objects};

/// The step's name.
pub const NAME: &str = "seal-evidence";

/// What the state machine hands over when an instance has been verified.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// What `describe-instance` answered; after a release, the target alone.
    pub described: Described,
    /// What `verify-containment` or `verify-release` answered; it is handed on with this step's outcome in it.
    pub report: Value,
}

/// The answer of `describe-instance`, as far as sealing needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// The instance.
    pub target: Value,
    /// Its evidence, which nobody has entered into the ledger yet: before isolation there was no time for it.
    #[serde(default)]
    pub evidence: Option<Entry>,
}

/// For so long evidence is read for its hash; the rest of the function's time is for writing.
const READING: Duration = Duration::from_secs(90);

/// The function: a report in, the same report with this step in it out.
///
/// Whatever goes wrong is in the step's outcome. Errors: [`Error::InvalidInput`] for what is no such event,
/// [`Error::Misconfigured`] for a function without its settings.
pub async fn handle(aws: &Aws, event: Value) -> Result<Value> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("the event of {NAME}: {error}")))?;
    let target = Target::parse(event.described.target)?;
    if !event.report.is_object() {
        return Err(Error::InvalidInput(format!("Report: it has to be what {} answered", record::verifier(&target))));
    }
    if target.dry_run {
        return Ok(event.report);
    }
    let (bucket, key, journal) =
        (aws.required("EVIDENCE_BUCKET")?, aws.required("MANIFEST_KEY_ARN")?, aws.case_table()?);
    let sealer = Sealer {
        objects: Objects { s3: aws_sdk_s3::Client::new(aws.home()), bucket, until: Instant::now() + READING },
        writer: Bucket::of(aws)?,
        kms: aws_sdk_kms::Client::new(aws.home()),
        key,
        // Boxed, as below, because the whole future's type is too deep for the compiler's default limit.
        sealed_by: aws.caller().arn().boxed().await.unwrap_or_default(),
    };
    let (config, copies) = futures::join!(aws.of(&target, NAME), forensic_copies(aws, &target).boxed());
    let ec2 = config.map(|config| aws_sdk_ec2::Client::new(&config));
    let verified = event.report["Verdict"].clone();
    let mut report =
        sealer.seal(&journal, (ec2, copies), &target, event.described.evidence, event.report).boxed().await;
    // For intake, which has the verifier's word: where the evidence is not whole, a finding that is repeated is no repetition.
    if let Some(verdict) = report["Verdict"].as_str().filter(|verdict| verified != *verdict)
        && let Err(error) = journal.note_verdict(&target, verdict).await
    {
        append(&mut report, "Open", json!(format!("{NAME}: its verdict could not be noted: {error}")));
    }
    Ok(report)
}

/// The case's copies in the forensic account with their locks; none where no forensic account is configured.
async fn forensic_copies(aws: &Aws, target: &Target) -> Result<Option<Vec<ForensicCopy>>> {
    let Some(forensic) = aws.forensic()? else { return Ok(None) };
    let there = aws_sdk_ec2::Client::new(&aws.of_forensic(&forensic, target, NAME).await?);
    ::snapshots::forensic_copies(&there, target, forensic.region_for(target)).await.map(Some)
}

/// What sealing needs of Cordon's own account.
struct Sealer {
    objects: Objects,
    writer: Bucket,
    kms: aws_sdk_kms::Client,
    /// The signing key's ARN.
    key: String,
    /// The function's own identity.
    sealed_by: String,
}

/// What is wrong with the case or could not be found out, in words.
#[derive(Debug, Default)]
struct Trouble(Vec<String>);

impl Trouble {
    fn or_none<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{what}: {error}"))).ok()
    }

    fn outcome(&self, good: String) -> Outcome {
        match self.0.is_empty() {
            true => Outcome::new(NAME, Status::Done, good),
            false => Outcome::new(NAME, Status::Failed, self.0.join("; ")),
        }
    }
}

/// The pieces of evidence, and the bytes of two of them.
struct Items {
    items: Vec<Item>,
    /// What the verifier has stored.
    record: Option<Vec<u8>>,
    /// What `verify-containment` has stored last.
    contained: Option<Vec<u8>>,
    /// What `collect-facts` has stored.
    collected: Option<Vec<u8>>,
}

/// The name that the evidence of `collect-facts` begins with.
const COLLECTED: &str = "collect-facts-";

impl Sealer {
    async fn seal(
        &self,
        journal: &impl Journal,
        (ec2, copies): (Result<aws_sdk_ec2::Client>, Result<Option<Vec<ForensicCopy>>>),
        target: &Target,
        described: Option<Entry>,
        report: Value,
    ) -> Value {
        let mut trouble = Trouble::default();
        if let Some(entry) = &described {
            let entered = evidence::enter(journal, target, entry).await;
            trouble.or_none("the evidence of describe-instance could not be entered into the ledger", entered);
        }
        let prefix = format!("{}/", target.evidence_prefix());
        let (ledger, listed, snapshots, lists) = futures::join!(
            evidence::ledger(journal, target),
            self.objects.listed(&prefix),
            snapshots::of_case(ec2, target),
            ::snapshots::block_lists(journal, target),
        );
        let ledger =
            trouble.or_none("so what must be in the bucket is not known: the ledger", ledger).unwrap_or_default();
        if ledger.is_empty() {
            trouble.0.push("the case's ledger is empty, so nothing that is missing can be known".to_owned());
        }
        let ours = |entry: &Entry| {
            let name = entry.pointer.key.strip_prefix(&prefix).unwrap_or_default();
            [MANIFEST, SIGNATURE, REPORT].contains(&name)
        };
        let (before, mut ledger): (Vec<Entry>, Vec<Entry>) = ledger.into_iter().partition(ours);
        ledger.extend(described.filter(|entry| !ledger.iter().any(|known| known.pointer == entry.pointer)));
        let listed = trouble.or_none("so what else is in the bucket is not known", listed);
        let mut snapshots = trouble.or_none("the snapshots could not be read", snapshots).unwrap_or_default();
        let copies = trouble.or_none("the copies in the forensic account could not be read", copies).flatten();
        snapshots.extend(copies.into_iter().flatten().map(snapshots::in_forensic_account));
        let lists = trouble.or_none("the lists of the snapshots' blocks could not be read", lists).unwrap_or_default();
        for snapshot in &mut snapshots {
            snapshot.blocks = lists.get(&snapshot.snapshot_id).map(snapshots::blocks);
        }

        let verifier = record::verifier(target);
        let verified = record::pointer(&report, verifier);
        let Items { items, record: stored, contained, collected } =
            self.items(&prefix, target, &ledger, listed.as_ref(), verified.as_ref()).await;
        trouble.0.extend(items.iter().filter_map(what_is_wrong));
        let previous = self.objects.previous(&prefix, listed.as_ref()).await;
        let previous = trouble.or_none("the manifest before this one could not be read", previous).flatten();
        if let Some(doubt) = out_of_line(previous.as_ref(), &before)
            && !self.is_own(&prefix, listed.as_ref(), &before, &mut trouble).await
        {
            trouble.0.push(doubt);
        }
        let record = record::full(&report, stored.as_deref(), verifier, &mut trouble.0);
        let execution = target.execution.clone().unwrap_or_default();
        let (record, release) = match &target.release {
            None => (record, None),
            Some(_) => {
                let (record, release) = record::with_containment(record, contained.as_deref(), &execution);
                (record, Some(release))
            }
        };

        let (count, unlisted) = (items.len(), items.iter().filter(|i| i.state == ItemState::Unlisted).count());
        let mut good = format!("{count} pieces of evidence and {} snapshots are sealed", snapshots.len());
        if unlisted > 0 {
            good += &format!("; {unlisted} of them are not in the ledger, so nobody vouches for them");
        }
        let mut manifest = Manifest {
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
            facts: record::with_collected(record.facts, collected.as_deref()),
            previous,
        };
        let mut sealed = manifest.clone();
        stand(&mut sealed, &trouble.outcome(good.clone()));
        let put =
            self.put(target, &prefix, REPORT, "text/html; charset=utf-8", case_report::html(&sealed).into_bytes());
        let mut written = Vec::new();
        if let Some(entry) = trouble.or_none("the report could not be stored", put.await) {
            // Once more, for S3's own word about when it was stored.
            let item = self.objects.examine(&prefix, &entry, None, false).await.item;
            trouble.0.extend(what_is_wrong(&item));
            manifest.evidence.push(item);
            written.push(entry);
        }
        stand(&mut manifest, &trouble.outcome(good.clone()));
        match manifest.to_bytes() {
            Ok(bytes) => self.publish(target, &prefix, bytes, &mut written, &mut trouble).await,
            Err(error) => trouble.0.push(format!("the manifest can't be written as JSON: {error}")),
        }
        // So that the next sealing knows which manifest it follows.
        for entry in &written {
            let entered = evidence::enter(journal, target, entry).await;
            trouble.or_none("what was sealed could not be entered into the ledger", entered);
        }
        answer(report, &trouble.outcome(good), &written)
    }

    /// Every piece in the ledger, then everything else in the case.
    async fn items(
        &self,
        prefix: &str,
        target: &Target,
        ledger: &[Entry],
        listed: Option<&Listed>,
        verified: Option<&evidence::Pointer>,
    ) -> Items {
        let (mut record, mut contained, mut collected) = (None, None, None);
        let mut items = Vec::new();
        for (entry, examined) in self.objects.examine_all(prefix, ledger, listed).await {
            // What is read counts only if it is what the function has written; of several, the last.
            if examined.item.state == ItemState::Intact {
                if Some(&entry.pointer) == verified {
                    record = examined.body;
                } else if record::is_containment(&examined.item.name) {
                    contained = examined.body;
                } else if examined.item.name.starts_with(COLLECTED) {
                    collected = examined.body;
                }
            }
            items.push(examined.item);
        }
        let unlisted = listed.map(|listed| listed.unlisted(prefix, ledger, &target.instance_id)).unwrap_or_default();
        for (_, examined) in self.objects.examine_all(prefix, &unlisted, None).await {
            let note = why_unlisted(&examined.item, &items);
            let notes = [Some(note), examined.item.note].into_iter().flatten().collect::<Vec<_>>();
            items.push(Item { state: ItemState::Unlisted, note: Some(notes.join("; ")), ..examined.item });
        }
        Items { items, record, contained, collected }
    }

    /// Signs the manifest, and stores it with its signature. An unsigned one is stored as well: it says what is wrong.
    async fn publish(
        &self,
        target: &Target,
        prefix: &str,
        bytes: Vec<u8>,
        written: &mut Vec<Entry>,
        trouble: &mut Trouble,
    ) {
        let signature = self.sign(&bytes).await;
        let signature = trouble.or_none("so the manifest is not signed", signature);
        let put = self.put(target, prefix, MANIFEST, "application/json", bytes).await;
        written.extend(trouble.or_none("the manifest could not be stored", put));
        if let Some(signature) = signature {
            let put = self.put(target, prefix, SIGNATURE, "application/octet-stream", signature).await;
            written.extend(trouble.or_none("the manifest's signature could not be stored", put));
        }
    }

    /// ECDSA over the SHA-256 of the bytes, in DER: the digest is what goes to KMS, so no manifest is too long.
    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let sent = self
            .kms
            .sign()
            .key_id(&self.key)
            .message_type(MessageType::Digest)
            .message(Blob::new(digest(bytes)))
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
            .send()
            .await;
        let reply = sent.map_err(Error::aws("kms:Sign", &self.key))?;
        let signature = reply.signature.map(Blob::into_inner);
        signature.ok_or_else(|| Error::Misconfigured(format!("the key {} gives no signature", self.key)))
    }

    /// Whether the newest manifest, which the ledger does not have, is one that this function has sealed and then could not
    /// enter: it bears the key's signature, and follows the manifest that lies below it. One that somebody has put back is
    /// signed too, and follows another.
    async fn is_own(&self, prefix: &str, listed: Option<&Listed>, before: &[Entry], trouble: &mut Trouble) -> bool {
        let Some(listed) = listed else { return false };
        let written = before.iter().filter(|entry| entry.pointer.key.ends_with(MANIFEST));
        if !written.into_iter().all(|entry| listed.has(&entry.pointer)) {
            return false;
        }
        let newest = match self.objects.newest_manifest(prefix, listed).await {
            Ok(newest) => newest,
            Err(error) => {
                trouble.0.push(format!("whether the newest manifest follows the one before it is not known: {error}"));
                return false;
            }
        };
        let Some(newest) = newest.filter(|newest| newest.follows) else { return false };
        let verified = self.verify(&newest.bytes, newest.signature).await;
        trouble.or_none("whether the newest manifest is signed by Cordon's key is not known", verified).unwrap_or(false)
    }

    async fn verify(&self, bytes: &[u8], signature: Vec<u8>) -> Result<bool> {
        let call = self.kms.verify().key_id(&self.key).message_type(MessageType::Digest);
        let call = call.message(Blob::new(digest(bytes))).signature(Blob::new(signature));
        let sent = call.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await;
        match sent.map_err(Error::aws("kms:Verify", &self.key)) {
            Ok(reply) => Ok(reply.signature_valid),
            Err(error) if error.code() == Some("KMSInvalidSignatureException") => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, target: &Target, prefix: &str, name: &str, kind: &str, bytes: Vec<u8>) -> Result<Entry> {
        self.writer.put_bytes(target, format!("{prefix}{name}"), kind, bytes).await
    }
}

/// When now is, by the clock of the machine in AWS that this runs on.
fn now() -> String {
    DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime).unwrap_or_default()
}

fn what_is_wrong(item: &Item) -> Option<String> {
    let word = match item.state {
        ItemState::Intact | ItemState::Unlisted => return None,
        ItemState::Altered => "altered",
        ItemState::Missing => "missing",
        ItemState::Unread => "not readable",
    };
    Some(format!("{} is {word}: {}", item.name, item.note.as_deref().unwrap_or("no reason given")))
}

/// What is known of an object that the ledger lacks. A put whose answer is lost is made again, as another version, and
/// only the last one is entered; a function that could not reach the case table has entered none, and its row says so.
fn why_unlisted(item: &Item, known: &[Item]) -> String {
    let same = |one: &&Item| {
        one.state == ItemState::Intact && one.name == item.name && one.sha256.is_some() && one.sha256 == item.sha256
    };
    match known.iter().find(same) {
        Some(twin) => format!(
            "it is not in the case's ledger, but has the name and the bytes of version {}, which is: a put that was made \
             again because its answer was lost",
            twin.version_id
        ),
        None => {
            "it is not in the case's ledger: a function that put it there could not enter it, and its step failed, or \
                 somebody else put it there"
                .to_owned()
        }
    }
}

/// Why the manifest in the bucket is not the one that the ledger would have there: somebody may have put back an older
/// one, under a version that nobody has entered.
fn out_of_line(previous: Option<&Previous>, before: &[Entry]) -> Option<String> {
    let mut written = before.iter().filter(|entry| entry.pointer.key.ends_with(MANIFEST));
    let Some(previous) = previous else {
        let gone = "the case has been sealed before, and no manifest of it is in the bucket";
        return written.next().map(|_| gone.to_owned());
    };
    let version = &previous.version_id;
    let known = written.any(|entry| entry.pointer.version_id.as_ref() == Some(version));
    (!known).then(|| format!("the manifest before this one, version {version}, was not written by this function"))
}

/// The line that `Open` has of a step that failed.
fn line(outcome: &Outcome) -> String {
    format!("{NAME} {:?}: {}", outcome.status, outcome.reason.as_deref().unwrap_or("no reason given"))
}

/// A contained instance whose evidence is not whole is contained in part, and a released one released in part.
fn degraded(verdict: &str) -> &str {
    match verdict {
        "Contained" => "PartiallyContained",
        "Released" => "PartiallyReleased",
        other => other,
    }
}

/// Puts this step into the manifest.
fn stand(manifest: &mut Manifest, outcome: &Outcome) {
    if outcome.status == Status::Failed {
        manifest.open.push(line(outcome));
        manifest.verdict = degraded(&manifest.verdict).to_owned();
    }
    let status = format!("{:?}", outcome.status);
    let (step, reason) = (NAME.to_owned(), outcome.reason.clone());
    manifest.steps.push(custody::Step { step, status, reason, ..custody::Step::default() });
}

/// Puts this step into the report. Its reason is cut, as the reports of all instances share a state (trap H3).
fn answer(mut report: Value, outcome: &Outcome, written: &[Entry]) -> Value {
    let outcome = outcome.clone().shortened(0);
    if outcome.status == Status::Failed {
        append(&mut report, "Open", json!(line(&outcome)));
        let verdict = degraded(report["Verdict"].as_str().unwrap_or_default()).to_owned();
        report["Verdict"] = json!(verdict);
    }
    append(&mut report, "Steps", json!(outcome));
    for entry in written {
        append(&mut report, "Evidence", json!(entry.pointer));
    }
    report
}

fn append(report: &mut Value, list: &str, value: Value) {
    match report[list].as_array_mut() {
        Some(list) => list.push(value),
        None => report[list] = json!([value]),
    }
}

#[cfg(test)]
mod tests;
