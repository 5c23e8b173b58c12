//! Enums whose members are words on the wire: phases, policies, reasons.

use std::{error::Error, fmt};

/// A text that is not a member of the enum it was parsed as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The text that was given.
    pub word: String,
    /// What would have been understood.
    pub expected: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not one of {}", self.word, self.expected.join(", "))
    }
}

impl Error for UnknownWord {}

/// A closed list of words. Use it where the definition in the cluster carries the same list, so that the API server
/// keeps other words out: reading one is an error.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All members, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// All words, in the order of declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownWord { word: word.to_owned(), expected: Self::WORDS }),
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": Self::WORDS })
            }
        }
    };
}

/// An open list of words. Use it where the definition in the cluster says just "string": words we do not know are
/// kept in `Other`, so that reading an object of a newer or different writer never fails and loses nothing.
macro_rules! open_words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}

pub(crate) use {open_words, words};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::v1alpha1::{ActionPhase, BackupPhase};

    #[test]
    fn closed_words_refuse_strangers_and_name_the_members() {
        assert_eq!("Running".parse(), Ok(BackupPhase::Running));
        let error = "running".parse::<BackupPhase>().unwrap_err().to_string();
        assert_eq!(error, "\"running\" is not one of New, InProgress, Running, Completed, Failed, Deleting");
        assert!(serde_json::from_value::<BackupPhase>(json!("")).is_err());
    }

    #[test]
    fn open_words_keep_strangers() {
        let phase: ActionPhase = serde_json::from_value(json!("Paused")).unwrap();
        assert_eq!(phase, ActionPhase::Other("Paused".into()));
        assert_eq!(serde_json::to_value(&phase).unwrap(), json!("Paused"));
        assert_eq!(serde_json::to_value(ActionPhase::New).unwrap(), json!("New"));
    }

    #[test]
    fn words_obey_width_when_printed_in_columns() {
        assert_eq!(format!("[{:<9}]", BackupPhase::New), "[New      ]");
    }
}
