//! The program itself: its exit codes, and what it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use custody::{FORMAT, Item, ItemState, MANIFEST, Manifest, SIGNATURE, Snapshot, Step, digest, sha256};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePublicKey, LineEnding};

/// A case in a folder of its own, and its key beside it.
struct Case(PathBuf);

const FILES: &[(&str, &str)] = &[("report.html", "<html>"), ("capture/processes.txt", "init"), ("facts.json", "{}")];

fn item(name: &str, bytes: &str) -> Item {
    let (size, sha256) = (bytes.len() as u64, Some(sha256(bytes.as_bytes())));
    Item { name: name.into(), version_id: "v1".into(), size, sha256, ..Item::default() }
}

impl Case {
    fn sealed(test: &str, items: Vec<Item>) -> Case {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&root);
        let case = Case(root);
        let snapshot = Snapshot { snapshot_id: "snap-1".into(), region: "eu-west-1".into(), ..Snapshot::default() };
        let manifest = Manifest { format: FORMAT, evidence: items, snapshots: vec![snapshot], ..Manifest::default() };
        let status = if test.contains("failed") { "Failed" } else { "Done" };
        let step = Step { step: "seal-evidence".into(), status: status.into(), ..Step::default() };
        let manifest = Manifest { steps: vec![step], ..manifest };
        let manifest = manifest.to_bytes().expect("JSON");
        let key = SigningKey::from_slice(&[7; 32]).expect("a key");
        let signature: DerSignature = key.sign_prehash(&digest(&manifest)).expect("signed");
        case.put(MANIFEST, &manifest);
        case.put(SIGNATURE, signature.as_bytes());
        for (name, bytes) in FILES {
            case.put(name, bytes.as_bytes());
        }
        let pem = key.verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
        fs::write(case.key(), pem).expect("written");
        case
    }

    fn usual(test: &str) -> Case {
        Case::sealed(test, FILES.iter().map(|(name, bytes)| item(name, bytes)).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("case").join(name)
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().expect("a folder")).expect("made");
        fs::write(self.path(name), bytes).expect("written");
    }

    fn verified(&self, more: &[&str]) -> (i32, String) {
        let folder = self.0.join("case");
        let output = cordon().arg("verify").arg(folder).arg("--public-key").arg(self.key()).args(more).output();
        said(output.expect("run"))
    }
}

fn cordon() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cordon"))
}

fn said(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn an_intact_case_ends_with_0_and_one_line_that_says_so() {
    let (code, text) = Case::usual("intact").verified(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("\nINTACT: the signature is valid, and all 3 items are as they were sealed.\n"), "{text}");
    assert!(text.contains("aws ec2 describe-snapshots --region eu-west-1 --snapshot-ids snap-1"), "{text}");
}

#[test]
fn a_case_whose_sealing_failed_is_not_intact_whatever_its_files_are() {
    let (code, said) = Case::usual("sealing-failed").verified(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("NOT INTACT: the sealing itself failed"), "{said}");
}

#[test]
fn an_item_outside_the_ledger_is_not_called_intact() {
    let strange = Item { state: ItemState::Unlisted, ..item("facts.json", "{}") };
    let (code, said) = Case::sealed("unvouched", vec![item("report.html", "<html>"), strange]).verified(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("unvouched") && said.contains("Nothing vouches for 1 of them"), "{said}");
}

#[test]
fn altered_missing_and_unlisted_files_are_named_and_end_with_1() {
    let case = Case::usual("altered");
    case.put("facts.json", b"[]");
    case.put("planted", b"");
    fs::remove_file(case.path("report.html")).expect("removed");
    let (code, text) = case.verified(&[]);
    assert_eq!(code, 1, "{text}");
    for (word, name) in [("ALTERED", "facts.json"), ("MISSING", "report.html"), ("intact", "capture/processes.txt")] {
        assert!(text.lines().any(|line| line.starts_with(word) && line.ends_with(name)), "{word} {name}: {text}");
    }
    assert!(text.contains("\n  planted\n"), "{text}");
    assert!(text.ends_with("NOT INTACT: 1 altered, 1 missing; 1 of 3 items are intact.\n"), "{text}");
}

#[test]
fn a_case_without_its_signature_or_its_manifest_ends_with_1() {
    let case = Case::usual("unsigned");
    fs::remove_file(case.path(SIGNATURE)).expect("removed");
    let (code, text) = case.verified(&[]);
    assert_eq!(code, 1);
    assert!(text.contains("Signature  MISSING") && text.contains("not signed"), "{text}");
    assert!(!text.contains("aws ec2"), "no command is made of an unsigned manifest: {text}");
    fs::remove_file(case.path(MANIFEST)).expect("removed");
    let (code, text) = case.verified(&[]);
    assert_eq!(code, 1);
    assert!(text.contains("NOT INTACT: manifest.json is missing"), "{text}");
}

#[test]
fn wrong_use_ends_with_2_and_a_reason() {
    let case = Case::usual("usage");
    let folder = case.0.join("case");
    let (code, text) = said(cordon().arg("verify").arg(&folder).output().expect("run"));
    assert!(code == 2 && text.contains("--public-key"), "{text}");
    let nowhere = case.0.join("nowhere");
    let run = |folder: &Path, key: &Path| {
        said(cordon().arg("verify").arg(folder).arg("--public-key").arg(key).output().expect("run"))
    };
    let (code, text) = run(&nowhere, &case.key());
    assert!(code == 2 && text.contains("nowhere"), "{text}");
    let (code, text) = run(&folder, &folder.join("facts.json"));
    assert!(code == 2 && text.contains("not a public key"), "{text}");
}

#[test]
fn programs_get_json_with_the_same_verdict() {
    let (code, text) = Case::usual("json").verified(&["--output", "json"]);
    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, said["Intact"].as_bool(), said["Signature"].as_str()), (0, Some(true), Some("Valid")));
    assert_eq!(said["Items"][1]["Name"], "capture/processes.txt");
    assert_eq!(said["Items"][1]["Found"], "Intact");
}

#[test]
fn hostile_names_neither_reach_the_terminal_nor_a_file_outside() {
    let names = ["../outside", "/etc/hostname", "\u{1b}[2J\u{202e}\u{9b}31m", "a\r\nINTACT: the signature is valid"];
    let case = Case::sealed("hostile", names.iter().map(|name| item(name, "secret")).collect());
    fs::write(case.0.join("outside"), "secret").expect("written");
    for more in [&[][..], &["--output", "json"]] {
        let (code, text) = case.verified(more);
        assert_eq!(code, 1);
        assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("INTACT")), "{text}");
    }
    assert!(case.verified(&[]).1.lines().any(|line| line.starts_with("UNSAFE") && line.ends_with("../outside")));
}

#[cfg(unix)]
#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let case = Case::usual("link");
    fs::rename(case.path("facts.json"), case.0.join("facts.json")).expect("moved");
    std::os::unix::fs::symlink(case.0.join("facts.json"), case.path("facts.json")).expect("linked");
    let (code, text) = case.verified(&[]);
    assert_eq!(code, 1);
    assert!(text.contains("MISSING") && text.contains("  facts.json (not a file)"), "{text}");
}
