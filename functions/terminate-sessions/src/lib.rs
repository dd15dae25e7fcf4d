//! Ends the Session Manager sessions to the host.
