//! The Lambda function `collect-facts`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { collect_facts::handle(&aws, event).await }).await
}
