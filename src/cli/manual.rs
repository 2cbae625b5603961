//! The manual pages.

use std::io::{self, Write as _};
use std::path::Path;

use clap::builder::Resettable;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, print};

/// What is the same on every page, in man(7).
const COMMON: &str = r#".SH "EXIT STATUS"
.TP
0
Done, and everything is well.
.TP
1
Failed, or something is not well: the message on stderr says what, why, and what to do.
.TP
2
Wrong usage or configuration.
.TP
3
An order was recorded, and a daemon that runs did not confirm within 5 s that it serves it.
.SH FILES
.TP
\fIKEYS\fR/\fISTEM\fR.pem, .key, .crt, .der, .json
A key pair, or its public half.
.TP
\fIKEYS\fR/\fISTEM\fR.meta.json
Its attributes: key id, audience, algorithm, dates.
.TP
\fIKEYS\fR/.jwksd
The ledger, unless \-\-state names another directory.
.TP
\fISTATE\fR/current/\fIAUDIENCE\fR.json
The key to sign with.
.SH ENVIRONMENT
.TP
JWKSD_CONFIG
The configuration file, where \-\-config names none.
.TP
JWKSD_\fISECTION\fR_\fIMEMBER\fR
A setting, as in JWKSD_KEYS_DIRS. Flags win over it, and it wins over the file; jwksd config lists them.
.TP
NO_COLOR, COLUMNS
No colours on a terminal where set; how wide tables may be.
"#;

/// Prints all pages, or writes each into `directory`.
pub(super) fn man(directory: Option<&Path>) -> io::Result<()> {
    let mut command = Cli::command().name("jwksd");
    // So that subcommands have the flags of all.
    command.build();
    let mut pages = Vec::new();
    pages_of(&command, "jwksd", &mut pages)?;
    if let Some(directory) = directory {
        crate::ownership::become_owner(directory)?;
        std::fs::create_dir_all(directory)?;
        return pages.iter().try_for_each(|(name, page)| {
            std::fs::write(directory.join(format!("{name}.1")), page)
        });
    }
    print(&pages.into_iter().flat_map(|(_, page)| page).collect::<Vec<u8>>())
}

fn pages_of(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let mut page = Vec::new();
    // What stands below the help has a section of its own here.
    let shown = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned())
        .after_help(Resettable::Reset);
    Man::new(shown).render(&mut page)?;
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        writeln!(page, ".SH EXAMPLES\n.nf")?;
        for example in examples.lines().skip(1) {
            writeln!(page, "{}", example.replace('\\', "\\e").replace('-', "\\-"))?;
        }
        writeln!(page, ".fi")?;
    }
    page.extend(COMMON.as_bytes());
    pages.push((name.to_owned(), page));
    let is_page = |one: &&Command| !one.is_hide_set() && one.get_name() != "help";
    for subcommand in command.get_subcommands().filter(is_page) {
        pages_of(subcommand, &format!("{name}-{}", subcommand.get_name()), pages)?;
    }
    Ok(())
}
