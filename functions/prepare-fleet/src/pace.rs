//! How fast a fleet may be contained, so that no call of it is lost to EC2's throttling (aws-behaviour#api-throttling).
//!
//! EC2 gives each of its APIs a bucket of tokens in each account and Region: 50 for an API that changes something, refilled
//! at 5 a second (EC2 developer guide, "Request throttling for the Amazon EC2 API"). EC2 refuses calls above that pace,
//! so the batches begin at that pace instead. `tests/bench_tokens.py` simulates it.

use serde::Serialize;

/// Isolating an interface takes two calls of ModifyNetworkInterfaceAttribute, 0.4 seconds of the bucket's refill; the
/// rest is left to other callers.
const SECONDS_TO_ISOLATE_AN_INTERFACE: f64 = 0.42;

/// The bucket is full at first: 50 tokens are 10 seconds of its refill. Two of them are kept for simultaneous calls of
/// a batch.
const FULL_AT_FIRST_SECONDS: f64 = 8.0;

/// From a batch's beginning until its instances are isolated, when nothing is throttled; five of these seconds are the
/// conversion group's.
const WAY_TO_ISOLATION_SECONDS: f64 = 7.0;

/// `describe-instance` calls DescribeInstanceAttribute four times, whose bucket of 100 is refilled at 20 a second.
const SECONDS_TO_DESCRIBE_AN_INSTANCE: f64 = 0.2;
const DESCRIBED_AT_FIRST_SECONDS: f64 = 5.0;

/// The steps beside and after isolation. Their slowest buckets are those of
/// ModifyNetworkInterfaceAttribute, which `preserve-volumes` calls once per interface, and of CloudTrail's LookupEvents,
/// two a second, of which `collect-facts` makes four calls.
const SECONDS_TO_SETTLE_AN_INTERFACE: f64 = 2.2;

/// For this long, isolation has the bucket to itself. Then the other steps get a tenth of the refill, because
/// protection and volumes must not wait for the last of thousands of instances.
const ISOLATION_ALONE_SECONDS: f64 = 60.0;
const SHARE_OF_SETTLING: f64 = 0.1;

/// When the batches may begin: batch number `n` begins `n` times this many seconds after the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pace {
    /// From one batch's isolation to the next's.
    pub isolate_every: f64,
    /// After this many seconds, the first batch may continue with the steps after isolation.
    pub settle_after: f64,
    /// From then on, from one batch to the next.
    pub settle_every: f64,
}

/// The pace for this many instances and interfaces in this many batches.
///
/// The initial tokens are spread evenly over the whole fleet. If the first batches spent them, their calls would be
/// refused and back off, while calls of later batches succeed.
pub fn pace(instances: usize, interfaces: usize, batches: usize) -> Pace {
    // An instance that was not found, or whose interface does not show yet, counts as having one.
    let interfaces = interfaces.max(instances) as f64;
    let isolated = isolated_after(interfaces);
    let described = instances as f64 * SECONDS_TO_DESCRIBE_AN_INSTANCE - DESCRIBED_AT_FIRST_SECONDS;
    let last_begins = (isolated - WAY_TO_ISOLATION_SECONDS).max(described).max(0.0);
    let hundredths = |seconds: f64| (seconds * 100.0 - 1e-6).ceil() / 100.0;
    Pace {
        isolate_every: hundredths(last_begins / batches.saturating_sub(1).max(1) as f64),
        settle_after: hundredths((last_begins + WAY_TO_ISOLATION_SECONDS).min(ISOLATION_ALONE_SECONDS)),
        settle_every: hundredths(interfaces * SECONDS_TO_SETTLE_AN_INTERFACE / batches.max(1) as f64),
    }
}

/// How many seconds the bucket needs for this many interfaces.
fn isolated_after(interfaces: f64) -> f64 {
    let alone = interfaces * SECONDS_TO_ISOLATE_AN_INTERFACE - FULL_AT_FIRST_SECONDS;
    match alone > ISOLATION_ALONE_SECONDS {
        true => (alone - SHARE_OF_SETTLING * ISOLATION_ALONE_SECONDS) / (1.0 - SHARE_OF_SETTLING),
        false => alone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_initial_tokens_are_spread_over_the_whole_fleet() {
        assert_eq!(pace(100, 100, 10), Pace { isolate_every: 3.0, settle_after: 34.0, settle_every: 22.0 });
        let thousand = pace(1_000, 1_000, 100);
        assert_eq!((thousand.settle_after, thousand.settle_every), (60.0, 22.0));
        assert_eq!(pace(12, 12, 3).isolate_every, 0.0, "a fleet that fits the full bucket does not wait");
    }

    proptest! {
        #[test]
        fn a_fleet_never_asks_for_more_than_the_full_bucket_and_its_refill(
            instances in 1usize..10_000, each in 1usize..15, size in 1usize..40
        ) {
            let (interfaces, batches) = ((instances * each) as f64, instances.div_ceil(size));
            let pace = pace(instances, instances * each, batches);
            // A single batch has nothing to pace.
            prop_assume!(batches > 1);
            let isolated_at = (batches - 1) as f64 * pace.isolate_every + WAY_TO_ISOLATION_SECONDS;
            let settling = (isolated_at - pace.settle_after).max(0.0) * interfaces / batches as f64 / pace.settle_every;
            prop_assert!(2.0 * interfaces + settling <= 50.0 + 5.0 * isolated_at + 1e-6);
        }
    }
}
