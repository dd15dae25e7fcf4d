//! The Lambda function `create-flow-logs`.

fn main() {}
