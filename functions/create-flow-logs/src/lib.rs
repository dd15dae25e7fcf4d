//! Switches flow logs on for interfaces that have none.
