//! The Lambda function `copy-snapshots`.

fn main() {}
