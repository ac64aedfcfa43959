//! Where an expression is evaluated: `l=2, x=1` or `w=[1 2; 3 4], x=[1; 2]`.

use crate::engine::error::{Error, Result};

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedValue {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Reads names with values.
///
/// # Errors
/// [`Error::Argument`] that names what cannot be read.
pub(super) fn parse(text: &str) -> Result<Vec<NamedValue>> {
    let mut found: Vec<NamedValue> = Vec::new();
    for part in parts(text)? {
        let (name, value) =
            part.split_once('=').ok_or_else(|| wrong(&part, "NAME=VALUE, as in l=2, x=1 or w=[1 2; 3 4], x=[1; 2]"))?;
        let name = name.trim();
        let (shape, values) = array(value.trim())?;
        let fine =
            name.chars().enumerate().all(|(i, c)| c.is_alphanumeric() && (i > 0 || c.is_alphabetic()) || c == '_');
        if name.is_empty() || !fine || name == "pi" {
            return Err(wrong(name, "a name of letters, digits and _ that begins with a letter and is not pi"));
        }
        if found.iter().any(|known| known.name == name) {
            return Err(wrong(name, "each name once"));
        }
        found.push(NamedValue { name: name.into(), shape, values });
    }
    Ok(found)
}

fn wrong(found: &str, expected: &str) -> Error {
    Error::argument("at", format!("\"{found}\""), expected)
}

/// What stands between commas that are not within brackets.
fn parts(text: &str) -> Result<Vec<String>> {
    let (mut parts, mut depth) = (vec![String::new()], 0usize);
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1).ok_or_else(|| wrong(text, "a [ for every ]"))?,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("one part at least").push(c);
    }
    if depth > 0 {
        return Err(wrong(text, "a ] for every ["));
    }
    Ok(parts.into_iter().filter(|part| !part.trim().is_empty()).collect())
}

/// A number; a vector `[1 2 3]`; a matrix, rows with `;` between them or behind the only one.
fn array(text: &str) -> Result<(Vec<usize>, Vec<f64>)> {
    let number =
        |word: &str| word.replace('−', "-").parse::<f64>().map_err(|_| wrong(word, "a number, as in 2 or -0.5"));
    let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Ok((Vec::new(), vec![number(text)?]));
    };
    let row = |text: &str| -> Result<Vec<f64>> {
        text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()).map(number).collect()
    };
    if !inner.contains(';') {
        let values = row(inner)?;
        return match values.len() {
            0 => Err(wrong(text, "at least one number between brackets")),
            n => Ok((vec![n], values)),
        };
    }
    let inner = inner.trim_end().strip_suffix(';').unwrap_or(inner);
    let rows: Vec<Vec<f64>> = inner.split(';').map(row).collect::<Result<_>>()?;
    let columns = rows[0].len();
    if columns == 0 || rows.iter().any(|row| row.len() != columns) {
        return Err(wrong(text, "rows of one length, as in [1 2; 3 4]"));
    }
    Ok((vec![rows.len(), columns], rows.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_vectors_and_matrices_are_read() {
        let found = parse("l=2, x = -0.5,w=[1 2; 3 4],c=[1;2], r=[1,2;], v=[1, 2 3]").unwrap();
        let shapes: Vec<&[usize]> = found.iter().map(|a| a.shape.as_slice()).collect();
        assert_eq!(shapes, [&[][..], &[], &[2, 2], &[2, 1], &[1, 2], &[3]]);
        assert_eq!(found[2].values, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(found[1].values, [-0.5]);
        assert!(parse("  ").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, words) in [
            ("l", "NAME=VALUE"),
            ("l=two", "\"two\""),
            ("l=1,l=2", "each name once"),
            ("l=[1 2; 3]", "rows of one length"),
            ("l=[1 2", "a ] for every ["),
            ("l=1]", "a [ for every ]"),
            ("l=[]", "at least one"),
            ("2=1", "begins with a letter"),
            ("pi=3", "not pi"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
