//! The Lambda function `detach-profile`.

use detach_profile::DetachProfile;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| DetachProfile::new(config)).await
}
