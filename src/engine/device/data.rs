//! Data sets by name, alike on every back end.

use std::collections::BTreeMap;

use super::Values;
use crate::engine::error::{Error, Result};

/// The number of rows of `columns` numbers that a data set has.
pub(crate) fn whole_rows(name: &str, values: Values<'_>, columns: usize) -> Result<usize> {
    let count = values.len();
    let rows = count.checked_div(columns).filter(|rows| rows * columns == count);
    rows.filter(|&rows| u32::try_from(rows).is_ok()).ok_or_else(|| {
        let problem = format!("{count} numbers are not whole rows of {columns} (at most 2^32 − 1 rows)");
        Error::Slot { name: name.into(), problem }
    })
}

/// What was loaded under each name, in rows of so many numbers.
pub(crate) struct DataSets<D>(BTreeMap<String, (D, usize)>);

impl<D> Default for DataSets<D> {
    fn default() -> DataSets<D> {
        DataSets(BTreeMap::new())
    }
}

impl<D> DataSets<D> {
    pub(crate) fn insert(&mut self, name: &str, data: D, columns: usize) {
        self.0.insert(name.into(), (data, columns));
    }

    /// What is there, if its rows have `columns` numbers.
    #[cfg(feature = "cuda")]
    pub(crate) fn replaceable(&mut self, name: &str, columns: usize) -> Option<&mut D> {
        self.0.get_mut(name).filter(|(_, known)| *known == columns).map(|(data, _)| data)
    }

    /// The data of a name for a graph that reads rows of `columns`.
    pub(crate) fn get(&self, name: &str, columns: usize) -> Result<&D> {
        let wrong = |problem: String| Error::Slot { name: name.into(), problem };
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.0.get(name) {
            None if self.0.is_empty() => {
                Err(wrong("no data was loaded under this name, and none under another".into()))
            }
            None => Err(wrong(format!("no data was loaded under this name; known are {}", known()))),
            Some((_, found)) if *found != columns => {
                Err(wrong(format!("rows of {found} numbers were loaded, the graph reads rows of {columns}")))
            }
            Some((data, _)) => Ok(data),
        }
    }
}
