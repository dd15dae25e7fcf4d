//! The Lambda function `capture-volatile`.

fn main() {}
