//! What is in the evidence bucket, and whether it matches the ledger.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::ChecksumMode;
use containment::{Error, Result};
use custody::{Hash, Item, ItemState, MANIFEST, Manifest, Previous, SIGNATURE, from_base64};
use evidence::{Entry, Pointer};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::Instant;

use crate::OURS;

/// How many objects are examined at the same time.
const AT_ONCE: usize = 8;

/// JSON up to this size is read for the ids of the calls whose replies it holds.
const JSON_AT_MOST: u64 = 4 << 20;

/// An object without a SHA-256 in S3 is read for one up to this size: half a minute for a small function.
const READ_AT_MOST: u64 = 512 << 20;

/// How many versions a case may have in the bucket: a thousand times what a containment writes.
const VERSIONS_AT_MOST: usize = 20_000;

/// Reads the evidence bucket.
pub(crate) struct Objects {
    pub(crate) s3: Client,
    pub(crate) bucket: String,
    /// Nothing is read for its hash after this.
    pub(crate) until: Instant,
}

/// The versions below a case's prefix.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    bucket: String,
    /// In the order of their keys, the newest of a key first.
    versions: Vec<Version>,
    /// The keys that a delete marker hides.
    hidden: BTreeSet<String>,
}

#[derive(Debug)]
struct Version {
    key: String,
    id: String,
    size: u64,
}

/// The newest manifest in the bucket, and the newest signature.
pub(crate) struct Newest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// Whether the manifest below it is the one that it claims to follow.
    pub(crate) follows: bool,
}

/// The state of a piece of evidence, and its bytes where they were read and kept.
pub(crate) struct Examined {
    pub(crate) item: Item,
    pub(crate) body: Option<Vec<u8>>,
}

/// What reading an object gave.
struct Bytes {
    sha256: String,
    size: u64,
    body: Option<Vec<u8>>,
}

impl Listed {
    /// A key's versions, the newest first.
    fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Version> {
        self.versions.iter().filter(move |version| version.key == key)
    }

    pub(crate) fn has(&self, pointer: &Pointer) -> bool {
        let id = pointer.version_id.as_deref().unwrap_or("null");
        self.versions.iter().any(|version| version.key == pointer.key && version.id == id)
    }

    /// What is in the case and not in its ledger, except what sealing itself writes, as if it were in the ledger.
    pub(crate) fn unlisted(&self, prefix: &str, ledger: &[Entry], instance: &str) -> Vec<Entry> {
        let known: BTreeSet<(&str, &str)> = ledger
            .iter()
            .map(|e| (e.pointer.key.as_str(), e.pointer.version_id.as_deref().unwrap_or("null")))
            .collect();
        let ours = OURS.map(|name| format!("{prefix}{name}"));
        let others = self.versions.iter().filter(|version| {
            !known.contains(&(version.key.as_str(), version.id.as_str())) && !ours.contains(&version.key)
        });
        others
            .map(|version| Entry {
                pointer: Pointer {
                    bucket: self.bucket.clone(),
                    key: version.key.clone(),
                    version_id: Some(version.id.clone()),
                },
                size: version.size,
                resource: instance.to_owned(),
                function: "unknown".to_owned(),
                ..Entry::default()
            })
            .collect()
    }
}

impl Objects {
    /// All versions below the prefix, and what is hidden.
    pub(crate) async fn listed(&self, prefix: &str) -> Result<Listed> {
        let mut listed = Listed { bucket: self.bucket.clone(), ..Listed::default() };
        let (mut key_marker, mut version_marker) = (None, None);
        // The SDK has no paginator for this list.
        loop {
            let call = self.s3.list_object_versions().bucket(&self.bucket).prefix(prefix);
            let sent = call.set_key_marker(key_marker).set_version_id_marker(version_marker).send().await;
            let page = sent.map_err(Error::aws("s3:ListBucketVersions", format!("{}/{prefix}", self.bucket)))?;
            for version in page.versions.unwrap_or_default() {
                let size = version.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                let (Some(key), Some(id)) = (version.key, version.version_id) else { continue };
                listed.versions.push(Version { key, id, size });
            }
            let markers = page.delete_markers.unwrap_or_default().into_iter();
            listed.hidden.extend(markers.filter(|m| m.is_latest.unwrap_or(false)).filter_map(|m| m.key));
            if listed.versions.len() > VERSIONS_AT_MOST {
                let many = format!("the case has more than {VERSIONS_AT_MOST} objects in the bucket");
                return Err(Error::Unsupported(many));
            }
            if !page.is_truncated.unwrap_or(false) || page.next_key_marker.is_none() {
                return Ok(listed);
            }
            (key_marker, version_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// Several at once, answered in their order.
    pub(crate) async fn examine_all<'a>(
        &self,
        prefix: &str,
        entries: &'a [Entry],
        listed: Option<&Listed>,
    ) -> Vec<(&'a Entry, Examined)> {
        let calls: Vec<_> = entries
            .iter()
            .map(|entry| async move { (entry, self.examine(prefix, entry, listed, true).await) })
            .collect();
        stream::iter(calls).buffered(AT_ONCE).collect().await
    }

    /// Compares one version with the ledger. What cannot be read is `Unread`, never an error.
    pub(crate) async fn examine(&self, prefix: &str, entry: &Entry, listed: Option<&Listed>, calls: bool) -> Examined {
        let pointer = &entry.pointer;
        let name = pointer.key.strip_prefix(prefix).unwrap_or(&pointer.key);
        let mut item = Item {
            name: name.to_owned(),
            version_id: pointer.version_id.clone().unwrap_or_else(|| "null".to_owned()),
            size: entry.size,
            sha256: entry.sha256.clone(),
            resource: entry.resource.clone(),
            function: entry.function.clone(),
            caller: entry.caller.clone(),
            execution: entry.execution.clone(),
            request_id: entry.request_id.clone(),
            ..Item::default()
        };
        let gone = listed.is_some_and(|listed| pointer.key.starts_with(prefix) && !listed.has(pointer));
        let read = if gone { Ok(None) } else { self.compare(&mut item, entry, calls).await };
        let mut body = None;
        match read {
            Ok(Some(bytes)) => body = bytes.body,
            Ok(None) if gone || item.stored_at.is_empty() => {
                item.state = ItemState::Missing;
                note(&mut item, "the bucket does not have this version".to_owned());
            }
            Ok(None) => {}
            Err(error) => {
                item.state = ItemState::Unread;
                note(&mut item, error.to_string());
            }
        }
        if listed.is_some_and(|listed| listed.hidden.contains(&pointer.key)) {
            let version = item.version_id.clone();
            note(&mut item, format!("a delete marker hides it: download it by its version, {version}"));
        }
        Examined { item, body }
    }

    /// Reads what S3 has of it, and sets the item's state; none where it does not exist, or its bytes were not read.
    async fn compare(&self, item: &mut Item, entry: &Entry, calls: bool) -> Result<Option<Bytes>> {
        let Pointer { bucket, key, version_id } = &entry.pointer;
        let on = format!("{bucket}/{key}");
        let call = self.s3.head_object().bucket(bucket).key(key).set_version_id(version_id.clone());
        let sent = call.checksum_mode(ChecksumMode::Enabled).send().await;
        let head = match sent.map_err(Error::aws("s3:GetObjectVersion", &on)) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other?,
        };
        item.stored_at = head.last_modified().map(time).unwrap_or_default();
        let size = head.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        let checksum = head.checksum_sha256();
        if let Some(parts) = checksum.filter(|checksum| checksum.contains('-')) {
            note(item, format!("S3's SHA-256 is a composite of its parts' hashes: {parts}"));
        }
        let of_s3 = checksum.and_then(from_base64);
        // Replies that a function stored; a host's JSON may say anything.
        let recorded = calls && entry.request_id.is_some() && key.ends_with(".json");
        let for_calls = recorded && size <= JSON_AT_MOST;
        if recorded && !for_calls {
            note(item, format!("too long to list the ids of its calls: it has more than {JSON_AT_MOST} bytes"));
        }
        let for_hash = of_s3.is_none() && size <= READ_AT_MOST;
        let read = match size == entry.size && (for_calls || for_hash) {
            true => Some(self.read(&entry.pointer, for_calls).await?),
            false => None,
        };
        let size = read.as_ref().map_or(size, |read| read.size);
        let sha256 = read.as_ref().map(|read| read.sha256.clone()).or(of_s3);
        match (&entry.sha256, sha256) {
            _ if size != entry.size => {
                item.state = ItemState::Altered;
                note(item, format!("it has {size} bytes and must have {}", entry.size));
            }
            (Some(expected), Some(found)) if !expected.eq_ignore_ascii_case(&found) => {
                item.state = ItemState::Altered;
                note(item, format!("its SHA-256 is {found} and must be {expected}"));
            }
            (_, Some(found)) => item.sha256 = Some(found),
            (Some(_), None) => note(
                item,
                "its SHA-256 is the ledger's: S3 has none of the whole object, which was too long to read".into(),
            ),
            (None, None) => {
                note(item, "it has no SHA-256: S3 has none of the whole object, which was too long to read".into())
            }
        }
        if let Some(body) = read.as_ref().and_then(|read| read.body.as_deref()) {
            item.calls = calls_in(body);
        }
        Ok(read)
    }

    /// Reads a version in pieces, for its hash, and keeps its bytes if asked to.
    async fn read(&self, pointer: &Pointer, keep: bool) -> Result<Bytes> {
        let Pointer { bucket, key, version_id } = pointer;
        let on = format!("{bucket}/{key}");
        let reading = async {
            let sent = self.s3.get_object().bucket(bucket).key(key).set_version_id(version_id.clone()).send().await;
            let mut stream = sent.map_err(Error::aws("s3:GetObjectVersion", &on))?.body;
            let (mut hash, mut body) = (Hash::default(), Vec::new());
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|error| Error::Conflict(format!("reading {on} was cut short: {error}")))?;
                hash.update(&piece);
                if keep {
                    body.extend_from_slice(&piece);
                }
            }
            let (sha256, size) = hash.finish();
            Ok(Bytes { sha256, size, body: keep.then_some(body) })
        };
        let late = || Err(Error::Unsupported(format!("there was no time left to read {on}")));
        // At least a moment for each, so that short ones are read even if a long one has taken all the time.
        let until = self.until.max(Instant::now() + Duration::from_secs(2));
        tokio::time::timeout_at(until, reading).await.unwrap_or_else(|_| late())
    }

    /// The manifest that the next one follows, if the case has been sealed before.
    pub(crate) async fn previous(&self, prefix: &str, listed: Option<&Listed>) -> Result<Option<Previous>> {
        let key = format!("{prefix}{MANIFEST}");
        let Some(latest) = listed.and_then(|listed| listed.of(&key).next()) else { return Ok(None) };
        let version_id = Some(latest.id.clone());
        let pointer = Pointer { bucket: self.bucket.clone(), key: key.clone(), version_id };
        let bytes = self.read(&pointer, false).await?;
        Ok(Some(Previous { version_id: latest.id.clone(), sha256: bytes.sha256 }))
    }

    /// The newest manifest and signature, if there are both, and whether that manifest follows the one below it; an upload
    /// that was repeated after a lost reply has left the same bytes twice.
    pub(crate) async fn newest_manifest(&self, prefix: &str, listed: &Listed) -> Result<Option<Newest>> {
        let (manifest, signature) = (format!("{prefix}{MANIFEST}"), format!("{prefix}{SIGNATURE}"));
        let (mut below, Some(signature)) = (listed.of(&manifest), listed.of(&signature).next()) else {
            return Ok(None);
        };
        let Some(newest) = below.next() else { return Ok(None) };
        let bytes = self.whole(newest).await?;
        let Ok(sealed) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
        let mut before = None;
        for version in below {
            if version.size != newest.size || self.whole(version).await? != bytes {
                before = Some(version.id.clone());
                break;
            }
        }
        let follows = before == sealed.previous.map(|previous| previous.version_id);
        Ok(Some(Newest { bytes, signature: self.whole(signature).await?, follows }))
    }

    async fn whole(&self, version: &Version) -> Result<Vec<u8>> {
        let version_id = Some(version.id.clone());
        let pointer = Pointer { bucket: self.bucket.clone(), key: version.key.clone(), version_id };
        Ok(self.read(&pointer, true).await?.body.unwrap_or_default())
    }
}

/// The reply to HEAD has no body, and so often no code except its status. 405: the version is a delete marker.
fn is_gone(error: &Error) -> bool {
    let gone = ["NotFound", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "HTTP 404", "HTTP 405"];
    error.code().is_some_and(|code| gone.contains(&code))
}

fn time(at: &DateTime) -> String {
    at.fmt(DateTimeFormat::DateTime).unwrap_or_default()
}

fn note(item: &mut Item, text: String) {
    item.note = Some(item.note.take().map_or(text.clone(), |before| format!("{before}; {text}")));
}

/// The ids of the calls whose replies a piece of evidence holds: see [`evidence::Recorder`].
fn calls_in(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Recorded {
        #[serde(default)]
        replies: Vec<Reply>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Reply {
        operation: Option<String>,
        request_id: Option<String>,
    }
    let replies = serde_json::from_slice::<Recorded>(body).map(|recorded| recorded.replies).unwrap_or_default();
    replies.into_iter().filter_map(|reply| Some(format!("{} {}", reply.operation?, reply.request_id?))).collect()
}
