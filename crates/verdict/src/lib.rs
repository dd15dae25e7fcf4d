//! How an instance stands, from step to screen: a step's outcome, an instance's report, an execution's report, the words
//! for verdicts, and the list of steps.
//!
//! Pure. Functions, the signed manifest, messages and the command line share these types; `events/output.schema.json`
//! documents them for readers that are not Rust.

mod execution;
mod instance;
mod outcome;
mod read_back;
mod steps;
mod words;

pub use execution::{Counts, ExecutionReport, LeftOut};
pub use instance::{InstanceReport, Pointer};
pub use outcome::{Change, Outcome, Reported, Status, When};
pub use read_back::{NOT_ASKED_FOR, Row, read_back, residual_risks, when};
pub use steps::{Branch, Release, StepName};
pub use words::{Verdict, Word, Workflow};
