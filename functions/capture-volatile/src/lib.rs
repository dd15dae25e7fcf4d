//! Captures what only the running host can tell.
