//! The Lambda function `isolate-network`.

use isolate_network::IsolateNetwork;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|_, config, _| IsolateNetwork::new(config)).await
}
