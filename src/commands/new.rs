//! `ropeway new`

use super::print;
use crate::cli::{Context, Exit};
use crate::{Context as _, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const MAIN: &str = include_str!("../../examples/custom_stage.rs");
const PIPELINE: &str = include_str!("../../examples/custom_stage.toml");

/// `ropeway new PATH`
#[derive(clap::Args)]
pub(crate) struct New {
    /// The folder to make; its name is the project's
    path: PathBuf,
    /// A checkout of Ropeway to build against [default: the one that this binary was built from, if it is still there,
    /// else the registry]
    #[arg(long, value_name = "FOLDER")]
    ropeway: Option<PathBuf>,
}

impl New {
    pub(crate) fn execute(self, _: &Context) -> Exit {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(good) {
            return Err(Error::usage(format!("{name:?} can't be the name of a project"))
                .help("use letters, digits, '-' and '_', and begin with a letter"));
        }
        if self.path.exists() {
            return Err(Error::usage(format!("{} exists already", self.path.display())).help("choose another name"));
        }
        let files = [
            ("Cargo.toml", manifest(name, self.ropeway.as_deref())?),
            ("src/main.rs", MAIN.to_owned()),
            ("pipeline.toml", PIPELINE.to_owned()),
            (".gitignore", "/target\n.ropeway/\n".to_owned()),
        ];
        fs::create_dir_all(self.path.join("src")).context(format!("can't make {}", self.path.display()))?;
        for (file, text) in files {
            let path = self.path.join(file);
            fs::write(&path, text).context(format!("can't write {}", path.display()))?;
        }
        print(format!("made {0}\nnext: cd {0} && cargo run --release -- run pipeline.toml", self.path.display()))?;
        Ok(0)
    }
}

/// The project's manifest. It takes over Ropeway's profile, so that its dependencies build as fast.
fn manifest(name: &str, checkout: Option<&Path>) -> Result<String> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = match checkout {
        Some(folder) => Some(fs::canonicalize(folder).context(format!("can't find {}", folder.display()))?),
        None => built_from.join("Cargo.toml").exists().then(|| built_from.to_owned()),
    };
    let version = env!("CARGO_PKG_VERSION");
    let ropeway = match source {
        Some(folder) => format!("{{ path = {:?} }}", folder.display().to_string()),
        None => format!("{version:?}"),
    };
    let profile = include_str!("../../Cargo.toml").split_once("[profile.release]");
    let profile =
        profile.and_then(|(_, rest)| rest.split_once("\n[package]\n")).map_or("", |(profile, _)| profile.trim());
    Ok(format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"

[dependencies]
ropeway = {ropeway}
schemars = "1"
serde = {{ version = "1", features = ["derive"] }}

[profile.release]
{profile}
"#
    ))
}
