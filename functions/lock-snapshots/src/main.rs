//! The Lambda function `lock-snapshots`.

fn main() {}
