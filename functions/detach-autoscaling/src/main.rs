//! The Lambda function `detach-autoscaling`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { detach_autoscaling::handle(&aws, event).await }).await
}
