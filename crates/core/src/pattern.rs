//! How templates name component definitions and service versions: by their beginning or by a regular expression.

use regex_lite::Regex;

/// Whether `pattern` means `name`: the whole name, its beginning, or a regular expression that is found anywhere in it. A
/// dot counts as a sign of an expression, so `mysql-8.0` is one, too.
pub fn matches(pattern: &str, name: &str) -> bool {
    if pattern.is_empty() {
        return false;
    }
    name.starts_with(pattern)
        || pattern.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
            && Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

/// The value whose versions mean `version`: an exact match of any entry wins over every other; an empty value is none.
pub fn by_version<'a>(entries: &[(&'a [String], &'a str)], version: &str) -> Option<&'a str> {
    let exact = || entries.iter().find(|(versions, _)| versions.iter().any(|listed| listed == version));
    let like = || entries.iter().find(|(versions, _)| versions.iter().any(|listed| matches(listed, version)));
    exact().or_else(like).map(|(_, value)| *value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_3_6_definitions_are_named_in_full_by_prefix_or_by_expression() {
        assert!(matches("mysql-8.0-1.0.2", "mysql-8.0-1.0.2"));
        assert!(matches("mysql-", "mysql-8.0-1.0.2"));
        assert!(matches(r"^mysql-8\.\d+", "mysql-8.0-1.0.2"));
        assert!(matches("8.0", "apecloud-mysql-8.0"), "a dot makes it an expression, which is not anchored");
        assert!(!matches("mysql", "apecloud-mysql"), "a plain text is a prefix only");
        assert!(!matches("(", "mysql") && !matches("", "mysql"));
    }

    #[test]
    fn behaviour_3_6_an_exact_version_wins() {
        let (short, long) = (["8".to_owned()], ["8.0.30".to_owned(), "8.0".to_owned()]);
        let entries = [(short.as_slice(), "any-8"), (long.as_slice(), "the-8.0")];
        assert_eq!(by_version(&entries, "8.0.30"), Some("the-8.0"));
        assert_eq!(by_version(&entries, "8.4"), Some("any-8"));
        assert_eq!(by_version(&entries, "5.7"), None);
        assert_eq!(by_version(&[(short.as_slice(), "")], "8"), None, "an empty value is no variable");
    }
}
