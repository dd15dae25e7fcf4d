//! A dev-dependency of every crate, and empty: it keeps features the same for one crate and for the whole workspace.
//!
//! Cargo enables what the selected packages ask for. Without this, `cargo test -p` of each crate would compile EC2's client
//! with features of its own, for minutes. Nothing that ships depends on it.
