//! Whom keys may sign for.

use std::collections::BTreeSet;

use super::ids::Audience;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audiences {
    Listed(Vec<Audience>),
    /// Every first-level directory of that name is one.
    Directories,
}

impl Audiences {
    /// The audience of this name, where there is one, or may be one.
    pub fn find(&self, name: &str) -> Option<Audience> {
        match self {
            Self::Listed(audiences) => {
                audiences.iter().find(|audience| audience.as_str() == name).cloned()
            }
            Self::Directories => is_name_of_directory(name).then(|| Audience::new(name)),
        }
    }

    /// Those that are known without a look at any directory.
    pub fn listed(&self) -> &[Audience] {
        match self {
            Self::Listed(audiences) => audiences,
            Self::Directories => &[],
        }
    }

    /// Those that are listed; where none are, those that are `known`.
    pub(crate) fn among<'a>(&self, known: impl Iterator<Item = &'a Audience>) -> Vec<Audience> {
        match self {
            Self::Listed(audiences) => audiences.clone(),
            Self::Directories => known.collect::<BTreeSet<_>>().into_iter().cloned().collect(),
        }
    }

    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Directories)
    }

    /// What [`Self::find`] finds, in words that follow "none of".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Listed(audiences) => {
                let names: Vec<&str> = audiences.iter().map(Audience::as_str).collect();
                format!("the configured ones: {}", names.join(", "))
            }
            Self::Directories => {
                "those that a directory can name: a-z, 0-9, ., _ and -, at most 64, the first one a letter \
                 or a digit"
                    .to_owned()
            }
        }
    }
}

impl From<Vec<Audience>> for Audiences {
    fn from(audiences: Vec<Audience>) -> Self {
        Self::Listed(audiences)
    }
}

impl<const N: usize> From<[Audience; N]> for Audiences {
    fn from(audiences: [Audience; N]) -> Self {
        Self::Listed(audiences.into())
    }
}

fn is_name_of_directory(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_fine = |byte: u8| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= 64 && name.bytes().next().is_some_and(is_plain) && name.bytes().all(is_fine)
}
