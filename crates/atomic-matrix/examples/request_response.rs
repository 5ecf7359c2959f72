//! Prices asked for and told, from process to process.
//!
//! All of it at once, two servers and a client, each a process of its own:
//!
//! `cargo run --release --example request_response`
//!
//! The same by hand, in two terminals:
//!
//! `cargo run --release --example request_response -- serve market`
//! `cargo run --release --example request_response -- ask market --rounds 100000`
//!
//! Either may be started first. The segment is `/dev/shm/market`, and stays until it is removed:
//!
//! `cargo run --release --example request_response -- remove market`

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use atomic_matrix::{Client, Matrix, Message, Service, WaitStrategy};
use clap::{Parser, Subcommand};

/// What a client asks: the price of so many of something.
#[derive(Message, Clone, Copy)]
#[repr(C)]
struct Query {
    sym: u32,
    amount: u32,
}

/// What a server answers.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Quote {
    sym: u32,
    px: u32,
    total: u64,
}

type Prices = Service<Query, Quote>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Spin rather than sleep: faster, for a core that has nothing else to do
    #[arg(long, global = true)]
    spin: bool,
    /// Questions to ask one after the other, for the time that a round trip takes
    #[arg(long, global = true, default_value_t = 10_000)]
    rounds: u32,
}

#[derive(Subcommand)]
enum Role {
    /// Answer until the process is ended
    Serve {
        /// The segment's name
        name: String,
    },
    /// Ask
    Ask {
        /// The segment's name
        name: String,
    },
    /// Remove the segment, with the service in it
    Remove {
        /// The segment's name
        name: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        None => show(&args),
        Some(Role::Serve { name }) => serve(&args, name).map(|()| String::new()),
        Some(Role::Ask { name }) => ask(&args, name),
        Some(Role::Remove { name }) => remove(name).map(|()| format!("removed={name}")),
    };
    match outcome {
        Ok(summary) => println!("verdict: ok {summary}"),
        Err(error) => {
            eprintln!("error: {error:#}");
            println!("verdict: FAILED error=1");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn open(args: &Args, name: &str) -> Result<Prices> {
    let matrix = Matrix::builder().size(16 << 20).open_or_create(name)?;
    let wait = if args.spin { WaitStrategy::Spin } else { WaitStrategy::default() };
    Ok(matrix.service("prices").wait(wait).open_or_create()?)
}

fn price(query: &Query) -> Quote {
    let px = query.sym * 3 + 100;
    Quote { sym: query.sym, px, total: u64::from(px) * u64::from(query.amount) }
}

/// A server: takes a request, looks at it where it lies, responds; for ever.
fn serve(args: &Args, name: &str) -> Result<()> {
    let mut server = open(args, name)?.server()?;
    println!("serving");
    std::io::stdout().flush()?;
    loop {
        let request = server.receive();
        let quote = price(request.view()?);
        request.respond(&quote)?;
    }
}

/// A client: several questions at once, then many one after the other.
fn ask(args: &Args, name: &str) -> Result<String> {
    let client = open(args, name)?.client()?;
    let queries = [(7, 1), (8, 10), (9, 100)].map(|(sym, amount)| Query { sym, amount });
    let pending =
        queries.iter().map(|query| client.request(query)).collect::<Result<Vec<_>, _>>()?;
    // The last first: responses may be taken in any order.
    for (query, mut pending) in queries.iter().zip(pending).rev() {
        let response =
            pending.wait_timeout(Duration::from_secs(5))?.context("no server answers")?;
        let quote = *response.view()?;
        println!("{} of {}: {} each, {} in all", query.amount, query.sym, quote.px, quote.total);
        ensure!(quote == price(query), "a wrong answer: {quote:?}");
    }
    let [median, worst] = round_trips(&client, args.rounds)?;
    Ok(format!("rounds={} median_ns={median} p99_ns={worst}", args.rounds))
}

/// Nanoseconds from a request to its response: the median, and what one in a hundred exceeds.
fn round_trips(client: &Client<Query, Quote>, rounds: u32) -> Result<[u128; 2]> {
    let mut times = Vec::with_capacity(rounds as usize);
    for sym in 0..rounds.max(1) {
        let query = Query { sym: sym % 1000, amount: sym };
        let begin = Instant::now();
        let response = client.request(&query)?.wait()?;
        times.push(begin.elapsed().as_nanos());
        ensure!(*response.view()? == price(&query), "a wrong answer");
    }
    times.sort_unstable();
    Ok([times[times.len() / 2], times[times.len() * 99 / 100]])
}

/// Removes the segment's name; processes that have it open go on with it.
fn remove(name: &str) -> Result<()> {
    let matrix = Matrix::builder().open(name).context("cannot open the segment")?;
    matrix.destroy().context("cannot remove the segment")
}

/// Two servers and a client, as processes.
fn show(args: &Args) -> Result<String> {
    let name = format!("request-response-{}", uuid::Uuid::new_v4());
    let matrix = Matrix::builder().size(16 << 20).create(&name)?;
    let outcome = ask_servers(args, &name);
    // The file goes away whatever happened.
    matrix.destroy()?;
    outcome
}

fn ask_servers(args: &Args, name: &str) -> Result<String> {
    // With one core for each, a second one that spins would be in the way.
    let count = if args.spin { 1 } else { 2 };
    let _servers =
        (0..count).map(|_| ServerProcess::start(args, name)).collect::<Result<Vec<_>>>()?;
    ask(args, name)
}

/// A server as a process, which is ended when this is dropped.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(args: &Args, name: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", name]).args(args.spin.then_some("--spin"));
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start a server")?;
        let output = child.stdout.take().context("the server has no stdout")?;
        let started = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "serving", "the server does not serve: {line:?}");
        Ok(started)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
