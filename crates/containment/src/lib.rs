//! What every containment step shares: the target, the loop, the journal, the errors.
//!
//! A step is a type with a [`Step`] implementation; [`converge`] is the one loop that runs it, and [`release`] the same
//! loop back to what was journaled.
//! Nothing here names a step, and nothing in a step names Lambda.

mod command;
mod contain;
mod error;
mod forensic;
mod journal;
mod release;
mod run;
mod step;
mod target;

pub use command::command;
pub use contain::{Start, converge, converge_from, converge_reversibly, inspect, journal_ahead, start};
pub use error::{AwsError, Error, Kind, Result};
pub use forensic::Forensic;
#[cfg(any(test, feature = "test-util"))]
pub use journal::MemoryJournal;
pub use journal::{First, Journal, Journaled};
pub use release::{OnDrift, Reversible, first_values, inspect_release, release, restored};
pub use step::{Found, Goal, Irreversible, Key, State, Step, Writes};
pub use target::{AutoScaling, Capture, CaptureMode, Target, check_account, check_instance_id, check_region};
pub use verdict::{Change, Outcome, Reported, Status, When};
