//! `cordon verify`: checks a downloaded case, without AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use custody::{Checked, Found, ItemState, MANIFEST, PublicKey, SIGNATURE, Signature, Snapshot, Verification};
use serde_json::{Value, json};
use verdict::StepName;

use crate::outcome::{GOOD, NOT_GOOD};
use crate::text::{Output, harmless, in_ascii, print};

/// Checks a downloaded case: is each piece of evidence intact, altered or missing?
///
/// Download the case first: aws s3 sync s3://BUCKET/cases/ACCOUNT/REGION/CASE CASE
///
/// Exit code: 0 if the signature is valid and everything is intact, 1 if not, 2 if the command was used wrongly.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder that has the case's manifest.json.
    case_folder: PathBuf,
    /// The public key in PEM, from the stack's output ManifestPublicKey; keep it apart from the evidence.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// A table for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Checks and prints. An error is about the command's use: nothing was checked.
pub fn run(arguments: &Arguments) -> Result<u8, String> {
    let named = |path: &Path| harmless(&path.display().to_string());
    let pem = fs::read_to_string(&arguments.public_key)
        .map_err(|error| format!("the public key {}: {error}", named(&arguments.public_key)))?;
    let key = PublicKey::from_pem(&pem)
        .map_err(|error| format!("the public key {}: {error}", named(&arguments.public_key)))?;
    let folder = Folder::of(&arguments.case_folder)
        .map_err(|error| format!("the case's folder {}: {error}", named(&arguments.case_folder)))?;
    let checked = check(&folder, &key);
    let text = match arguments.output {
        Output::Table => table(&checked, &folder.not_files),
        Output::Json => in_ascii(&format!("{:#}\n", document(&checked, &folder.not_files))),
    };
    print(&text);
    Ok(if checked.as_ref().is_ok_and(Verification::is_intact) { GOOD } else { NOT_GOOD })
}

/// The files below a folder. Symbolic links are not followed and devices not opened: `aws s3 sync` makes neither.
struct Folder {
    files: BTreeMap<String, PathBuf>,
    not_files: BTreeSet<String>,
}

impl Folder {
    fn of(root: &Path) -> io::Result<Self> {
        let mut folder = Folder { files: BTreeMap::new(), not_files: BTreeSet::new() };
        let mut open = vec![(String::new(), root.to_owned())];
        while let Some((prefix, path)) = open.pop() {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if kind.is_dir() {
                    open.push((format!("{name}/"), entry.path()));
                } else if kind.is_file() {
                    folder.files.insert(name, entry.path());
                } else {
                    folder.not_files.insert(name);
                }
            }
        }
        Ok(folder)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.files.get(name).map(fs::read).transpose()
    }
}

/// The result; an error says why the manifest could not be checked at all.
fn check(folder: &Folder, key: &PublicKey) -> Result<Verification, String> {
    let unreadable = |name: &str| {
        let name = name.to_owned();
        move |error: io::Error| format!("{name} could not be read: {error}")
    };
    let manifest = folder.read(MANIFEST).map_err(unreadable(MANIFEST))?;
    let manifest = manifest.ok_or_else(|| format!("{MANIFEST} is missing: is this the folder of a case?"))?;
    let signature = folder.read(SIGNATURE).map_err(unreadable(SIGNATURE))?;
    let present = folder.files.keys().cloned().collect();
    let look = |name: &str| match folder.files.get(name) {
        Some(path) => File::open(path),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    Ok(custody::verify(&manifest, signature.as_deref(), key, &present, look))
}

/// As it was when the case was sealed, but none of Cordon's functions vouches for it.
const UNVOUCHED: &str = "unvouched";

fn word(checked: &Checked) -> &'static str {
    match checked.found {
        Found::Intact if checked.is_good() && checked.sealed == ItemState::Unlisted => UNVOUCHED,
        Found::Intact if checked.is_good() => "intact",
        // This file is the one that the ledger names, but the bucket's was not when the case was sealed.
        Found::Intact => "DOUBTFUL",
        Found::Altered => "ALTERED",
        Found::Missing => "MISSING",
        Found::Unproven => "UNPROVEN",
        Found::Unreadable => "UNREADABLE",
        Found::Unsafe => "UNSAFE",
    }
}

fn verdict(checked: &Result<Verification, String>) -> String {
    let found = match checked {
        Err(reason) => return format!("NOT INTACT: {reason}"),
        Ok(found) => found,
    };
    let mut wrong = Vec::new();
    match found.signature {
        Signature::Valid => {}
        Signature::Invalid => wrong.push("the signature is not this key's for this manifest".to_owned()),
        Signature::Missing => wrong.push(format!("the manifest is not signed ({SIGNATURE} is missing)")),
    }
    if let Some(reason) = &found.unreadable {
        wrong.push(format!("the manifest could not be read: {}", harmless(reason)));
    }
    if let Some(manifest) = found.manifest.as_ref().filter(|manifest| !manifest.was_sealed()) {
        let step = manifest.steps.iter().rev().find(|step| step.step == StepName::SealEvidence);
        let reason = step.and_then(|step| step.reason.as_deref()).unwrap_or("the manifest does not say why");
        wrong.push(format!("the sealing itself failed: {}", harmless(reason)));
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    for item in &found.items {
        *counts.entry(word(item)).or_default() += 1;
    }
    let intact = counts.remove("intact").unwrap_or_default();
    let unvouched = match counts.remove(UNVOUCHED) {
        Some(count) => format!(
            " Nothing vouches for {count} of them: they are not in the case's ledger, and their notes say what is known."
        ),
        None => String::new(),
    };
    wrong.extend(counts.iter().map(|(word, count)| format!("{count} {}", word.to_lowercase())));
    let all = found.items.len();
    match wrong.is_empty() {
        true => format!("INTACT: the signature is valid, and all {all} items are as they were sealed.{unvouched}"),
        false if all == 0 => format!("NOT INTACT: {}.", wrong.join(", ")),
        false => format!("NOT INTACT: {}; {intact} of {all} items are intact.", wrong.join(", ")),
    }
}

fn table(checked: &Result<Verification, String>, not_files: &BTreeSet<String>) -> String {
    let mut lines = Vec::new();
    if let Ok(found) = checked {
        if let Some(manifest) = &found.manifest {
            let [case, instance, account, region, at, verdict, by] = [
                &manifest.case_id,
                &manifest.instance_id,
                &manifest.account_id,
                &manifest.region,
                &manifest.sealed_at,
                manifest.verdict.as_str(),
                &manifest.sealed_by,
            ]
            .map(harmless);
            lines.push(format!("Case       {case}"));
            lines.push(format!("Instance   {instance} of account {account} in {region}, {verdict} when sealed"));
            lines.push(format!("Sealed     {at} by {by}"));
            lines.extend(manifest.open.iter().map(|line| format!("Open       {}", harmless(line))));
        }
        lines.push(match found.signature {
            Signature::Valid => "Signature  valid".to_owned(),
            Signature::Invalid => "Signature  INVALID: nothing below proves anything".to_owned(),
            Signature::Missing => "Signature  MISSING: nothing below proves anything".to_owned(),
        });
        if !found.items.is_empty() {
            lines.push(String::new());
        }
        for item in &found.items {
            lines.push(format!("{:<10} {:>15}  {}", word(item), item.size, harmless(&item.name)));
            lines.extend(item.reason.iter().map(|reason| format!("{:29}{}", "", harmless(reason))));
        }
        let snapshots = found.manifest.as_ref().map_or(&[][..], |manifest| &manifest.snapshots);
        lines.extend(snapshots_in_words(snapshots, found.signature == Signature::Valid));
        let unlisted =
            found.unlisted.iter().map(|name| (name, "")).chain(not_files.iter().map(|n| (n, " (not a file)")));
        let unlisted: Vec<String> = unlisted.map(|(name, what)| format!("  {}{what}", harmless(name))).collect();
        if !unlisted.is_empty() {
            lines.push(String::new());
            lines.push(format!("Not in the manifest ({}): nothing vouches for these files.", unlisted.len()));
            lines.extend(unlisted);
        }
        lines.push(String::new());
    }
    lines.push(verdict(checked));
    lines.join("\n") + "\n"
}

/// The snapshots, and how to check them. Commands go to a shell, so they contain nothing that a forger may have written.
fn snapshots_in_words(snapshots: &[Snapshot], genuine: bool) -> Vec<String> {
    if snapshots.is_empty() {
        return Vec::new();
    }
    let count = snapshots.len();
    let mut lines = vec![
        String::new(),
        format!("Snapshots ({count}), as they were when sealed. They are not in this folder: compare them in AWS."),
    ];
    let mut places = BTreeMap::<(String, String), Vec<String>>::new();
    for snapshot in snapshots {
        let id = harmless(&snapshot.snapshot_id);
        let key = match (&snapshot.kms_key_id, snapshot.encrypted) {
            (Some(key), _) => format!("key {}", harmless(key)),
            (None, true) => "encrypted, key not shown".to_owned(),
            (None, false) => "not encrypted".to_owned(),
        };
        lines.push(format!("  {id}  {}  {key}", harmless(&snapshot.state)));
        places.entry((harmless(&snapshot.account_id), harmless(&snapshot.region))).or_default().push(id);
    }
    for ((account, region), ids) in places.into_iter().filter(|_| genuine) {
        lines.push(format!("  In account {account}:"));
        lines.push(format!("    aws ec2 describe-snapshots --region {region} --snapshot-ids {}", ids.join(" ")));
    }
    lines
}

/// The same for programs. Names are as the manifest has them, escaped as JSON does it.
fn document(checked: &Result<Verification, String>, not_files: &BTreeSet<String>) -> Value {
    let intact = checked.as_ref().is_ok_and(Verification::is_intact);
    let mut said = json!({ "Intact": intact, "Verdict": verdict(checked), "NotFiles": not_files });
    if let Ok(found) = checked {
        said["Signature"] = json!(found.signature);
        said["Items"] = json!(found.items);
        said["Unlisted"] = json!(found.unlisted);
        if let Some(manifest) = &found.manifest {
            said["CaseId"] = json!(manifest.case_id);
            said["AccountId"] = json!(manifest.account_id);
            said["Region"] = json!(manifest.region);
            said["InstanceId"] = json!(manifest.instance_id);
            said["SealedAt"] = json!(manifest.sealed_at);
            said["SealedBy"] = json!(manifest.sealed_by);
            said["VerdictWhenSealed"] = json!(manifest.verdict);
            said["Snapshots"] = json!(manifest.snapshots);
        }
    }
    said
}
