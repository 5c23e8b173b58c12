//! Renderers: data in, text out.

pub(crate) mod human;
pub(crate) mod object;
mod spool;
pub(crate) mod table;
mod yaml;

use clap::ValueEnum;

pub(crate) use spool::Spool;
pub(crate) use table::Table;

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// The API objects as JSON.
    Json,
    /// The API objects as YAML.
    Yaml,
    /// `<kind>.<group>/<name>`, one per line.
    Name,
}

impl Format {
    /// Whether the format is one for programs that want the objects themselves.
    pub(crate) fn is_object(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Name)
    }

    pub(crate) fn is_wide(self) -> bool {
        self == Self::Wide
    }
}
