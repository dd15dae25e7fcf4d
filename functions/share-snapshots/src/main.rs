//! The Lambda function `share-snapshots`.

fn main() {}
