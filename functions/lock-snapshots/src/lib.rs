//! Locks the copies in the forensic account.
