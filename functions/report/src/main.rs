//! The Lambda function `report`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    containment::serve(|_, event| async move { report::handle(event) }).await
}
