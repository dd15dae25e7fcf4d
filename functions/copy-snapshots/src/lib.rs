//! Copies shared snapshots into the forensic account, under its own key.
