//! The case table: the case of each instance, its journal, what the responders have laid down about an instance, and the
//! calls that changed a contained one.
//!
//! Reads and writes one DynamoDB table in Cordon's own account, and nothing else.

mod case;
mod drift;
mod journal;
mod monitored;

pub use case::{Case, Guardrail, Released, now};
pub use drift::Drift;
pub use journal::CaseTable;
pub use monitored::{Options, Watched};
