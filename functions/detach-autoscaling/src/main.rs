//! The Lambda function `detach-autoscaling`.

use detach_autoscaling::DetachAutoscaling;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    containment::serve_step(|aws, target| Ok(DetachAutoscaling::new(&aws.of(target)))).await
}
