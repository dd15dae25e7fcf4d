//! The Lambda function `create-snapshots`.

use create_snapshots::CreateSnapshots;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|_, config, _| CreateSnapshots::new(config)).await
}
