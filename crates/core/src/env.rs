//! Environment variables as Kubernetes and the reference treat them.

/// Expands `$(NAME)` from `lookup`, the way the kubelet does for commands: `$$(NAME)` is an escape, an unknown name stays
/// as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(escaped) = tail.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references_expand_like_the_kubelet_does() {
        let lookup = |name: &str| (name == "TAG").then(|| "16.4".to_owned());
        for (given, wanted) in [
            ("repo/pg:$(TAG)", "repo/pg:16.4"),
            ("$(TAG)-$(TAG)", "16.4-16.4"),
            ("$(NONE)", "$(NONE)"),
            ("$$(TAG)", "$(TAG)"),
            ("a$b $( c", "a$b $( c"),
            ("", ""),
            ("tail$", "tail$"),
        ] {
            assert_eq!(expand(given, lookup), wanted, "{given}");
        }
    }
}
