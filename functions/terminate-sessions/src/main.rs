//! The Lambda function `terminate-sessions`.

fn main() {}
