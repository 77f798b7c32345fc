//! Defines `hallmark profile`.

use clap::Subcommand;

/// `hallmark profile`
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List the configured profiles, then the presets.
    List,
    /// Show a profile with all that its preset gives it, or else the preset of this name.
    Show {
        /// The name of the profile or preset.
        name: String,
        /// Show the preset, also where a profile has the same name.
        #[arg(long)]
        preset: bool,
        /// Print an example of a certificate as openssl would; nothing is issued.
        #[arg(long)]
        example: bool,
    },
}
