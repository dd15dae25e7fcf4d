//! The Lambda function `deregister-targets`.

use deregister_targets::DeregisterTargets;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| DeregisterTargets::new(config)).await
}
