//! File name patterns of `--name`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether the whole name matches. A malformed pattern matches nothing.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    is_well_formed(&pattern) && match_here(&pattern, &name)
}

fn is_well_formed(pattern: &[char]) -> bool {
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            '\\' if at + 1 == pattern.len() => return false,
            '\\' => at += 2,
            '[' => match class(&pattern[at + 1..], '\0') {
                Some((_, used)) => at += 1 + used,
                None => return false,
            },
            _ => at += 1,
        }
    }
    true
}

/// Iterative with one point of return, so that many stars do not take exponential time.
fn match_here(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        if at < pattern.len() && pattern[at] == '*' {
            back = Some((at, read));
            at += 1;
            continue;
        }
        if at == pattern.len() && read == name.len() {
            return true;
        }
        if let Some(used) = (at < pattern.len() && read < name.len()).then(|| one(&pattern[at..], name[read])).flatten()
        {
            at += used;
            read += 1;
            continue;
        }
        match back {
            Some((star, from)) if from < name.len() => {
                back = Some((star, from + 1));
                (at, read) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// How much of the pattern one letter uses up.
fn one(pattern: &[char], letter: char) -> Option<usize> {
    match pattern[0] {
        '?' => (letter != '/').then_some(1),
        '[' => class(&pattern[1..], letter).and_then(|(hit, used)| hit.then_some(1 + used)),
        '\\' => (*pattern.get(1)? == letter).then_some(2),
        other => (other == letter).then_some(1),
    }
}

/// Reads a class behind its `[`: whether the letter is in it, and its length with the `]`.
fn class(pattern: &[char], letter: char) -> Option<(bool, usize)> {
    let negated = pattern.first() == Some(&'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    let mut ranges = 0;
    let member = |at: &mut usize| -> Option<char> {
        let mut member = *pattern.get(*at)?;
        if member == '-' || member == ']' {
            return None;
        }
        if member == '\\' {
            *at += 1;
            member = *pattern.get(*at)?;
        }
        *at += 1;
        Some(member)
    };
    while ranges == 0 || *pattern.get(at)? != ']' {
        let low = member(&mut at)?;
        let high = if pattern.get(at) == Some(&'-') {
            at += 1;
            member(&mut at)?
        } else {
            low
        };
        hit |= (low..=high).contains(&letter);
        ranges += 1;
    }
    Some((hit != negated, at + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt2", false),
            ("?", "ab", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("[", "[", false),
            ("a[", "b", false),
            ("[]a]", "]", false),
            ("[\\]a]", "]", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    /// The same question, answered by trying everything.
    fn slowly(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skipped| slowly(rest, &name[skipped..])),
            Some(('\\', [escaped, rest @ ..])) => name.first() == Some(escaped) && slowly(rest, &name[1..]),
            Some((letter, rest)) => {
                name.first().is_some_and(|here| *letter == '?' || letter == here) && slowly(rest, &name[1..])
            }
        }
    }

    proptest! {
        #![proptest_config(crate::testing::cases(512))]

        #[test]
        fn the_fast_answer_is_the_slow_one(pattern in "([a-c*?]|\\\\[ab*]){0,7}", name in "[a-c*]{0,8}") {
            let (letters, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), slowly(&letters, &text), "{} {}", pattern, name);
        }

        /// Malformed ones too, and in a time that does not explode.
        #[test]
        fn nothing_makes_it_stumble(pattern in "[a\\[\\]^\\\\*?-]{0,40}", name in "a{0,60}") {
            matches(&pattern, &name);
        }
    }
}
