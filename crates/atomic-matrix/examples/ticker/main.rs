//! A made-up market: one terminal posts prices, any number of others read them.
//!
//! ```sh
//! cargo run --release --example ticker -- post --rate 1000
//! cargo run --release --example ticker -- read
//! ```
//!
//! Either may be started first, stopped, killed, and started again. The topic is lossy: posters never wait for a slow
//! reader, which learns how many ticks it missed.

mod market;

use anyhow::{Context, Result};
use atomic_matrix::{Matrix, Message, Poster, Reader, Start, Topic};
use clap::{Parser, Subcommand};
use market::Market;
use std::time::{Duration, Instant};

/// Ticks that a reader may be behind, at least.
const HISTORY: u64 = 10_000;
/// How early a tick may be posted: shorter sleeps take longer than they should.
const EARLY: Duration = Duration::from_millis(1);
/// How long a reader waits before it says that nothing comes.
const SILENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// The market: its segment is /dev/shm/NAME
    #[arg(long, global = true, default_value = "ticker")]
    name: String,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Post ticks
    Post {
        /// Ticks a second
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: u32,
        /// Ticks in all; without end unless told
        #[arg(long)]
        count: Option<u64>,
    },
    /// Print ticks: price, age, how many were missed
    Read {
        /// Print every so-manieth tick
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        every: u64,
        /// Ticks in all; without end unless told
        #[arg(long)]
        count: Option<u64>,
        /// Begin with the oldest tick that is there
        #[arg(long)]
        earliest: bool,
    },
    /// Remove the market
    Remove,
}

/// One trade.
#[derive(Message, Clone, Copy, Debug)]
#[repr(C)]
struct Tick {
    /// The share that was traded.
    symbol: [u8; 4],
    /// Pieces.
    quantity: u32,
    /// Hundredths of a unit of money.
    price_cents: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let market = || format!("cannot open the market {:?}", args.name);
    if matches!(args.role, Role::Remove) {
        let matrix = Matrix::builder().open(&args.name).with_context(market)?;
        return matrix.destroy().context("cannot remove the market");
    }
    let matrix = Matrix::builder().size(32 << 20).open_or_create(&args.name);
    let matrix = matrix.with_context(market)?;
    let topic = matrix.topic::<Tick>("ticks").lossy().stamped(true).capacity(HISTORY);
    let topic: Topic<Tick> = topic.open_or_create().with_context(market)?;
    match args.role {
        Role::Post { rate, count } => post(&topic.poster()?, rate, count.unwrap_or(u64::MAX)),
        Role::Read { every, count, earliest } => {
            let start = if earliest { Start::Earliest } else { Start::Latest };
            read(topic.reader().start(start).open()?, every, count.unwrap_or(u64::MAX))
        }
        Role::Remove => Ok(()),
    }
}

/// Posts at a steady rate, and catches up when it was late.
fn post(poster: &Poster<Tick>, rate: u32, count: u64) -> Result<()> {
    println!("posting {rate} ticks a second; stop with Ctrl-C");
    let (mut market, begun) = (Market::new(u64::from(std::process::id())), Instant::now());
    for number in 0..count {
        let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
        let early = due.saturating_duration_since(Instant::now());
        if early > EARLY {
            std::thread::sleep(early);
        }
        poster.post(&market.trade()).context("cannot post")?;
    }
    println!("posted {count} ticks in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Prints ticks as they come; sleeps meanwhile.
fn read(mut reader: Reader<Tick>, every: u64, count: u64) -> Result<()> {
    println!("reading from tick {} on; stop with Ctrl-C", reader.position());
    let mut seen = 0;
    while seen < count {
        let missed = reader.missed();
        let Some(message) = reader.read_timeout(SILENCE) else {
            println!("nothing for {SILENCE:?}: is anybody posting?");
            continue;
        };
        // The age first: printing takes time.
        let (info, age) = (message.info(), message.info().age());
        let tick = *message.view().context("this is no tick")?;
        drop(message);
        if seen % every == 0 {
            let symbol = String::from_utf8_lossy(&tick.symbol);
            let (units, cents) = (tick.price_cents / 100, tick.price_cents % 100);
            let age_us = age.unwrap_or_default().as_secs_f64() * 1e6;
            println!(
                "{:>10}  {symbol} {units:>4}.{cents:02} × {:<4} {age_us:>8.1} µs old, {missed} missed",
                info.seq.to_string(),
                tick.quantity,
            );
        }
        seen += 1;
    }
    println!("{seen} read, {} missed", reader.missed());
    Ok(())
}
