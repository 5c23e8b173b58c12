//! Every key that the reference knows for S3, and what becomes of it here.

/// Keys that mean something here.
pub(super) const USED: &[&str] = &[
    "provider",
    "env_auth",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "shared_credentials_file",
    "profile",
    "role_arn",
    "role_session_name",
    "role_session_duration",
    "role_external_id",
    "sts_endpoint",
    "region",
    "endpoint",
    "use_dual_stack",
    "use_accelerate_endpoint",
    "force_path_style",
    "chunk_size",
    "acl",
    "storage_class",
    "server_side_encryption",
    "sse_kms_key_id",
    "sse_customer_algorithm",
    "sse_customer_key",
    "sse_customer_key_base64",
    "sse_customer_key_md5",
    "list_version",
    "requester_pays",
];

/// Keys that may say what they like: what is stored, read and listed stays the same.
pub(super) const IGNORED: &[&str] = &[
    // How an upload is cut into parts is decided here, and nothing of a failed one is to stay.
    "upload_concurrency",
    "upload_cutoff",
    "copy_cutoff",
    "max_upload_parts",
    "use_multipart_uploads",
    "leave_parts_on_error",
    "memory_pool_flush_time",
    "memory_pool_use_mmap",
    // Buckets are never made here: a missing one is an error that says so.
    "no_check_bucket",
    "bucket_acl",
    "location_constraint",
    "use_already_exists",
    "bucket_object_lock_enabled",
    // How the protocol is spoken, where it can be spoken in several ways.
    "list_chunk",
    "list_url_encode",
    "use_unsigned_payload",
    "use_presigned_request",
    "use_accept_encoding_gzip",
    "sign_accept_encoding",
    "use_x_id",
    "use_data_integrity_protections",
    "directory_bucket",
    "disable_http2",
    "download_url",
    "sdk_log_mode",
    // Checks of the reference on its own work. Here sizes are checked always, and digests when a backup is verified.
    "use_multipart_etag",
    "disable_checksum",
    "no_head",
    "no_head_object",
    "might_gzip",
    // Objects that nobody but the reference looks at, and headers that it keeps for itself.
    "directory_markers",
    "no_system_metadata",
    // How letters are written that no name of a backup has.
    "encoding",
    // Only mean something beside keys that are refused.
    "list_versions_oldest_first",
    "object_lock_set_after_upload",
    "object_lock_supported",
];

const LOCKS: &str = "objects are not locked one by one: give the bucket a default retention";
const VERSIONS: &str = "only the current version of an object is read";
const IBM: &str = "IBM's own way of signing is not known here: make an HMAC key pair";

/// Keys whose wish is not fulfilled here, so that going on would do something else.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("v2_auth", "signatures of version 2 are not made any more"),
    ("use_arn_region", "buckets are named by name, not by ARN"),
    ("decompress", "objects come back as they are stored: use pull -d"),
    ("versions", VERSIONS),
    ("version_at", VERSIONS),
    ("version_deleted", VERSIONS),
    ("object_lock_mode", LOCKS),
    ("object_lock_retain_until_date", LOCKS),
    ("object_lock_legal_hold_status", LOCKS),
    ("bypass_governance_retention", "what is locked is not deleted"),
    ("ibm_api_key", IBM),
    ("ibm_resource_instance_id", IBM),
    ("ibm_iam_endpoint", IBM),
];
