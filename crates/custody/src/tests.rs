//! Every change to a sealed case is found, and whatever a case says, the check stays in its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::LazyLock;

use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePublicKey, LineEnding};
use proptest::prelude::*;

use super::*;

#[derive(Clone)]
struct Case {
    manifest: Vec<u8>,
    signature: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).expect("a number below the curve's order")
}

fn public_key(seed: u8) -> PublicKey {
    let pem = signing_key(seed).verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
    PublicKey::from_pem(&pem).expect("a key")
}

static PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| public_key(7));

fn sign(bytes: &[u8], seed: u8) -> Vec<u8> {
    let signature: DerSignature = signing_key(seed).sign_prehash(&digest(bytes)).expect("signed");
    signature.as_bytes().to_vec()
}

fn item(name: &str, bytes: &[u8]) -> Item {
    let (size, sha256) = (bytes.len() as u64, Some(sha256(bytes)));
    Item { name: name.into(), version_id: format!("v-{name}"), size, sha256, ..Item::default() }
}

fn sealed(items: Vec<Item>, files: &[(&str, &[u8])]) -> Case {
    let step = Step { step: "seal-evidence".into(), status: "Done".into(), ..Step::default() };
    let manifest =
        Manifest { format: FORMAT, case_id: "c-1".into(), evidence: items, steps: vec![step], ..Manifest::default() };
    let manifest = manifest.to_bytes().expect("JSON");
    let signature = sign(&manifest, 7);
    let mut files: BTreeMap<String, Vec<u8>> = files.iter().map(|(n, b)| ((*n).to_owned(), b.to_vec())).collect();
    files.insert(MANIFEST.into(), manifest.clone());
    files.insert(SIGNATURE.into(), signature.clone());
    Case { manifest, signature, files }
}

const FILES: &[(&str, &[u8])] = &[("report.html", b"<html>"), ("capture/ps.txt", b"init"), ("facts.json", b"{}")];

fn case() -> Case {
    // Made once: without optimisation a signature takes as long as all the rest.
    static CASE: LazyLock<Case> =
        LazyLock::new(|| sealed(FILES.iter().map(|(name, bytes)| item(name, bytes)).collect(), FILES));
    CASE.clone()
}

impl Case {
    fn verified(&self) -> Verification {
        let present = self.files.keys().cloned().collect();
        verify(&self.manifest, Some(&self.signature), &PUBLIC, &present, |name| Ok(&self.files[name][..]))
    }

    fn found(&self, name: &str) -> Found {
        self.verified().items.iter().find(|checked| checked.name == name).expect("listed").found
    }
}

#[test]
fn a_case_as_it_was_sealed_is_intact() {
    let verified = case().verified();
    assert!(verified.is_intact(), "{verified:?}");
    assert_eq!((verified.items.len(), verified.unlisted.len()), (3, 0));
}

#[test]
fn a_case_without_a_signature_or_with_another_keys_is_not_intact() {
    let case = case();
    let present = case.files.keys().cloned().collect();
    let look = |name: &str| Ok(&case.files[name][..]);
    let unsigned = verify(&case.manifest, None, &PUBLIC, &present, look);
    assert_eq!((unsigned.signature, unsigned.is_intact()), (Signature::Missing, false));
    let foreign = verify(&case.manifest, Some(&sign(&case.manifest, 8)), &PUBLIC, &present, look);
    assert_eq!((foreign.signature, foreign.is_intact()), (Signature::Invalid, false));
}

#[test]
fn an_unlisted_file_is_named_and_does_not_affect_the_others() {
    let mut case = case();
    case.files.insert("planted.txt".into(), b"me too".to_vec());
    let verified = case.verified();
    assert_eq!(verified.unlisted, ["planted.txt"]);
    assert!(verified.is_intact());
}

#[test]
fn what_was_bad_when_the_case_was_sealed_is_named_and_stays_bad() {
    for state in [ItemState::Missing, ItemState::Altered, ItemState::Unread] {
        let bad = Item { state, ..item("a", b"a") };
        let verified = sealed(vec![bad], &[("a", b"a")]).verified();
        assert!(!verified.is_intact() && verified.items[0].found == Found::Intact);
        assert!(verified.items[0].reason.as_deref().expect("a reason").contains("when the case was sealed"));
    }
}

#[test]
fn an_item_without_a_hash_is_not_called_intact() {
    let case = sealed(vec![Item { sha256: None, ..item("memory.lime", b"1234") }], &[("memory.lime", b"4321")]);
    assert_eq!(case.found("memory.lime"), Found::Unproven);
    assert!(!case.verified().is_intact());
}

#[test]
fn an_earlier_version_of_a_name_is_found_under_its_version() {
    let versions = vec![
        Item { version_id: "1".into(), ..item("a", b"one") },
        Item { version_id: "2".into(), ..item("a", b"two!") },
    ];
    let latest_only = sealed(versions.clone(), &[("a", b"two!")]).verified();
    assert_eq!(latest_only.items.iter().map(|i| i.found).collect::<Vec<_>>(), [Found::Altered, Found::Intact]);
    assert!(latest_only.items[0].reason.as_deref().expect("a reason").contains("download version 1 as NAME.1"));
    let both = sealed(versions, &[("a", b"two!"), ("a.1", b"one")]).verified();
    assert!(both.is_intact() && both.unlisted.is_empty(), "{both:?}");
}

#[test]
fn a_manifest_of_an_unknown_format_proves_nothing() {
    let manifest = Manifest { format: 2, ..Manifest::default() }.to_bytes().expect("JSON");
    let verified = verify(&manifest, Some(&sign(&manifest, 7)), &PUBLIC, &BTreeSet::new(), |_| Ok(io::empty()));
    assert!(!verified.is_intact() && verified.unreadable.expect("a reason").contains("format is 2"));
}

#[test]
fn a_key_of_another_kind_is_rejected() {
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for bad in ["", "banana", private, "-----BEGIN PUBLIC KEY-----\n****\n-----END PUBLIC KEY-----\n"] {
        assert!(matches!(PublicKey::from_pem(bad), Err(BadKey::NotPem)), "{bad}");
    }
    let other = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
    assert!(matches!(PublicKey::from_pem(other), Err(BadKey::NotP256(_))), "a key on another curve");
}

#[test]
fn a_name_that_leads_out_of_the_folder_is_not_opened() {
    let bad =
        ["../a", "/etc/passwd", "a/../../b", "a//b", "", ".", "a/.", "a\\b", "C:a", "c:/a", "a\0b", "\\\\host\\a"];
    for name in bad {
        assert!(!is_safe(name), "{name:?}");
        // Not even if the folder's own listing has it.
        let case = sealed(vec![item(name, b"a")], &[(name, b"a")]);
        assert_eq!(case.found(name), Found::Unsafe, "{name:?}");
    }
    for name in ["a", "a/b.json", "..a", "a..", "…", "x/ y:z"] {
        assert!(is_safe(name), "{name:?}");
    }
}

#[test]
fn a_file_that_never_ends_is_read_no_further_than_its_size() {
    let case = sealed(vec![item("a", b"0123")], &[("a", b"")]);
    let present = BTreeSet::from(["a".to_owned()]);
    let verified = verify(&case.manifest, Some(&case.signature), &PUBLIC, &present, |_| Ok(io::repeat(b'0')));
    assert_eq!(verified.items[0].found, Found::Altered);
}

/// RFC 6979, A.2.5: the key and the signature of "sample" with SHA-256, so that the check has an independent witness.
#[test]
fn a_published_test_signature_is_valid() {
    let pem = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7\n\
        Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==\n\
        -----END PUBLIC KEY-----\n";
    let key = PublicKey::from_pem(pem).expect("a key");
    let numbers = "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                   022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
    let numbers: String = numbers.split_whitespace().collect();
    let signature: Vec<u8> =
        (0..numbers.len()).step_by(2).map(|n| u8::from_str_radix(&numbers[n..n + 2], 16).expect("hex")).collect();
    assert!(key.has_signed(b"sample", &signature));
    assert!(!key.has_signed(b"samplf", &signature));
}

fn flipped(bytes: &[u8], at: prop::sample::Index, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= 1 << bit;
    bytes
}

/// What build 2800eab sealed, on the local stack.
#[test]
fn a_recorded_case_is_read_byte_for_byte_and_its_signature_is_valid() {
    let manifest = include_bytes!("recorded/manifest.json");
    let key = PublicKey::from_pem(include_str!("recorded/manifest.pem")).expect("a key");
    assert!(key.has_signed(manifest, include_bytes!("recorded/manifest.json.sig")));
    let read: Manifest = serde_json::from_slice(manifest).expect("a manifest");
    assert!(read.was_sealed() && read.verdict == verdict::Verdict::Contained);
    assert_eq!(read.to_bytes().expect("JSON"), manifest);
}

#[test]
fn what_a_later_version_added_costs_nothing_else() {
    let mut later: serde_json::Value = serde_json::from_slice(include_bytes!("recorded/manifest.json")).expect("JSON");
    later["Mood"] = "good".into();
    later["Verdict"] = "ContainedTwice".into();
    later["Steps"][0]["Status"] = "DoneTwice".into();
    let read: Manifest = serde_json::from_value(later).expect("a manifest");
    assert_eq!((read.verdict.as_str(), read.steps[0].status.as_str()), ("ContainedTwice", "DoneTwice"));
    assert!(!read.steps[0].status.is_good());
}

proptest! {
    #[test]
    fn a_flipped_bit_of_the_manifest_is_found(at: prop::sample::Index, bit in 0u8..8) {
        let case = case();
        let verified = Case { manifest: flipped(&case.manifest, at, bit), ..case }.verified();
        prop_assert_eq!((verified.signature, verified.is_intact()), (Signature::Invalid, false));
    }

    #[test]
    fn a_flipped_bit_of_the_signature_is_found(at: prop::sample::Index, bit in 0u8..8) {
        let case = case();
        let verified = Case { signature: flipped(&case.signature, at, bit), ..case }.verified();
        prop_assert_eq!((verified.signature, verified.is_intact()), (Signature::Invalid, false));
    }

    #[test]
    fn a_flipped_bit_of_an_item_is_found_and_the_others_stay_intact(which in 0usize..3, at: prop::sample::Index, bit in 0u8..8) {
        let mut case = case();
        let (name, bytes) = FILES[which];
        case.files.insert(name.into(), flipped(bytes, at, bit));
        let verified = case.verified();
        prop_assert_eq!(verified.items[which].found, Found::Altered);
        prop_assert_eq!(verified.items.iter().filter(|checked| checked.is_good()).count(), 2);
        prop_assert!(!verified.is_intact());
    }

    #[test]
    fn an_item_that_is_cut_or_longer_is_found(which in 0usize..3, cut: prop::sample::Index, more in prop::collection::vec(any::<u8>(), 1..9)) {
        let (name, bytes) = FILES[which];
        let mut shorter = case();
        shorter.files.insert(name.into(), bytes[..cut.index(bytes.len())].to_vec());
        prop_assert_eq!(shorter.found(name), Found::Altered);
        let mut longer = case();
        longer.files.insert(name.into(), [bytes, &more[..]].concat());
        prop_assert_eq!(longer.found(name), Found::Altered);
    }

    #[test]
    fn removed_items_are_found_and_only_those(removed in prop::collection::btree_set(0usize..3, 1..=3)) {
        let mut case = case();
        for which in &removed {
            case.files.remove(FILES[*which].0);
        }
        let verified = case.verified();
        for (which, checked) in verified.items.iter().enumerate() {
            prop_assert_eq!(checked.found, if removed.contains(&which) { Found::Missing } else { Found::Intact });
        }
        prop_assert!(!verified.is_intact());
    }

    #[test]
    fn items_that_changed_places_are_found(one in 0usize..3, other in 0usize..3) {
        prop_assume!(one != other);
        let mut case = case();
        case.files.insert(FILES[one].0.into(), FILES[other].1.to_vec());
        case.files.insert(FILES[other].0.into(), FILES[one].1.to_vec());
        let verified = case.verified();
        prop_assert_eq!((verified.items[one].found, verified.items[other].found), (Found::Altered, Found::Altered));
    }

    #[test]
    fn a_manifest_with_any_names_opens_only_what_is_there_and_safe(
        names in prop::collection::vec("(\\.\\.|/|\\\\|\\PC|[a-c]|\u{0}|:){0,8}", 0..6),
        present in prop::collection::btree_set("(\\.\\.|/|[a-c]){0,6}", 0..6),
    ) {
        let manifest = Manifest { format: FORMAT, evidence: names.iter().map(|name| item(name, b"x")).collect(), ..Manifest::default() };
        let bytes = manifest.to_bytes().expect("JSON");
        let mut opened = Vec::new();
        let verified = verify(&bytes, None, &PUBLIC, &present, |name| { opened.push(name.to_owned()); Ok(io::empty()) });
        prop_assert!(opened.iter().all(|name| present.contains(name) && is_safe(name)), "{:?}", opened);
        prop_assert_eq!(verified.items.len(), names.len());
    }

    #[test]
    fn arbitrary_bytes_are_never_intact(
        manifest in prop::collection::vec(any::<u8>(), 0..300), signature in prop::collection::vec(any::<u8>(), 0..90),
    ) {
        let verified = verify(&manifest, Some(&signature), &PUBLIC, &BTreeSet::new(), |_| Ok(io::empty()));
        prop_assert!(!verified.is_intact());
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written(names in prop::collection::vec("\\PC{0,12}", 0..5), size: u64) {
        let evidence = names.iter().map(|name| Item { size, ..item(name, b"x") }).collect();
        let manifest = Manifest { format: FORMAT, evidence, ..Manifest::default() };
        let bytes = manifest.to_bytes().expect("JSON");
        prop_assert_eq!(&serde_json::from_slice::<Manifest>(&bytes).expect("a manifest"), &manifest);
        prop_assert_eq!(manifest.to_bytes().expect("JSON"), bytes);
    }
}
