//! Collects what an investigator asks about the instance.
