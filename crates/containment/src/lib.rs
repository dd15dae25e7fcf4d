//! What every containment step shares: the target, the loop, the journal, the errors, the way into Lambda.
//!
//! A step is a type with a [`Step`] implementation; [`converge`] is the one loop that runs it, and [`release`] the same
//! loop back to what was journaled.
//! Nothing here names a step, and nothing in a step names Lambda.

mod by_hand;
mod case;
mod drift;
mod error;
mod forensic;
mod journal;
mod member;
mod outcome;
mod recorder;
mod release;
mod serve;
mod step;
mod target;
mod watch;

pub use by_hand::command;
pub use case::{Case, Guardrail, Released, now};
pub use drift::Drift;
pub use error::{AwsError, Error, Kind, Result};
pub use forensic::Forensic;
pub use journal::{CaseTable, First, Journal, Kept};
pub use outcome::{Change, Outcome, Reported, Status, When};
pub use recorder::Recorder;
pub use release::{inspect_release, journaled, release, restored};
pub use serve::{Aws, Caller, serve, serve_forensic_step, serve_step};
pub use step::{Found, Goal, Key, Later, State, Step, Writes, converge, inspect, keep_first};
pub use target::{AutoScaling, Capture, CaptureMode, Target, check_account, check_instance_id, check_region};
pub use watch::{Options, Watched};
