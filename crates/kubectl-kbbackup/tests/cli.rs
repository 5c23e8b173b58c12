//! What a person sees without a cluster: help, usage errors, connection errors, and their exit codes.
//! `TRYCMD=overwrite cargo test -p kubectl-kbbackup --test cli` brings the cases up to date.

#[test]
fn help_and_errors() {
    trycmd::TestCases::new()
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .env("HOME", "/nonexistent")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .case("tests/cmd/*.trycmd");
}
