use super::*;
use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::operation::lock_snapshot::LockSnapshotOutput;
use aws_sdk_ec2::types::Tag;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

fn target() -> Target {
    Target::example()
}

fn step_with(rules: &[&Rule], mode: &str) -> LockSnapshots {
    LockSnapshots {
        there: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules),
        forensic: Forensic::example(),
        wanted: parse(mode, "30").expect("good settings"),
    }
}

fn step(rules: &[&Rule]) -> LockSnapshots {
    step_with(rules, "governance")
}

fn copies(copies: &'static [(&'static str, &'static str, bool)]) -> Rule {
    mock!(Client::describe_snapshots).match_requests(|r| r.owner_ids() == ["self"]).then_output(move || {
        let ours = Forensic::example().key_arn;
        let all = copies.iter().map(|(id, state, under_our_key)| {
            let source = Tag::builder().key("SourceSnapshotId").value("snap-1").build();
            let key = if *under_our_key { ours.as_str() } else { "another" };
            let copy = Snapshot::builder().snapshot_id(*id).state(SnapshotState::from(*state)).encrypted(true);
            copy.kms_key_id(key).tags(source).build()
        });
        DescribeSnapshotsOutput::builder().set_snapshots(Some(all.collect())).build()
    })
}

fn locks(locks: &'static [(&'static str, &'static str, i32)]) -> Rule {
    mock!(Client::describe_locked_snapshots).then_output(move || {
        let all = locks.iter().map(|(id, state, days)| {
            let lock = LockedSnapshotsInfo::builder().snapshot_id(*id).lock_state(LockState::from(*state));
            lock.lock_duration(*days).build()
        });
        DescribeLockedSnapshotsOutput::builder().set_snapshots(Some(all.collect())).build()
    })
}

fn locking(mode: &'static str, days: i32) -> Rule {
    mock!(Client::lock_snapshot)
        .match_requests(move |r| {
            r.snapshot_id() == Some("snap-8")
                && r.lock_mode().map(LockMode::as_str) == Some(mode)
                && r.lock_duration() == Some(days)
                && r.cool_off_period().is_none()
                && r.expiration_date().is_none()
        })
        .then_output(|| LockSnapshotOutput::builder().build())
}

const GOOD: &[(&str, &str, bool)] = &[("snap-8", "completed", true)];

async fn read(step: &LockSnapshots) -> Found<Lock, ()> {
    step.read(&target()).await.expect("read")
}

async fn write(step: &LockSnapshots) -> Writes {
    let found = read(step).await;
    let goal = step.contained(&target(), &found, &Journaled::default());
    step.write(&target(), &found, &goal.state).await
}

#[tokio::test]
async fn a_completed_copy_is_locked_in_the_mode_and_for_the_days_that_were_asked_for_without_a_cooling_off_period() {
    for mode in ["governance", "compliance"] {
        let (copies, locks, locking) = (copies(GOOD), locks(&[]), locking(mode, 30));
        assert!(write(&step_with(&[&copies, &locks, &locking], mode)).await.failures.is_empty());
        assert_eq!(locking.num_calls(), 1);
    }
}

#[tokio::test]
async fn a_pending_copy_is_waited_for_and_not_locked_before_it_is_known_to_be_good() {
    let (copies, locks, locking) = (copies(&[("snap-8", "pending", true)]), locks(&[]), locking("governance", 30));
    let step = step(&[&copies, &locks, &locking]);
    assert!(read(&step).await.state.values().all(|lock| step.accepted(lock)));
    write(&step).await;
    assert_eq!(locking.num_calls(), 0);
}

#[tokio::test]
async fn what_is_under_another_key_or_failed_is_not_locked() {
    let (copies, locks) = (copies(&[("snap-8", "completed", false), ("snap-9", "error", true)]), locks(&[]));
    let step = step(&[&copies, &locks]);
    let found = read(&step).await;
    assert!(
        step.contained(&target(), &found, &Journaled::default())
            .not_applicable
            .expect("why")
            .contains("no verified copy")
    );
}

#[test]
fn a_lock_that_is_longer_or_stricter_stays_and_no_lock_is_ever_made_shorter() {
    let lock = |state: &str, days| Lock { state: state.to_owned(), days };
    for (mode, found, goal) in [
        ("governance", lock("governance", Some(30)), lock("governance", Some(30))),
        ("governance", lock("governance", Some(100)), lock("governance", Some(100))),
        ("governance", lock("governance", Some(10)), lock("governance", Some(30))),
        ("governance", lock("compliance", Some(30)), lock("compliance", Some(30))),
        ("governance", lock("compliance", Some(10)), lock("compliance", Some(30))),
        ("governance", lock("compliance-cooloff", Some(30)), lock("compliance-cooloff", Some(30))),
        ("compliance", lock("governance", Some(100)), lock("compliance", Some(100))),
        ("compliance", lock("compliance", Some(365)), lock("compliance", Some(365))),
        ("compliance", lock("compliance-cooloff", Some(30)), lock("compliance-cooloff", Some(30))),
        ("governance", lock("expired", Some(100)), lock("governance", Some(30))),
        ("compliance", lock("none", None), lock("compliance", Some(30))),
    ] {
        let step = step_with(&[], mode);
        assert_eq!(step.goal(&found), goal, "{mode} over {found:?}");
        assert_eq!(step.goal(&goal), goal, "a fixed point");
    }
}

#[tokio::test]
async fn an_expired_lock_is_locked_again() {
    let (copies, locks, locking) = (copies(GOOD), locks(&[("snap-8", "expired", 30)]), locking("governance", 30));
    assert!(write(&step(&[&copies, &locks, &locking])).await.failures.is_empty());
    assert_eq!(locking.num_calls(), 1);
}

#[tokio::test]
async fn a_cooling_off_period_that_somebody_has_set_is_a_risk_until_it_ends() {
    let (copies, locks) = (copies(GOOD), locks(&[("snap-8", "compliance-cooloff", 30)]));
    let step = step_with(&[&copies, &locks], "compliance");
    let found = read(&step).await;
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state, found.state);
    assert!(goal.residual_risk[0].contains("snap-8 of the forensic account can still be unlocked"));
}

#[test]
fn settings_that_ec2_would_not_take_are_refused_by_their_name() {
    for (mode, days) in [("GOVERNANCE", "30"), ("none", "30")] {
        assert!(parse(mode, days).expect_err("refused").to_string().contains("SNAPSHOT_LOCK_MODE"));
    }
    for days in ["0", "-1", "36501", "a month", ""] {
        assert!(parse("governance", days).expect_err("refused").to_string().contains("SNAPSHOT_LOCK_DAYS"));
    }
}
