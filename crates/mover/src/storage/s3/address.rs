//! Where a bucket is, by provider.

use crate::config::value::Options;
use crate::error::{Error, Result};

/// The region that an empty one means.
pub(super) const REGION: &str = "us-east-1";

/// Providers that list with `ListObjectsV2`. The others, and those that nobody has heard of, list with `ListObjects`,
/// which every server knows.
const LIST_WITH_V2: &[&str] = &[
    "AWS",
    "Alibaba",
    "Autonomys",
    "BizflyCloud",
    "Cellar",
    "Cloudflare",
    "Cubbit",
    "DigitalOcean",
    "Dreamhost",
    "Exaba",
    "Fastly",
    "FileLu",
    "FlashBlade",
    "GCS",
    "HCP",
    "Hetzner",
    "IDrive",
    "IONOS",
    "ImpossibleCloud",
    "Infomaniak",
    "Intercolo",
    "Leviia",
    "Liara",
    "Linode",
    "LyveCloud",
    "Mega",
    "Minio",
    "Neon",
    "OVHcloud",
    "Outscale",
    "Petabox",
    "Qiniu",
    "Rabata",
    "RackCorp",
    "Rclone",
    "RelAix",
    "Scaleway",
    "Scality",
    "Selectel",
    "Servercore",
    "SpectraLogic",
    "Storj",
    "Synology",
    "Wasabi",
    "Zadara",
    "Zata",
    "ZeroServices",
];

/// Bucket and prefix of `root`.
pub(super) fn bucket<'a>(options: &Options<'a>) -> Result<(&'a str, &'a str)> {
    let root = options.text("root").unwrap_or_default().trim_matches('/');
    let (bucket, prefix) = root.split_once('/').unwrap_or((root, ""));
    if bucket.is_empty() {
        return Err(Error::other("s3: root must name a bucket, optionally followed by /prefix"));
    }
    Ok((bucket, prefix))
}

/// The endpoint with its scheme, with the defaults of providers that have one per region.
///
/// # Errors
/// When the provider has one per region, and neither is given; when one of AWS is asked for and another one given.
pub(super) fn endpoint(options: &Options<'_>) -> Result<String> {
    let provider = options.text("provider").unwrap_or("Other");
    let region = options.text("region");
    let per_region = |before: &str, behind: &str| match region {
        Some(region) => Ok(format!("{before}{region}{behind}")),
        None => Err(Error::other(format!("s3: provider {provider} needs an endpoint or a region"))),
    };
    let endpoint = match (options.text("endpoint"), provider) {
        (Some(_), _) if is_accelerated(options)? || is_dual(options)? => {
            return Err(Error::other(
                "s3: use_accelerate_endpoint and use_dual_stack choose an endpoint of AWS: leave endpoint empty",
            ));
        }
        (Some(endpoint), _) => endpoint.to_owned(),
        (None, "Alibaba") => per_region("oss-", ".aliyuncs.com")?,
        (None, "TencentCOS") => per_region("cos.", ".myqcloud.com")?,
        (None, "HuaweiOBS") => per_region("obs.", ".myhuaweicloud.com")?,
        (None, "GCS") => "storage.googleapis.com".to_owned(),
        _ => aws(region.unwrap_or(REGION), is_dual(options)?, is_accelerated(options)?),
    };
    let endpoint = endpoint.trim_end_matches('/');
    Ok(if endpoint.starts_with("http") { endpoint.to_owned() } else { format!("https://{endpoint}") })
}

fn is_accelerated(options: &Options<'_>) -> Result<bool> {
    options.bool("use_accelerate_endpoint", false)
}

fn is_dual(options: &Options<'_>) -> Result<bool> {
    options.bool("use_dual_stack", false)
}

fn aws(region: &str, dual: bool, accelerated: bool) -> String {
    let dual = if dual { ".dualstack" } else { "" };
    // Regions of China have a domain of their own.
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    if accelerated {
        return format!("s3-accelerate{dual}.amazonaws.com");
    }
    format!("s3{dual}.{region}.amazonaws.com{china}")
}

/// Whether the bucket's name stands in front of the host's.
///
/// # Errors
/// When it must, and has a dot.
pub(super) fn virtual_host(options: &Options<'_>) -> Result<bool> {
    let path_style = options.bool("force_path_style", true)?;
    let bucket_has_dot = bucket(options)?.0.contains('.');
    if is_accelerated(options)? {
        if bucket_has_dot {
            return Err(Error::other("s3: use_accelerate_endpoint: the bucket's name may not have a dot"));
        }
        return Ok(true);
    }
    Ok(match options.text("provider").unwrap_or("Other") {
        // A dot in the bucket's name does not fit into a certificate, so those are addressed by path.
        "AWS" | "Alibaba" | "TencentCOS" | "HuaweiOBS" | "GCS" => !bucket_has_dot,
        _ => !path_style && !bucket_has_dot,
    })
}

/// # Errors
/// When `list_version` is none.
pub(super) fn lists_with_v1(options: &Options<'_>) -> Result<bool> {
    Ok(match options.text("list_version").unwrap_or("0") {
        "0" => !LIST_WITH_V2.contains(&options.text("provider").unwrap_or("Other")),
        "1" => true,
        "2" => false,
        other => return Err(Error::other(format!("s3: list_version {other:?} is none of 0, 1, 2"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn with<T>(lines: &str, ask: impl Fn(&Options<'_>) -> T) -> T {
        ask(&Options::new(&Ini::parse(&format!("[storage]\ntype = s3\n{lines}")).unwrap()))
    }

    #[test]
    fn providers_have_their_addresses() {
        for (lines, address, by_host) in [
            ("provider = Alibaba\nregion = cn-hangzhou\nroot = b", "https://oss-cn-hangzhou.aliyuncs.com", true),
            ("provider = TencentCOS\nregion = r\nroot = b", "https://cos.r.myqcloud.com", true),
            ("provider = Minio\nendpoint = http://minio:9000/\nroot = b", "http://minio:9000", false),
            ("endpoint = s3.example\nforce_path_style = false\nroot = b/p", "https://s3.example", true),
            ("provider = AWS\nregion = eu-west-1\nroot = b", "https://s3.eu-west-1.amazonaws.com", true),
            ("provider = AWS\nregion = eu-west-1\nroot = b.c", "https://s3.eu-west-1.amazonaws.com", false),
            ("provider = AWS\nroot = b", "https://s3.us-east-1.amazonaws.com", true),
            ("provider = AWS\nregion = cn-north-1\nroot = b", "https://s3.cn-north-1.amazonaws.com.cn", true),
            (
                "provider = AWS\nregion = eu-west-1\nuse_dual_stack = true\nroot = b",
                "https://s3.dualstack.eu-west-1.amazonaws.com",
                true,
            ),
            ("use_accelerate_endpoint = true\nroot = b", "https://s3-accelerate.amazonaws.com", true),
        ] {
            assert_eq!(with(lines, endpoint).unwrap(), address, "{lines}");
            assert_eq!(with(lines, virtual_host).unwrap(), by_host, "{lines}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_had_is_an_error() {
        let error = |lines| with(lines, endpoint).unwrap_err().to_string();
        assert_eq!(error("provider = Alibaba\nroot = b"), "s3: provider Alibaba needs an endpoint or a region");
        assert!(error("endpoint = x\nuse_dual_stack = true\nroot = b").contains("leave endpoint empty"));
        let dotted = with("use_accelerate_endpoint = true\nroot = b.c", virtual_host);
        assert!(dotted.unwrap_err().to_string().contains("may not have a dot"));
    }

    #[test]
    fn old_and_unknown_servers_are_listed_the_old_way() {
        for (lines, old) in [
            ("provider = Other", true),
            ("", true),
            ("provider = Nobody", true),
            ("provider = Ceph", true),
            ("provider = HuaweiOBS", true),
            ("provider = AWS", false),
            ("provider = Minio", false),
            ("provider = Minio\nlist_version = 1", true),
            ("provider = Ceph\nlist_version = 2", false),
        ] {
            assert_eq!(with(lines, lists_with_v1).unwrap(), old, "{lines}");
        }
        assert!(with("list_version = 3", lists_with_v1).is_err());
    }
}
