//! A topic as an async stream, beside other things that async code waits for.
//!
//! ```sh
//! cargo run --release --example stream --features async
//! ```
//!
//! One task reads a stream of copies, another lends each message where it lies, a third posts. All three run on one
//! thread, and while nothing is posted none of them uses it.

use anyhow::Result;
use async_io::Timer;
use atomic_matrix::{AsyncReader, Matrix, MessageSet, Poster, Start};
use futures_lite::{StreamExt, future};
use std::time::Duration;

#[derive(MessageSet)]
enum Feed<'a> {
    Beat(u64),
    Text(&'a str),
}

/// Messages that are posted.
const COUNT: u64 = 20;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let name = format!("stream-{}", std::process::id());
    let matrix = Matrix::builder().size(16 << 20).create(&name)?;
    let result = run(&matrix);
    // The name goes whatever happened; what was mapped lives on.
    matrix.destroy()?;
    result
}

fn run(matrix: &Matrix) -> Result<()> {
    let topic = matrix.topic::<Feed>("feed").stamped(true).create()?;
    let copies = topic.reader().start(Start::Earliest).open_async()?;
    let lent = topic.reader().start(Start::Earliest).open_async()?;
    let tasks = future::zip(future::zip(keep(copies), look(lent)), post(topic.poster()?));
    let ((kept, looked), posted) = async_io::block_on(tasks);
    posted?;
    println!("{} kept, {} letters looked at", kept?, looked?);
    Ok(())
}

/// Reads a stream: each message is a copy, which may be kept.
async fn keep(reader: AsyncReader<Feed<'static>>) -> Result<usize> {
    let messages: Vec<_> = reader.into_stream().take(COUNT as usize).collect().await;
    Ok(messages.len())
}

/// Looks at messages where they lie.
async fn look(mut reader: AsyncReader<Feed<'static>>) -> Result<usize> {
    let mut letters = 0;
    for _ in 0..COUNT {
        let message = reader.next().await;
        let age = message.info().age();
        match message.view()? {
            Feed::Beat(number) => println!("beat {number}, {age:?} old"),
            Feed::Text(text) => letters += text.len(),
        }
    }
    Ok(letters)
}

async fn post(poster: Poster<Feed<'static>>) -> Result<()> {
    for number in 0..COUNT {
        Timer::after(PAUSE).await;
        // Not the calls that wait: they would keep the thread from the readers that they wait for.
        match number % 4 {
            3 => poster.try_post("and a text")?,
            _ => poster.try_post(&number)?,
        };
    }
    Ok(())
}
