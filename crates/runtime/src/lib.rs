//! How functions run in Lambda, and how they get into AWS accounts: the only crate that knows the runtime, the
//! environment and the roles.

mod member;
mod serve;

pub use serve::{
    Aws, Caller, answer, run_release, run_reversible, serve, serve_forensic_step, serve_reversible_step, serve_step,
};
