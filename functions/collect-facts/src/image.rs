//! The image that the instance was launched from, and whose it is.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Image, ProductCodeValues};
use containment::{Error, Result, Target};
use serde_json::{Value, json};

use crate::text::shown;

const CHARACTERS: usize = 120;

/// Whose the image is, as the account of the instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// AWS made it.
    Amazon,
    /// It comes from AWS Marketplace.
    Marketplace,
    /// The account's own.
    Own,
    /// Another account's, and open to everybody.
    Public,
    /// Another account's, and shared with this one.
    Shared,
}

/// The facts about the image. Reads `DescribeImages`, disabled and deprecated images among them.
///
/// An image that no longer exists, or is no longer shared, is a fact and no error.
pub(crate) async fn image(ec2: &Client, target: &Target, id: &str) -> Result<Value> {
    let call = ec2.describe_images().image_ids(id).include_deprecated(true).include_disabled(true);
    let images = match call.send().await.map_err(Error::aws("ec2:DescribeImages", id)) {
        Ok(reply) => reply.images.unwrap_or_default(),
        Err(error) if matches!(error.code(), Some("InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable")) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(match images.first() {
        Some(image) => facts(target, id, image),
        None => json!({
            "ImageId": id, "Origin": "Gone",
            "InWords": format!("{id} is no longer visible: deregistered, or no longer shared with this account"),
        }),
    })
}

/// The aliases are AWS's own; the name is whatever the owner chose, such as that of somebody else's image.
pub(crate) fn origin(target: &Target, image: &Image) -> Origin {
    let sold = image.product_codes().iter().any(|c| c.product_code_type() == Some(&ProductCodeValues::Marketplace));
    match (image.image_owner_alias(), image.owner_id()) {
        (Some("amazon"), _) => Origin::Amazon,
        (Some("aws-marketplace"), _) => Origin::Marketplace,
        (_, Some(owner)) if owner == target.account_id => Origin::Own,
        _ if sold => Origin::Marketplace,
        _ if image.public() == Some(true) => Origin::Public,
        _ => Origin::Shared,
    }
}

fn facts(target: &Target, id: &str, image: &Image) -> Value {
    let origin = origin(target, image);
    let owner = shown(image.owner_id().unwrap_or("unknown"), CHARACTERS);
    let words = match (origin, image.public() == Some(true)) {
        (Origin::Amazon, _) => format!("{id} is Amazon's"),
        (Origin::Marketplace, _) => format!("{id} is from AWS Marketplace"),
        (Origin::Own, false) => format!("{id} is one of the account's own"),
        (Origin::Own, true) => format!("{id} is one of the account's own, and public: everybody can read it"),
        (Origin::Public, _) => format!("{id} is a public image of account {owner}"),
        (Origin::Shared, _) => format!("{id} is shared with this account by account {owner}"),
    };
    json!({
        "ImageId": id,
        "Name": image.name().map(|name| shown(name, CHARACTERS)),
        "OwnerId": owner,
        "OwnerAlias": image.image_owner_alias(),
        "CreatedAt": image.creation_date().map(|at| shown(at, 30)),
        "State": image.state().map(|state| state.as_str()),
        "Public": image.public(),
        "Origin": format!("{origin:?}"),
        "InWords": words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::describe_images::{DescribeImagesError, DescribeImagesOutput};
    use aws_sdk_ec2::types::ProductCode;
    use aws_sdk_ec2::types::builders::ImageBuilder;
    use aws_smithy_mocks::{Rule, mock, mock_client};

    fn owned_by(account: &str) -> ImageBuilder {
        Image::builder().image_id("ami-1").owner_id(account).name("base").public(false)
    }

    #[test]
    fn whose_an_image_is_comes_from_awss_alias_the_owner_and_the_launch_permission() {
        let origin = |image: ImageBuilder| origin(&Target::example(), &image.build());
        assert_eq!(origin(owned_by("123456789012")), Origin::Own);
        assert_eq!(origin(owned_by("999999999999")), Origin::Shared);
        assert_eq!(origin(owned_by("999999999999").public(true)), Origin::Public);
        let amazon = owned_by("137112412989").image_owner_alias("amazon").public(true);
        assert_eq!(origin(amazon), Origin::Amazon);
        let sold = ProductCode::builder().product_code_type(ProductCodeValues::Marketplace).build();
        assert_eq!(origin(owned_by("679593333241").product_codes(sold)), Origin::Marketplace);
    }

    #[test]
    fn an_image_that_calls_itself_amazons_is_not_amazons_and_its_name_is_cut() {
        let image = owned_by("999999999999").name("amzn2-ami-hvm".repeat(50)).build();
        let facts = facts(&Target::example(), "ami-1", &image);
        assert_eq!(facts["Origin"], "Shared");
        assert!(facts["InWords"].as_str().expect("words").ends_with("by account 999999999999"));
        assert_eq!(facts["Name"].as_str().expect("a name").chars().count(), CHARACTERS + 1);
    }

    #[test]
    fn an_own_image_that_is_public_says_so() {
        let facts = facts(&Target::example(), "ami-1", &owned_by("123456789012").public(true).build());
        assert_eq!((&facts["Origin"], &facts["Public"]), (&json!("Own"), &json!(true)));
        assert!(facts["InWords"].as_str().expect("words").contains("public"));
    }

    fn refused(code: &'static str) -> Rule {
        mock!(Client::describe_images)
            .then_error(move || DescribeImagesError::generic(ErrorMetadata::builder().code(code).build()))
    }

    #[tokio::test]
    async fn a_deregistered_image_is_a_fact_and_a_denied_call_is_an_error() {
        let gone = mock_client!(aws_sdk_ec2, [&refused("InvalidAMIID.NotFound")]);
        let facts = image(&gone, &Target::example(), "ami-1").await.expect("a fact");
        assert_eq!(facts["Origin"], "Gone");
        let empty = mock!(Client::describe_images)
            .match_requests(|r| r.include_disabled() == Some(true) && r.image_ids() == ["ami-1"])
            .then_output(|| DescribeImagesOutput::builder().build());
        let facts = image(&mock_client!(aws_sdk_ec2, [&empty]), &Target::example(), "ami-1").await.expect("a fact");
        assert_eq!(facts["Origin"], "Gone");
        let denied = mock_client!(aws_sdk_ec2, [&refused("UnauthorizedOperation")]);
        let error = image(&denied, &Target::example(), "ami-1").await.expect_err("denied");
        assert!(error.to_string().starts_with("ec2:DescribeImages on ami-1"), "{error}");
    }
}
