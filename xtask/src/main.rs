//! Development commands: `cargo xtask --help` lists them.

mod background;
mod bench;
mod chart;
mod compiler;
mod demo;
mod generate;
mod images;
mod progress;
mod runner;
mod soak;
mod test;
mod times;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Development commands of the Task Tracker operator")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a real Docker host and keep it equal to examples/staging.yaml; Ctrl-C removes everything.
    Demo(demo::Options),
    /// Everything that CI checks; installs and starts what it needs.
    Test(test::Options),
    /// Measure; prints a table and writes target/bench/NAME.json.
    Bench {
        /// noop, heal, deploy, rollout, kubernetes, monitoring or storm.
        name: String,
    },
    /// What takes too long for every run of the tests: many quiet checks, fuzzing.
    Soak(soak::Options),
    /// Build the images of backend, frontend and operator into target/images.
    Images {
        /// Revision: the images' tag.
        #[arg(long, default_value = "dev")]
        revision: String,
    },
    /// Write the generated files: the custom resource definition, the chart's page, and the API's document.
    Generate,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench { name } => bench::run(&name),
        Command::Soak(options) => soak::run(&options),
        Command::Images { revision } => images::run(&revision),
        Command::Generate => generate::run(),
    }
}
