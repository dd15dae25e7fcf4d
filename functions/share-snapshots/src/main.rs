//! The Lambda function `share-snapshots`.

use containment::Step;
use share_snapshots::ShareSnapshots;
use snapshots::key_in_region;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_forensic_step(|aws, forensic, target| async move {
        let key = key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), &target);
        Ok(ShareSnapshots::new(&aws.of(&target, ShareSnapshots::NAME).await?, &forensic, key))
    })
    .await
}
