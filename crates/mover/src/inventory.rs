//! What lies below a directory of the repository, in the order of the paths, however much it is.

use crate::error::{Error, Result};
use crate::rpath::below;
use crate::sort::{Sorted, Sorter};
use crate::storage::Store;

/// An object, by its path below the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) path: String,
    /// As the back end tells it, in bytes.
    pub(crate) size: i64,
}

/// Objects in order.
#[derive(Debug)]
pub(crate) struct Inventory(Sorted);

impl Inventory {
    /// Lists everything below `dir`, hidden objects too.
    ///
    /// # Errors
    /// When the back end refuses, or there is no room for temporary files.
    pub(crate) async fn take(store: &Store, dir: &str) -> Result<Self> {
        let mut found = Sorter::new();
        let mut keep = |file: crate::storage::Entry| match below(&file.key, dir) {
            Some(path) => found.push(path, &file.size.to_le_bytes()),
            None => Ok(()),
        };
        store.objects(dir, &mut keep).await?;
        found.finish().map(Self)
    }

    /// The next object.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Object>> {
        let Some(record) = self.0.next()? else { return Ok(None) };
        let size = record.value.first_chunk().ok_or_else(|| Error::other("the temporary file is damaged"))?;
        Ok(Some(Object { path: record.key, size: i64::from_le_bytes(*size) }))
    }
}
