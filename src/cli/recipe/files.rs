//! The recipes that come with the program.

/// Name and text of every file in `recipes/`, sorted by name.
pub const FILES: &[(&str, &str)] = &[
    ("iwae", include_str!("../../../recipes/iwae.toml")),
    ("iwae-1l", include_str!("../../../recipes/iwae-1l.toml")),
    ("iwae-1l-fixed", include_str!("../../../recipes/iwae-1l-fixed.toml")),
    ("iwae-1l-fixed-iwae-k5", include_str!("../../../recipes/iwae-1l-fixed-iwae-k5.toml")),
    ("iwae-1l-fixed-iwae-k50", include_str!("../../../recipes/iwae-1l-fixed-iwae-k50.toml")),
    ("iwae-1l-fixed-vae-k1", include_str!("../../../recipes/iwae-1l-fixed-vae-k1.toml")),
    ("iwae-1l-iwae-k5", include_str!("../../../recipes/iwae-1l-iwae-k5.toml")),
    ("iwae-1l-iwae-k50", include_str!("../../../recipes/iwae-1l-iwae-k50.toml")),
    ("iwae-1l-vae-k1", include_str!("../../../recipes/iwae-1l-vae-k1.toml")),
    ("iwae-1l-vae-k5", include_str!("../../../recipes/iwae-1l-vae-k5.toml")),
    ("iwae-1l-vae-k50", include_str!("../../../recipes/iwae-1l-vae-k50.toml")),
    ("iwae-2l", include_str!("../../../recipes/iwae-2l.toml")),
    ("iwae-2l-iwae-k5", include_str!("../../../recipes/iwae-2l-iwae-k5.toml")),
    ("iwae-2l-iwae-k50", include_str!("../../../recipes/iwae-2l-iwae-k50.toml")),
    ("iwae-2l-vae-k1", include_str!("../../../recipes/iwae-2l-vae-k1.toml")),
    ("iwae-2l-vae-k5", include_str!("../../../recipes/iwae-2l-vae-k5.toml")),
    ("iwae-2l-vae-k50", include_str!("../../../recipes/iwae-2l-vae-k50.toml")),
    ("kingma-welling", include_str!("../../../recipes/kingma-welling.toml")),
    ("pytorch-example", include_str!("../../../recipes/pytorch-example.toml")),
];
