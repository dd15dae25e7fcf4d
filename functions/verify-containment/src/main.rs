//! The Lambda function `verify-containment`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { verify_containment::handle(&aws, event).await }).await
}
