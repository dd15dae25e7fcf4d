//! The Lambda function `preserve-volumes`.

use preserve_volumes::PreserveVolumes;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| PreserveVolumes::new(config)).await
}
