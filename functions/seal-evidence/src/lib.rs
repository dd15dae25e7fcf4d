//! Seals a case: its manifest, signed, and its report.
