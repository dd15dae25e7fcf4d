//! The common parts of the inputs of a containment and of a release: their fields, the accepted accounts and Regions,
//! the execution that they start, and the holder of a case.

mod execution;
mod fields;
mod holder;
mod left_out;
mod members;
mod region;

use containment::{Error, Result};
use serde_json::Value;

pub use execution::{Event, Execution};
pub use fields::{account, fields, flag, instance_ids, region, tag_value};
pub use holder::{Holder, holder};
pub use left_out::LeftOut;
pub use members::MemberAccounts;
pub use region::check_region_exists;

/// Refuses a value in one sentence, which cuts a long value short.
pub fn refuse<T>(field: &str, value: &Value, accepted: &str) -> Result<T> {
    let mut shown = value.to_string();
    if shown.chars().count() > 120 {
        shown = shown.chars().take(120).chain("…".chars()).collect();
    }
    Err(Error::InvalidInput(format!("{field}: {shown} is not accepted; accepted: {accepted}")))
}
