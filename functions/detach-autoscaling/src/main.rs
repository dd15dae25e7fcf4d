//! The Lambda function `detach-autoscaling`.

use detach_autoscaling::DetachAutoscaling;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|_, config, _| DetachAutoscaling::new(config)).await
}
