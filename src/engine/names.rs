//! Names of plain choices, as people type them and as files have them.

/// `Display`, `FromStr` and the list of all of an enum without fields: a name for each, and the field that an error names.
macro_rules! names {
    ($type:ident, $field:literal: $($variant:ident $name:literal),* $(,)?) => {
        impl $type {
            /// Every choice.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// The name, as in [`FromStr`](std::str::FromStr) and in configuration files.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name),*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::engine::error::Error;

            fn from_str(text: &str) -> $crate::engine::error::Result<$type> {
                let known = $type::ALL.iter().copied().find(|v| v.name() == text);
                known.ok_or_else(|| {
                    let names = [$($name),*].join(", ");
                    $crate::engine::error::Error::argument($field, format!("\"{text}\""), format!("one of {names}"))
                })
            }
        }
    };
}

pub(crate) use names;
