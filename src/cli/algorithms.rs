//! Algorithms as people write them.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use crate::keys::Algorithm;
use crate::operations::similar_algorithm;

/// Reads the name of an algorithm exactly, and says which one may be meant by another name.
#[derive(Clone)]
pub(super) struct AlgorithmParser;

impl TypedValueParser for AlgorithmParser {
    type Value = Algorithm;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Algorithm, Error> {
        let name = value.to_string_lossy();
        name.parse().map_err(|_| {
            let names = Algorithm::ALL.map(|algorithm| algorithm.as_str().to_owned());
            let near = similar_algorithm(&name);
            let mut error = Error::new(ErrorKind::InvalidValue).with_cmd(command);
            let mut say = |kind, value| {
                error.insert(kind, value);
            };
            let argument = argument.map_or_else(String::new, ToString::to_string);
            say(ContextKind::InvalidArg, ContextValue::String(argument));
            say(ContextKind::InvalidValue, ContextValue::String(name.escape_default().to_string()));
            say(ContextKind::ValidValue, ContextValue::Strings(names.to_vec()));
            if let Some(near) = near {
                say(ContextKind::SuggestedValue, ContextValue::String(near));
            }
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Algorithm::ALL.iter().map(|one| PossibleValue::new(one.as_str()))))
    }
}
