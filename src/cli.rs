//! The command line: what can be typed, and what a process ends with.

use crate::commands;
use crate::stage::Registry;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::{Error, Fault};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ropeway_framework::parse_size;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Machine-learning pipelines that give the same bytes at any scale.
#[derive(Parser)]
#[command(version, about, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline: only what is not known yet
    Run(commands::run::Run),
    /// Find the mistakes in a pipeline file, all at once, without running it
    Check(commands::check::Check),
    /// Say what a run would do
    Plan(commands::plan::Plan),
    /// Show runs, and what they gave
    Show(commands::show::Show),
    /// List the stages that a pipeline can use, or describe one
    Stages(commands::stages::Stages),
    /// Serve trained models over HTTP (Open Inference Protocol v2)
    Serve(commands::serve::Serve),
    /// Send rows through a model: rows in, predictions out
    Infer(commands::infer::Infer),
    /// Write an artifact as CSV, Parquet, Arrow, safetensors or JSON
    Export(commands::export::Export),
    /// Work for a run: join it from here, or from another machine
    Worker(commands::worker::Worker),
    /// See many runs through, side by side on the same workers: `ropeway run --join` asks for them
    Coordinator(commands::coordinator::Coordinator),
    /// Remove from the store what no kept result needs
    Gc(commands::gc::Gc),
    /// Print the JSON Schema of pipeline files, for editors
    Schema(commands::schema::SchemaCommand),
    /// Begin a project with a stage of its own
    New(commands::new::New),
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// A pipeline file, and what is different about it this time.
#[derive(Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline file
    pub(crate) pipeline: PathBuf,
    /// Change a value: `seed=3`, `fit.epochs=5`, `fit.needs.cpus=2`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Another seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Another store: memory://, file://PATH, s3://BUCKET/PREFIX, …
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

impl PipelineArgs {
    /// What is different about the pipeline this time, each `KEY=VALUE`.
    pub(crate) fn all_overrides(&self) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        self.overrides.iter().cloned().chain(seed).collect()
    }
}

/// What a process that computes holds, and where.
#[derive(Args)]
pub(crate) struct TierArgs {
    /// Hold so much of artifacts in memory at most, in each process; past it they go to disk, and stages wait
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256MiB")]
    pub(crate) memory: u64,
    /// Where all processes of this machine share what they read from a remote store [default: ~/.cache/ropeway]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How much they keep there
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "10GiB")]
    cache_size: u64,
}

impl TierArgs {
    /// The store with these limits.
    pub(crate) fn limit(&self, store: Store) -> Store {
        let store = store.with_memory(self.memory);
        match self.cache() {
            Some((folder, limit)) => store.with_machine(&folder, limit),
            None => store,
        }
    }

    /// The cache of this machine, and how many bytes it may have.
    pub(crate) fn cache(&self) -> Option<(PathBuf, u64)> {
        Some((self.cache.clone().or_else(cache_folder)?, self.cache_size))
    }
}

/// Where programs of this user keep what can be had again.
fn cache_folder() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    caches.map(|folder| folder.join("ropeway"))
}

/// What every command is given.
pub(crate) struct Context {
    pub(crate) registry: Arc<Registry>,
}

/// How a command ended, if not with an error.
pub(crate) type Exit = crate::Result<u8>;

/// Runs the program: every command, over the stages of a registry.
///
/// Exit codes: 0 done, 1 a stage failed, 2 wrong pipeline or usage, 3 store or fleet unavailable, 70 a bug of ours, 130
/// interrupted.
pub fn main(registry: Registry) -> ExitCode {
    ExitCode::from(run(std::env::args_os(), registry))
}

/// Runs the command that the arguments name, the first of which is the program; gives the exit code.
fn run(arguments: impl Iterator<Item = OsString>, registry: Registry) -> u8 {
    crate::allocator::allow_huge_pages();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout.
            let code = if error.use_stderr() { Fault::Usage.exit_code() } else { 0 };
            let _ = error.print();
            return code;
        }
    };
    let telemetry = match Telemetry::start() {
        Ok(telemetry) => telemetry,
        Err(error) => return report(&error),
    };
    let context = Context { registry: Arc::new(registry) };
    let ended = catch_unwind(AssertUnwindSafe(|| dispatch(cli.command, &context)));
    let code = match ended {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => report(&error),
        Err(_) => {
            complain("this is a bug of Ropeway; please report it with the lines above");
            Fault::Bug.exit_code()
        }
    };
    telemetry.stop();
    code
}

fn dispatch(command: Command, context: &Context) -> Exit {
    match command {
        Command::Run(command) => command.execute(context),
        Command::Check(command) => command.execute(context),
        Command::Plan(command) => command.execute(context),
        Command::Show(command) => command.execute(context),
        Command::Stages(command) => command.execute(context),
        Command::Serve(command) => command.execute(context),
        Command::Infer(command) => command.execute(context),
        Command::Export(command) => command.execute(context),
        Command::Worker(command) => command.execute(context),
        Command::Coordinator(command) => command.execute(context),
        Command::Gc(command) => command.execute(context),
        Command::Schema(command) => command.execute(context),
        Command::New(command) => command.execute(context),
    }
}

/// Prints an error and gives its exit code. A reader that went away (`ropeway show | head`) is no error.
fn report(error: &Error) -> u8 {
    let closed = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if closed.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe) {
        return 0;
    }
    // What was already drawn at its place in the file has an empty message.
    if !error.to_string().is_empty() {
        complain(&format!("error: {error}"));
    }
    if let Some(help) = error.advice() {
        complain(&format!("help: {help}"));
    }
    error.whose().exit_code()
}

/// Writes a line to stderr.
pub(crate) fn complain(line: &str) {
    // There is nowhere to say that stderr is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Call, Outputs, ParamError, Signature, Stage};
    use serde_json::Value;
    use std::process::{Command, Output};

    /// A stage with a bug that every command meets that reads its pipeline.
    struct Buggy(Signature);

    impl Stage for Buggy {
        fn signature(&self) -> &Signature {
            &self.0
        }
        fn normalise(&self, _: &Value) -> Result<Value, ParamError> {
            panic!("out of fuel")
        }
        fn run(&self, _: Call) -> crate::Result<Outputs> {
            Ok(Outputs::new())
        }
    }

    /// What tells the program of this test that it is the one that the test started, and on which file.
    const CHILD: &str = "ROPEWAY_TEST_CHILD";

    /// This test again in a process of its own, whose exit code and stderr are those of the command.
    fn child(file: &std::path::Path) -> Output {
        let test = "cli::tests::a_panic_outside_of_a_stage_is_a_bug_of_ours";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([test, "--exact", "--nocapture"]).env(CHILD, file).env("RUST_BACKTRACE", "0");
        child.output().unwrap()
    }

    #[test]
    fn a_panic_outside_of_a_stage_is_a_bug_of_ours() {
        if let Some(file) = std::env::var_os(CHILD) {
            let registry = Registry::new().stage("buggy", Buggy(Signature::default()));
            let arguments = ["ropeway".into(), "check".into(), file];
            std::process::exit(run(arguments.into_iter(), registry).into());
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        std::fs::write(&file, "[stage.a]\nuse = \"buggy\"\n").unwrap();
        let ended = child(&file);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(70), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.contains(&"out of fuel"), "{said}");
        assert_eq!(lines.last(), Some(&"this is a bug of Ropeway; please report it with the lines above"));
        // The same command on a pipeline without the stage goes another way.
        std::fs::write(&file, "[stage.a]\nuse = \"bugy\"\n").unwrap();
        let ended = child(&file);
        assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
