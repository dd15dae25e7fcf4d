//! The Lambda function `seal-evidence`.

fn main() {}
