//! The Lambda function `intake`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    containment::serve(|aws, event| async move {
        let plan = intake::plan(event)?;
        if let Some(target) = plan.targets.first() {
            intake::check_region_exists(aws.home(), &target.region).await?;
        }
        Ok(plan)
    })
    .await
}
