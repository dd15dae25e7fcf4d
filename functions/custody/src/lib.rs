//! The chain of custody: the manifest of a case, its signature, and the check of both.
//!
//! Pure: it knows neither AWS nor a file system, so that a check needs neither.

mod manifest;

pub use manifest::{Blocks, Change, Item, ItemState, Lock, Manifest, Previous, Snapshot, Step};
