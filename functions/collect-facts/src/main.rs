//! The Lambda function `collect-facts`.

fn main() {}
