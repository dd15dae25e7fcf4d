//! What every containment step shares: the target, the loop, the journal, the errors.
//!
//! A step is a type with a [`Step`] implementation; [`converge`] is the one loop that runs it, and [`release`] the same
//! loop back to what was journaled.
//! Nothing here names a step, and nothing in a step names Lambda.

mod by_hand;
mod error;
mod forensic;
mod journal;
mod release;
mod step;
mod target;

pub use by_hand::command;
pub use error::{AwsError, Error, Kind, Result};
pub use forensic::Forensic;
pub use journal::{First, Journal, Kept};
pub use release::{inspect_release, journaled, release, restored};
pub use step::{Found, Goal, Key, Later, State, Step, Writes, converge, inspect, keep_first};
pub use target::{AutoScaling, Capture, CaptureMode, Target, check_account, check_instance_id, check_region};
pub use verdict::{Change, Outcome, Reported, Status, When};
