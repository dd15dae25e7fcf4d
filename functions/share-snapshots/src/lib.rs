//! Shares encrypted snapshots with the forensic account, and with nobody else.
