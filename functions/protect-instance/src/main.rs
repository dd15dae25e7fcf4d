//! The Lambda function `protect-instance`.

use protect_instance::ProtectInstance;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| ProtectInstance::new(config)).await
}
