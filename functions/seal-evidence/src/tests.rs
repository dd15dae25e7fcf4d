//! A bucket, a ledger and a key, with AWS's replies, and the sealing between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_kms::operation::sign::{SignError, SignOutput};
use aws_sdk_kms::operation::verify::VerifyOutput;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::operation::list_object_versions::{ListObjectVersionsError, ListObjectVersionsOutput};
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{DeleteMarkerEntry, ObjectVersion};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use containment::{First, Journaled, Key};
use custody::{ItemState, Manifest, digest, sha256};
use evidence::Pointer;
use runtime::Caller;
use serde_json::json;
use verdict::Verdict;

use super::*;

const PREFIX: &str = "cases/123456789012/eu-west-1/c-1/";
const NETWORK: &str = "describe-network-1.json";
const RECORD: &str = "verify-containment-1.json";

/// S3's, the ledger's and KMS's side of a case.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    /// By name and version; the newest version of a name comes last.
    bucket: BTreeMap<(String, String), Vec<u8>>,
    ledger: First,
    markers: Vec<String>,
    /// What S3 says as SHA-256 in place of the right one.
    checksums: BTreeMap<String, Option<String>>,
    /// Calls that AWS refuses: `OPERATION` or `OPERATION NAME`.
    refused: BTreeSet<String>,
    called: Vec<String>,
}

impl Journal for World {
    async fn read(&self, _: &Target, step: &str) -> Result<Journaled> {
        if self.refuses("GetItem", "") {
            return Err(Error::NotFound("there is no table".into()));
        }
        if step == snapshots::HASH_SNAPSHOTS {
            return Ok(Journaled::default());
        }
        Ok(self.0.lock().expect("lock").ledger.clone().into())
    }

    async fn keep(&self, _: &Target, _: &str, new: &Journaled) -> Result<Journaled> {
        let mut world = self.0.lock().expect("lock");
        world.ledger.extend(new.first.clone());
        Ok(world.ledger.clone().into())
    }

    async fn keep_ahead(&self, target: &Target, step: &str, new: &Journaled) -> Result<bool> {
        self.keep(target, step, new).await.map(|_| true)
    }
}

fn entry(name: &str, version: &str, bytes: &[u8]) -> Entry {
    let (bucket, key) = ("evidence".to_owned(), format!("{PREFIX}{name}"));
    Entry {
        pointer: Pointer { bucket, key, version_id: Some(version.into()) },
        sha256: Some(sha256(bytes)),
        size: bytes.len() as u64,
        request_id: Some("put-1".into()),
        resource: "i-0123456789abcdef0".into(),
        function: "cordon-describe-network".into(),
        caller: Some("arn:aws:sts::123456789012:assumed-role/x/y".into()),
        execution: Some("arn:execution".into()),
    }
}

fn denied() -> ErrorMetadata {
    ErrorMetadata::builder().code("AccessDenied").message("no").build()
}

fn name_of(key: Option<&str>) -> String {
    key.and_then(|key| key.strip_prefix(PREFIX)).expect("a key of the case").to_owned()
}

impl World {
    /// A case with the records of two functions, both in the ledger.
    fn usual() -> World {
        let world = World::default();
        let replies = json!({ "Replies": [
            { "Operation": "EC2:DescribeSubnets", "RequestId": "r-1", "Body": "<xml/>" },
            { "Operation": "EC2:DescribeVpcs", "RequestId": null },
        ]});
        let changes = json!([{ "Resource": "eni-1", "Attribute": "Groups", "Before": ["sg-1"], "After": ["sg-2"] }]);
        let record = json!({
            "Verdict": "Contained", "Open": [], "ResidualRisk": ["DNS"], "Facts": { "KeyName": "web" },
            "Steps": [{ "Step": "isolate-network", "Status": "Done", "Changes": changes, "ResidualRisk": [] }],
        });
        world.store(NETWORK, replies.to_string().as_bytes());
        world.store(RECORD, record.to_string().as_bytes());
        world
    }

    fn inside<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> T {
        act(&mut self.0.lock().expect("lock"))
    }

    fn store(&self, name: &str, bytes: &[u8]) {
        self.put(name, "v1", bytes);
        self.enter(entry(name, "v1", bytes));
    }

    fn put(&self, name: &str, version: &str, bytes: &[u8]) {
        self.inside(|world| world.bucket.insert((name.to_owned(), version.to_owned()), bytes.to_vec()));
    }

    fn enter(&self, entry: Entry) {
        let key = Key::new(&entry.pointer.key, entry.pointer.version_id.clone().expect("a version"));
        self.inside(|world| world.ledger.insert(key, json!(entry)));
    }

    fn refuse(self, call: &str) -> World {
        self.inside(|world| world.refused.insert(call.to_owned()));
        self
    }

    fn refuses(&self, operation: &str, name: &str) -> bool {
        self.inside(|world| {
            world.called.push(format!("{operation} {name}"));
            world.refused.contains(operation) || world.refused.contains(&format!("{operation} {name}"))
        })
    }

    fn bytes(&self, name: &str, version: Option<&str>) -> Option<Vec<u8>> {
        let version = version.expect("every read is of one version").to_owned();
        self.inside(|world| world.bucket.get(&(name.to_owned(), version)).cloned())
    }

    fn latest(&self, name: &str) -> Option<Vec<u8>> {
        self.inside(|world| world.bucket.iter().rfind(|((n, _), _)| n == name).map(|(_, bytes)| bytes.clone()))
    }

    fn manifest(&self) -> Manifest {
        serde_json::from_slice(&self.latest(MANIFEST).expect("a manifest")).expect("JSON")
    }

    fn s3(&self) -> Client {
        let (on_list, on_head, on_get, on_put) = (self.clone(), self.clone(), self.clone(), self.clone());
        let list = mock!(Client::list_object_versions).then_compute_response(move |r| {
            assert_eq!(r.prefix(), Some(PREFIX));
            if on_list.refuses("ListObjectVersions", "") {
                return MockResponse::Error(ListObjectVersionsError::generic(denied()));
            }
            // Two pages, as S3 gives at most 1,000 in one.
            let all: Vec<_> = on_list.inside(|world| world.bucket.clone().into_iter().collect());
            let (first, second) = all.split_at(all.len().min(1));
            let page = if r.key_marker().is_none() { first } else { second };
            let versions = page.iter().map(|((name, id), bytes)| {
                let key = format!("{PREFIX}{name}");
                ObjectVersion::builder().key(key).version_id(id).size(bytes.len() as i64).build()
            });
            let markers = on_list
                .inside(|world| world.markers.clone())
                .into_iter()
                .map(|name| DeleteMarkerEntry::builder().key(format!("{PREFIX}{name}")).is_latest(true).build());
            let reply = ListObjectVersionsOutput::builder()
                .set_versions(Some(versions.rev().collect()))
                .set_delete_markers(Some(markers.collect()));
            MockResponse::Output(match r.key_marker() {
                None => reply.is_truncated(true).next_key_marker("on").next_version_id_marker("on").build(),
                Some(_) => reply.is_truncated(false).build(),
            })
        });
        let head = mock!(Client::head_object).then_compute_response(move |r| {
            let name = name_of(r.key());
            assert_eq!(r.checksum_mode(), Some(&aws_sdk_s3::types::ChecksumMode::Enabled));
            if on_head.refuses("HeadObject", &name) {
                return MockResponse::Error(HeadObjectError::generic(denied()));
            }
            let Some(bytes) = on_head.bytes(&name, r.version_id()) else {
                let meta = ErrorMetadata::builder().code("NotFound").build();
                return MockResponse::Error(HeadObjectError::generic(meta));
            };
            let right = Some(BASE64_STANDARD.encode(digest(&bytes)));
            let said = on_head.inside(|world| world.checksums.get(&name).cloned()).unwrap_or(right);
            let reply = HeadObjectOutput::builder().content_length(bytes.len() as i64).set_checksum_sha256(said);
            MockResponse::Output(reply.last_modified(DateTime::from_secs(1_795_252_503)).build())
        });
        let get = mock!(Client::get_object).then_compute_response(move |r| {
            let name = name_of(r.key());
            if on_get.refuses("GetObject", &name) {
                return MockResponse::Error(GetObjectError::generic(denied()));
            }
            let bytes = on_get.bytes(&name, r.version_id()).expect("there");
            MockResponse::Output(GetObjectOutput::builder().body(ByteStream::from(bytes)).build())
        });
        let put = mock!(Client::put_object).then_compute_response(move |r| {
            let name = name_of(r.key());
            if on_put.refuses("PutObject", &name) {
                return MockResponse::Error(PutObjectError::generic(denied()));
            }
            let version = on_put.inside(|world| format!("w{}", world.bucket.len()));
            on_put.put(&name, &version, r.body().bytes().expect("in memory"));
            MockResponse::Output(PutObjectOutput::builder().version_id(version).build())
        });
        mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&list, &head, &get, &put])
    }

    fn kms(&self) -> aws_sdk_kms::Client {
        let world = self.clone();
        let sign = mock!(aws_sdk_kms::Client::sign).then_compute_response(move |r| {
            if world.refuses("Sign", "") {
                return MockResponse::Error(SignError::generic(denied()));
            }
            assert_eq!(r.message_type(), Some(&MessageType::Digest));
            assert_eq!(r.signing_algorithm(), Some(&SigningAlgorithmSpec::EcdsaSha256));
            // What was signed, so that a test can compare it with the manifest.
            MockResponse::Output(SignOutput::builder().signature(r.message().expect("a digest").clone()).build())
        });
        let verify = mock!(aws_sdk_kms::Client::verify).then_compute_response(|r| {
            let good = r.message() == r.signature();
            MockResponse::Output(VerifyOutput::builder().signature_valid(good).build())
        });
        mock_client!(aws_sdk_kms, RuleMode::MatchAny, [&sign, &verify])
    }

    async fn seal(&self, described: Option<Entry>) -> InstanceReport {
        self.seal_as(described, report()).await
    }

    async fn seal_as(&self, described: Option<Entry>, report: InstanceReport) -> InstanceReport {
        let s3 = self.s3();
        let sealer = Sealer {
            writer: Bucket::new(s3.clone(), "evidence", Caller::default()),
            objects: Objects { s3, bucket: "evidence".into(), until: Instant::now() + READING },
            kms: self.kms(),
            key: "arn:key".into(),
            sealed_by: "arn:sealer".into(),
        };
        let snapshots = no_snapshots();
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&snapshots]);
        let sources = Sources { ec2: Ok(ec2), copies: Ok(None) };
        sealer.seal(self, sources, &Target::example(), described, report).await
    }
}

fn no_snapshots() -> Rule {
    mock!(aws_sdk_ec2::Client::describe_snapshots).then_output(|| DescribeSnapshotsOutput::builder().build())
}

fn report() -> InstanceReport {
    InstanceReport::read(json!({
        "InstanceId": "i-0123456789abcdef0", "Verdict": "Contained", "Open": [], "ResidualRisk": [], "Facts": {},
        "Steps": [{ "Step": "isolate-network", "Status": "Done", "Changes": [], "ResidualRisk": [] }],
        "Evidence": [{ "Bucket": "evidence", "Key": format!("{PREFIX}{RECORD}"), "VersionId": "v1" }],
    }))
}

fn step(report: &InstanceReport) -> &Outcome {
    report.steps.last().expect("a step")
}

fn reason(report: &InstanceReport) -> &str {
    step(report).reason.as_deref().expect("a reason")
}

fn states(manifest: &Manifest) -> Vec<(&str, ItemState)> {
    manifest.evidence.iter().map(|item| (item.name.as_str(), item.state)).collect()
}

#[tokio::test]
async fn a_whole_case_is_sealed_and_the_report_says_where() {
    let world = World::usual();
    let report = world.seal(None).await;
    assert!(step(&report).is(StepName::SealEvidence) && step(&report).status == Status::Done, "{report:?}");
    assert!(report.verdict == Verdict::Contained && report.open.is_empty(), "{report:?}");
    let written: Vec<&str> = report.evidence.iter().skip(1).map(|pointer| pointer.key.as_str()).collect();
    assert_eq!(written, [REPORT, MANIFEST, SIGNATURE].map(|name| format!("{PREFIX}{name}")));

    let manifest = world.manifest();
    let intact = |name| (name, ItemState::Intact);
    assert_eq!(states(&manifest), [intact(NETWORK), intact(RECORD), intact(REPORT)]);
    assert!(manifest.evidence.iter().all(|item| item.stored_at == "2026-11-21T09:15:03Z" && item.note.is_none()));
    assert_eq!(manifest.evidence[0].calls, ["EC2:DescribeSubnets r-1"]);
    assert_eq!(manifest.evidence[2].sha256, world.latest(REPORT).map(|page| sha256(&page)));
    assert_eq!((manifest.steps[0].changes.len(), manifest.steps[1].step.as_str()), (1, NAME));
    assert_eq!((manifest.facts["KeyName"].as_str(), manifest.sealed_by.as_str()), (Some("web"), "arn:sealer"));
    assert_eq!(manifest.residual_risk, ["DNS"]);
}

#[tokio::test]
async fn the_signature_is_over_the_sha_256_of_the_stored_manifest() {
    let world = World::usual();
    world.seal(None).await;
    let manifest = world.latest(MANIFEST).expect("a manifest");
    assert_eq!(world.latest(SIGNATURE).expect("a signature"), digest(&manifest));
}

#[tokio::test]
async fn the_evidence_of_describe_instance_is_entered_and_compared_like_the_rest() {
    let world = World::usual();
    world.put("describe-instance-1.json", "v1", b"{}");
    let described = entry("describe-instance-1.json", "v1", b"{}");
    let report = world.seal(Some(described.clone())).await;
    assert_eq!(step(&report).status, Status::Done, "{report:?}");
    assert!(world.inside(|world| world.ledger.values().any(|known| *known == json!(described))));
    assert_eq!(world.manifest().evidence[0].name, "describe-instance-1.json");
}

#[tokio::test]
async fn a_deleted_version_is_missing_and_leaves_the_instance_partly_contained() {
    let world = World::usual();
    world.inside(|world| world.bucket.remove(&(NETWORK.to_owned(), "v1".to_owned())));
    // One that was put in its place is no version of the ledger's.
    world.put(NETWORK, "v2", b"forged");
    let report = world.seal(None).await;
    assert!(step(&report).status == Status::Failed && report.verdict == Verdict::PartiallyContained, "{report:?}");
    assert!(reason(&report).contains("describe-network-1.json is missing"), "{report:?}");
    assert!(report.open[0].starts_with("seal-evidence Failed: "));
    let manifest = world.manifest();
    assert_eq!(states(&manifest)[0], (NETWORK, ItemState::Missing));
    assert_eq!(states(&manifest)[2], (NETWORK, ItemState::Unlisted));
    assert!(manifest.verdict == Verdict::PartiallyContained && manifest.open.len() == 1, "{manifest:?}");
    assert!(manifest.steps.last().expect("this step").status == Status::Failed);
}

#[tokio::test]
async fn bytes_of_another_size_or_hash_than_the_ledgers_are_altered() {
    let world = World::usual();
    world.store("one.bin", b"0123");
    world.store("two.bin", b"0123");
    world.put("one.bin", "v1", b"0124");
    world.put("two.bin", "v1", b"01234");
    let report = world.seal(None).await;
    assert!(reason(&report).contains("one.bin is altered: its SHA-256 is "), "{report:?}");
    assert!(reason(&report).contains("two.bin is altered: it has 5 bytes and must have 4"), "{report:?}");
    // The manifest says what it must be, so that the right file is known if it is found.
    let manifest = world.manifest();
    let item = manifest.evidence.iter().find(|item| item.name == "one.bin").expect("listed");
    assert_eq!((item.state, item.sha256.clone()), (ItemState::Altered, Some(sha256(b"0123"))));
}

#[tokio::test]
async fn where_s3_has_no_hash_of_the_whole_the_bytes_are_read_and_hashed() {
    let world = World::usual();
    world.store("capture/good.lime", b"0123");
    world.store("capture/bad.lime", b"0123");
    world.put("capture/bad.lime", "v1", b"9999");
    let composite = Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-3".to_owned());
    world.inside(|world| {
        world.checksums = [("capture/good.lime".to_owned(), composite), ("capture/bad.lime".to_owned(), None)].into()
    });
    let report = world.seal(None).await;
    assert!(reason(&report).contains("bad.lime is altered") && !reason(&report).contains("good.lime"), "{report:?}");
    let manifest = world.manifest();
    let good = manifest.evidence.iter().find(|item| item.name == "capture/good.lime").expect("listed");
    assert_eq!((good.state, good.sha256.clone()), (ItemState::Intact, Some(sha256(b"0123"))));
    assert!(good.note.as_deref().expect("a note").contains("-3"), "both hashes are kept");
}

#[tokio::test]
async fn a_hosts_upload_is_hashed_by_aws_and_its_json_is_no_record_of_calls() {
    let world = World::usual();
    let sent = br#"{"Replies":[{"Operation":"EC2:Forged","RequestId":"r-9"}]}"#;
    world.put("capture/host.json", "v1", sent);
    world.enter(Entry { sha256: None, request_id: None, ..entry("capture/host.json", "v1", sent) });
    world.seal(None).await;
    let manifest = world.manifest();
    let item = manifest.evidence.iter().find(|item| item.name == "capture/host.json").expect("listed");
    assert_eq!((item.state, item.sha256.clone(), item.calls.len()), (ItemState::Intact, Some(sha256(sent)), 0));
}

#[tokio::test]
async fn a_long_record_is_compared_by_s3s_hash_and_not_read_for_its_calls() {
    let world = World::usual();
    world.store("long.json", &vec![b' '; (4 << 20) + 1]);
    assert_eq!(step(&world.seal(None).await).status, Status::Done);
    let manifest = world.manifest();
    let item = manifest.evidence.iter().find(|item| item.name == "long.json").expect("listed");
    assert_eq!(item.state, ItemState::Intact);
    assert!(item.note.as_deref().expect("a note").contains("too long to list the ids of its calls"));
    assert!(!world.inside(|world| world.called.contains(&"GetObject long.json".to_owned())));
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_intact_nor_missing() {
    for call in ["HeadObject describe-network-1.json", "GetObject describe-network-1.json"] {
        let world = World::usual().refuse(call);
        let report = world.seal(None).await;
        assert!(
            reason(&report).contains("s3:GetObjectVersion") && reason(&report).contains("AccessDenied"),
            "{report:?}"
        );
        assert_eq!(states(&world.manifest())[0], (NETWORK, ItemState::Unread), "{call}");
    }
}

#[tokio::test]
async fn an_object_outside_the_ledger_is_noted_and_fails_nothing() {
    let world = World::usual();
    world.put("note.txt", "v1", b"from a colleague");
    let report = world.seal(None).await;
    assert_eq!(step(&report).status, Status::Done);
    assert!(reason(&report).contains("not in the ledger"), "{report:?}");
    let manifest = world.manifest();
    let item = &manifest.evidence[2];
    assert_eq!((item.name.as_str(), item.state), ("note.txt", ItemState::Unlisted));
    assert_eq!((item.sha256.clone(), item.function.as_str()), (Some(sha256(b"from a colleague")), "unknown"));
}

#[tokio::test]
async fn an_unentered_manifest_is_known_by_its_signature_and_by_what_it_follows() {
    let world = World::usual();
    world.seal(None).await;
    let kept = world.inside(|world| world.ledger.clone());
    let first = world.latest(MANIFEST).expect("a manifest");
    world.seal(None).await;
    // The case table could not be reached, and each put was made twice.
    world.inside(|world| world.ledger = kept.clone());
    let (second, signature) = (world.latest(MANIFEST).expect("one"), world.latest(SIGNATURE).expect("one"));
    world.put(MANIFEST, "x1", &second);
    assert_eq!(step(&world.seal(None).await).status, Status::Done);

    // An older one that is put back is signed as well, and follows another than the one below it.
    world.put(MANIFEST, "y1", &first);
    world.put(SIGNATURE, "y1", &digest(&first));
    assert!(reason(&world.seal(None).await).contains("was not written by this function"));
    world.put(MANIFEST, "z1", &second);
    world.put(SIGNATURE, "z1", &signature);
    assert!(reason(&world.seal(None).await).contains("was not written by this function"));
    // Nor is one that nobody has signed.
    let mut forged: Manifest = serde_json::from_slice(&second).expect("JSON");
    forged.verdict = "Contained, really".into();
    world.put(MANIFEST, "z2", &forged.to_bytes().expect("JSON"));
    assert!(reason(&world.seal(None).await).contains("was not written by this function"));
}

#[tokio::test]
async fn an_upload_repeated_after_a_lost_reply_is_recognised() {
    let world = World::usual();
    let bytes = world.inside(|world| world.bucket[&(NETWORK.to_owned(), "v1".to_owned())].clone());
    world.put(NETWORK, "v0", &bytes);
    world.put("note.txt", "v1", &bytes);
    world.seal(None).await;
    let notes: Vec<_> = world.manifest().evidence[2..4].iter().map(|i| i.note.clone().expect("a note")).collect();
    assert!(notes[0].contains("has the name and the bytes of version v1"), "{notes:?}");
    assert!(notes[1].contains("or somebody else put it there"), "the same bytes under another name: {notes:?}");
}

#[tokio::test]
async fn evidence_hidden_by_a_delete_marker_is_intact_and_noted() {
    let world = World::usual();
    world.inside(|world| world.markers.push(NETWORK.to_owned()));
    assert_eq!(step(&world.seal(None).await).status, Status::Done);
    let item = &world.manifest().evidence[0];
    assert_eq!(item.state, ItemState::Intact);
    assert!(item.note.as_deref().expect("a note").contains("delete marker"));
}

#[tokio::test]
async fn a_second_sealing_names_the_previous_manifest_and_lists_none_of_the_old_files() {
    let world = World::usual();
    world.seal(None).await;
    let first = world.latest(MANIFEST).expect("a manifest");
    world.seal(None).await;
    let second = world.manifest();
    assert_eq!(second.previous.expect("the first").sha256, sha256(&first));
    assert_eq!(states(&world.manifest()), [NETWORK, RECORD, REPORT].map(|name| (name, ItemState::Intact)));
}

#[tokio::test]
async fn whatever_aws_refuses_the_manifest_is_written_and_says_so() {
    for (call, said) in [
        ("GetItem", "there is no table"),
        ("ListObjectVersions", "s3:ListBucketVersions"),
        ("PutObject report.html", "the report could not be stored"),
    ] {
        let world = World::usual().refuse(call);
        let report = world.seal(None).await;
        assert!(step(&report).status == Status::Failed && reason(&report).contains(said), "{call}: {report:?}");
        let manifest = world.manifest();
        assert!(manifest.open[0].contains(said), "{call}: {:?}", manifest.open);
        assert!(world.latest(SIGNATURE).is_some(), "{call}");
    }
}

#[tokio::test]
async fn without_a_listing_missing_evidence_is_still_noticed() {
    let world = World::usual().refuse("ListObjectVersions");
    world.inside(|world| world.bucket.remove(&(NETWORK.to_owned(), "v1".to_owned())));
    world.seal(None).await;
    assert_eq!(states(&world.manifest())[..2], [(NETWORK, ItemState::Missing), (RECORD, ItemState::Intact)]);
}

#[tokio::test]
async fn a_key_that_does_not_sign_leaves_an_unsigned_manifest_and_a_failed_step() {
    let world = World::usual().refuse("Sign");
    let report = world.seal(None).await;
    assert!(step(&report).status == Status::Failed && reason(&report).contains("kms:Sign"), "{report:?}");
    assert!(world.latest(MANIFEST).is_some() && world.latest(SIGNATURE).is_none());
    assert!(report.verdict == Verdict::PartiallyContained, "{report:?}");
}

#[tokio::test]
async fn a_record_that_is_not_the_ledgers_is_not_believed() {
    let world = World::usual();
    world.put(RECORD, "v1", br#"{"Verdict":"Contained","Steps":[],"Facts":{"KeyName":"forged"}}"#);
    let report = world.seal(None).await;
    assert!(reason(&report).contains("verify-containment-1.json is altered"), "{report:?}");
    assert_eq!(world.manifest().facts, json!({}), "the answer's facts, and not the forged ones");
}

#[tokio::test]
async fn unreadable_snapshots_fail_the_step_and_nothing_else() {
    let world = World::usual();
    let s3 = world.s3();
    let sealer = Sealer {
        writer: Bucket::new(s3.clone(), "evidence", Caller::default()),
        objects: Objects { s3, bucket: "evidence".into(), until: Instant::now() + READING },
        kms: world.kms(),
        key: "arn:key".into(),
        sealed_by: String::new(),
    };
    let no_role = Err(Error::Misconfigured("no role in that account".into()));
    let nor_there = Err(Error::Misconfigured("no role there either".into()));
    let report =
        sealer.seal(&world, Sources { ec2: no_role, copies: nor_there }, &Target::example(), None, report()).await;
    assert!(reason(&report).contains("the snapshots could not be read: no role in that account"), "{report:?}");
    assert!(
        reason(&report).contains("the copies in the forensic account could not be read: no role there"),
        "{report:?}"
    );
    assert_eq!(states(&world.manifest()).len(), 3);
}

#[tokio::test]
async fn a_verdict_that_was_worse_before_stays_as_it_was() {
    for verdict in [Verdict::PartiallyContained, Verdict::NotContained, Verdict::NotApproved] {
        let world = World::usual().refuse("Sign");
        let report = InstanceReport { verdict: verdict.into(), ..report() };
        assert!(world.seal_as(None, report).await.verdict == verdict);
    }
}
