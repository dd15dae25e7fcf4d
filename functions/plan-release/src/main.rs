//! The Lambda function `plan-release`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { plan_release::handle(&aws, event).await }).await
}
