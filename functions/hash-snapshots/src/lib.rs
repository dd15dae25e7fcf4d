//! Lists the SHA-256 of every block of the case's snapshots, by the EBS direct APIs.
//!
//! EBS gives a snapshot no hash of its own (aws-behaviour#block-hashes). The list is one: whoever reads the snapshot
//! again, years later and in another account, gets the same list or has another snapshot. Every block is downloaded for
//! it, so it is made only on request, in as many calls of the function as it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ebs::Client;
use aws_sdk_ebs::operation::RequestId;
use aws_sdk_ebs::types::Block;
use aws_sdk_ec2::types::{Snapshot, SnapshotState};
use containment::{AwsError, Change, Error, First, Journal, Key, Kind, Outcome, Result, Status, Target};
use evidence::Bucket;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use runtime::Aws;
use serde_json::{Value, json};
use snapshots::{BlockList, HASH_SNAPSHOTS as NAME, Part, case_snapshots, is_verified, key_in_region, parts};
use tokio::time::Instant;

/// How long one call reads blocks; what is left is for the next one. The function's own time-out is longer.
const READS_FOR: Duration = Duration::from_secs(600);

/// EBS allows 1,000 GetSnapshotBlock requests a second and account; the function's network is slower than that.
const BLOCKS_AT_ONCE: usize = 32;

/// The blocks that one `ListSnapshotBlocks` answers, and the least that one call of the function reads.
const BLOCKS_A_PAGE: i32 = 2_000;

/// For each original its own id, or that of the copy which Cordon's key opens; and why not, where there is neither.
fn readable(
    snapshots: &[Snapshot],
    copies: &BTreeMap<String, Vec<Snapshot>>,
    key: Option<&str>,
) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut unreadable) = (Vec::new(), Vec::new());
    for original in snapshots {
        let Some(id) = original.snapshot_id() else { continue };
        let own = !original.encrypted().unwrap_or(false) || key.is_some() && original.kms_key_id() == key;
        let copy = || copies.get(id)?.iter().find(|copy| key.is_some() && is_verified(copy, key))?.snapshot_id();
        match (original.state() == Some(&SnapshotState::Completed) && own, copy()) {
            (true, _) => ids.push(id.to_owned()),
            (false, Some(copy)) => ids.push(copy.to_owned()),
            (false, None) => unreadable.push(format!(
                "{id} is not completed, or is under a key that Cordon may not use ({}); with a forensic \
                 account configured, it would be copied under Cordon's own",
                original.kms_key_id().unwrap_or("none")
            )),
        }
    }
    (ids, unreadable)
}

/// Reads blocks of a snapshot from an index on, page by page until the time is over: the lines, and where to continue.
///
/// Only an answer without a token is the end: a page may have fewer blocks than requested, or none
/// (https://docs.aws.amazon.com/ebs/latest/APIReference/API_ListSnapshotBlocks.html).
async fn read(ebs: &Client, snapshot: &str, from: Option<i32>, until: Instant) -> Result<(Vec<String>, Option<i32>)> {
    let (mut lines, mut next, mut token) = (Vec::new(), from, None);
    loop {
        let call = ebs.list_snapshot_blocks().snapshot_id(snapshot).max_results(BLOCKS_A_PAGE);
        // EBS goes by one of the two. Between calls of the function it is the index: a token is good for an hour.
        let call = match token {
            Some(token) => call.next_token(token),
            None => call.set_starting_block_index(next),
        };
        let page = call.send().await.map_err(Error::aws("ebs:ListSnapshotBlocks", snapshot))?;
        let calls: Vec<_> = page.blocks().iter().map(|block| line(ebs, snapshot, block)).collect();
        lines.extend(stream::iter(calls).buffered(BLOCKS_AT_ONCE).try_collect::<Vec<_>>().await?);
        next = page.blocks().last().and_then(Block::block_index).map(|last| last + 1).or(next);
        token = page.next_token;
        if token.is_none() {
            return Ok((lines, None));
        }
        if next > from && Instant::now() >= until {
            return Ok((lines, next));
        }
    }
}

/// The line of one block. The hash is computed from the bytes that came, and compared with what EBS says of them.
async fn line(ebs: &Client, snapshot: &str, block: &Block) -> Result<String> {
    let index = block.block_index().unwrap_or_default();
    let call = ebs.get_snapshot_block().snapshot_id(snapshot).block_index(index);
    let sent = call.block_token(block.block_token().unwrap_or_default()).send().await;
    let reply = sent.map_err(Error::aws("ebs:GetSnapshotBlock", format!("{snapshot} block {index}")))?;
    let request_id = reply.request_id().map(ToOwned::to_owned);
    let said = reply.checksum().map(ToOwned::to_owned);
    let broken = |message: String| {
        Error::Aws(Box::new(AwsError {
            action: "ebs:GetSnapshotBlock",
            resource: format!("{snapshot} block {index}"),
            kind: Kind::Unavailable,
            code: "BlockDamaged".to_owned(),
            message,
            request_id: request_id.clone(),
        }))
    };
    let bytes = reply.block_data.collect().await.map_err(|error| broken(error.to_string()))?;
    let hash = custody::sha256(&bytes.into_bytes());
    if said.is_some_and(|said| custody::from_base64(&said).as_ref() != Some(&hash)) {
        return Err(broken("its bytes do not have the checksum that EBS gave with them".to_owned()));
    }
    Ok(format!("{index} {hash}\n"))
}

/// Lists what is still to be listed, for a bounded time; `InProgress` while some is left.
///
/// Reads the case's snapshots and their blocks; writes the lists' parts into the evidence bucket, the ledger and the
/// journal, so that the next call continues where this one ends. Errors: those of its calls.
async fn hash_snapshots(
    (ebs, ec2): (&Client, &aws_sdk_ec2::Client),
    journal: &impl Journal,
    bucket: &Bucket,
    target: &Target,
    key: Option<&str>,
    until: Instant,
) -> Result<Outcome> {
    let (snapshots, journaled) = futures::try_join!(case_snapshots(ec2, target), journal.read(target, NAME))?;
    let (ids, unreadable) = readable(&snapshots.originals, &snapshots.copies, key);
    let mut done = parts(&journaled.first)?;
    let mut changes = Vec::new();
    for id in &ids {
        let parts = done.entry(id.clone()).or_default();
        while BlockList::whole(parts).is_none() {
            if Instant::now() >= until {
                let reason = format!("{} of {} snapshots are listed so far", changes.len(), ids.len());
                return Ok(Outcome { changes, ..Outcome::new(NAME, Status::InProgress, reason) });
            }
            let (lines, next) = read(ebs, id, parts.last().and_then(|part| part.next), until).await?;
            let number = parts.len() + 1;
            let name = format!("snapshot-blocks-{id}-{number:05}.txt");
            let key = format!("{}/{name}", target.evidence_prefix());
            let entry = bucket.put_bytes(target, key, "text/plain", lines.concat().into_bytes()).await?;
            evidence::enter(journal, target, &entry).await?;
            let part = Part { name, sha256: entry.sha256.unwrap_or_default(), blocks: lines.len() as u64, next };
            let kept: First = [(Key::new(id, format!("part-{number:05}")), json!(part))].into();
            let held = journal.keep(target, NAME, &kept.clone().into()).await?.first;
            if kept.iter().any(|(key, part)| held.get(key) != Some(part)) {
                let reason = format!("another call of this function lists {id}");
                return Ok(Outcome { changes, ..Outcome::new(NAME, Status::InProgress, reason) });
            }
            parts.push(part);
        }
        let after = json!(BlockList::whole(parts));
        changes.push(Change { resource: id.clone(), attribute: "Blocks".to_owned(), before: Value::Null, after });
    }
    let outcome = match (ids.is_empty(), unreadable.is_empty()) {
        (true, true) => Outcome::new(NAME, Status::NotApplicable, "the case has no snapshot".to_owned()),
        (_, false) => Outcome::new(NAME, Status::Unsupported, unreadable.join("; ")),
        (false, true) => Outcome::new(NAME, Status::Done, None),
    };
    Ok(Outcome { changes, ..outcome })
}

/// The function: a target in, an outcome out; to be called again while it is `InProgress`.
pub async fn handle(aws: &Aws, event: Value) -> Result<Outcome> {
    let target = Target::parse(event)?;
    if !target.hash_snapshots {
        return Ok(Outcome::new(NAME, Status::NotApplicable, "no hash list of the snapshots was requested".to_owned()));
    }
    if target.dry_run {
        return Ok(Outcome::new(NAME, Status::Planned, "every block of the case's snapshots would be read".to_owned()));
    }
    let (journal, bucket) = (aws.case_table()?, Bucket::of(aws)?);
    let config = aws.of(&target, NAME).await?;
    let clients = (&Client::new(&config), &aws_sdk_ec2::Client::new(&config));
    let key = key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), &target);
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    hash_snapshots(clients, &journal, &bucket, &target, key.as_deref(), Instant::now() + READS_FOR).boxed().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ebs::operation::get_snapshot_block::GetSnapshotBlockOutput;
    use aws_sdk_ebs::operation::list_snapshot_blocks::ListSnapshotBlocksOutput;
    use aws_sdk_ebs::primitives::ByteStream;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn snapshot(id: &str, key: Option<&str>, state: SnapshotState) -> Snapshot {
        let snapshot = Snapshot::builder().snapshot_id(id).state(state).encrypted(key.is_some());
        snapshot.set_kms_key_id(key.map(ToOwned::to_owned)).build()
    }

    fn block(index: i32) -> Block {
        Block::builder().block_index(index).block_token(format!("token-{index}")).build()
    }

    fn blocks(checksum: Option<&'static str>) -> Rule {
        mock!(Client::get_snapshot_block)
            .match_requests(|r| r.block_token() == Some(&format!("token-{}", r.block_index().unwrap_or(-1))))
            .then_output(move || {
                let data = ByteStream::from_static(b"block");
                GetSnapshotBlockOutput::builder().block_data(data).set_checksum(checksum.map(Into::into)).build()
            })
    }

    const OF_BLOCK: &str = "SWrKgOTY8p+46M2BbDr7SNPxA5cLOi7hYAwIymcybe4=";

    fn client(rules: &[&Rule]) -> Client {
        mock_client!(aws_sdk_ebs, RuleMode::MatchAny, rules)
    }

    /// The page that answers an index, or a token.
    fn page(
        from: Option<i32>,
        asked: Option<&'static str>,
        blocks: &'static [i32],
        token: Option<&'static str>,
    ) -> Rule {
        mock!(Client::list_snapshot_blocks)
            .match_requests(move |r| r.starting_block_index() == from && r.next_token() == asked)
            .then_output(move || {
                let page = ListSnapshotBlocksOutput::builder().set_next_token(token.map(ToOwned::to_owned));
                page.set_blocks(Some(blocks.iter().map(|index| block(*index)).collect())).build()
            })
    }

    #[tokio::test]
    async fn every_block_has_a_line_with_its_index_and_the_hash_of_its_bytes() {
        let (first, blocks) = (page(None, None, &[0, 7], Some("a")), blocks(Some(OF_BLOCK)));
        // A page may be empty in the middle of a list.
        let (empty, last) = (page(None, Some("a"), &[], Some("b")), page(None, Some("b"), &[9], None));
        let ebs = client(&[&first, &empty, &last, &blocks]);
        let (lines, next) = read(&ebs, "snap-1", None, Instant::now() + READS_FOR).await.expect("read");
        let hash = custody::sha256(b"block");
        assert_eq!(lines, [0, 7, 9].map(|index| format!("{index} {hash}\n")));
        assert_eq!(next, None);
    }

    #[tokio::test]
    async fn when_the_time_is_over_the_next_call_continues_after_the_last_block() {
        let (first, blocks) = (page(None, None, &[0, 7], Some("a")), blocks(None));
        let (lines, next) = read(&client(&[&first, &blocks]), "snap-1", None, Instant::now()).await.expect("read");
        assert_eq!((lines.len(), next), (2, Some(8)));
    }

    #[tokio::test]
    async fn a_block_that_is_not_what_ebs_says_is_an_error_that_names_it() {
        let (first, blocks) = (page(None, None, &[3], None), blocks(Some("bm90IGl0")));
        let error = read(&client(&[&first, &blocks]), "snap-1", None, Instant::now()).await.expect_err("refused");
        assert!(error.to_string().contains("snap-1 block 3"), "{error}");
    }

    #[test]
    fn of_a_snapshot_under_a_strange_key_the_copy_under_cordons_own_is_read_or_nothing() {
        let originals = [
            snapshot("snap-1", None, SnapshotState::Completed),
            snapshot("snap-2", Some("strange"), SnapshotState::Completed),
        ];
        let copies = |copy: Snapshot| BTreeMap::from([("snap-2".to_owned(), vec![copy])]);
        let good = copies(snapshot("snap-3", Some("own"), SnapshotState::Completed));
        assert_eq!(readable(&originals, &good, Some("own")), (vec!["snap-1".to_owned(), "snap-3".to_owned()], vec![]));
        let pending = copies(snapshot("snap-3", Some("own"), SnapshotState::Pending));
        for (copies, key) in [(&pending, Some("own")), (&good, None)] {
            let (ids, unreadable) = readable(&originals, copies, key);
            assert_eq!(ids, ["snap-1"]);
            assert!(unreadable[0].contains("snap-2") && unreadable[0].contains("strange"));
        }
    }
}
