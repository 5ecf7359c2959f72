//! Several processes on one segment.

mod common;

use atomic_matrix::{Block, Error, Matrix, Offset, Participant};
use common::child::{Actor, Answers, role, say};
use common::{MIB, Random, Scratch, assert_sound, assert_whole, pattern};
use std::io::{BufRead, Write, stdin};
use std::os::fd::AsFd;
use std::process::{ChildStdin, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

const PROCESSES: usize = 8;
const SIZE_BYTES: usize = 50 * MIB;
const TURNS: usize = 10_000;

// --- the child's side ---------------------------------------------------------------------------

#[test]
fn child_entry() {
    let Some((role, segment)) = role() else { return };
    match role.as_str() {
        "bootstrap" => bootstrap(&segment),
        "serve" => serve(&Matrix::builder().open(&segment).expect("opens")),
        "serve the descriptor" => {
            let fd = stdin().as_fd().try_clone_to_owned().expect("has a standard input");
            let matrix = Matrix::builder().attach(fd).expect("attaches");
            answer(&matrix, &segment);
        }
        "work" => work(&Matrix::builder().open(&segment).expect("opens")),
        role => panic!("no such role: {role}"),
    }
}

fn lines() -> impl Iterator<Item = String> {
    stdin().lock().lines().map(|line| line.expect("the parent writes text"))
}

fn bootstrap(segment: &str) {
    let id = segment.parse().expect("a uuid");
    say("waiting");
    lines().next().expect("a start");
    use atomic_matrix::matrix::core::AtomicMatrix;
    let handler = AtomicMatrix::bootstrap(Some(id), SIZE_BYTES, (40, 30)).expect("bootstraps");
    let base = handler.mmap.as_ptr();
    let ptr = handler.matrix.allocate(base, 1000).expect("a fresh matrix has room");
    let formatted = handler.matrix.as_matrix().formatted_here();
    say(format_args!("{formatted} {}", ptr.offset()));
}

/// Does what the parent says, one line after the other.
fn serve(matrix: &Matrix) {
    lines().for_each(|line| answer(matrix, &line));
}

fn answer(matrix: &Matrix, line: &str) {
    let (verb, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let numbers: Vec<u64> =
        arguments.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let offset = |bytes| Offset::from_bytes(bytes).expect("an offset");
    match (verb, numbers[..].as_ref()) {
        ("give", &[bytes, stamp]) => {
            let mut block = matrix.allocate(bytes as usize).expect("room");
            pattern::fill(&mut block, stamp);
            say(block.into_offset().bytes());
        }
        ("take", &[at, bytes, stamp]) => match matrix.from_offset(offset(at)) {
            Ok(block) => {
                assert_eq!(block.len() as u64, bytes);
                pattern::verify(&block, stamp);
                say("taken and freed");
            }
            Err(error) => say(error),
        },
        ("ack", &[at]) => match matrix.ack(offset(at)) {
            Ok(()) => say("acked"),
            Err(error) => say(error),
        },
        ("trim", []) => {
            matrix.trim().expect("not forked");
            say("trimmed");
        }
        ("base", []) => say(matrix.mapping().as_ptr().addr()),
        _ => panic!("no such command: {line}"),
    }
}

/// A block on its way to another process: offset, length, stamp.
type Parcel = (Offset, usize, u64);

/// Random work: blocks of all sizes, each written over its whole length and verified before the
/// free; every fourth one goes to another process. Ends when the parent hangs up.
fn work(matrix: &Matrix) {
    let pid = u64::from(std::process::id());
    let mut random = Random(pid << 20 | 1);
    let inbox = inbox();
    let mut mine: Vec<(Block<'_>, u64)> = Vec::new();
    let mut refused = 0;
    for turn in 0..TURNS {
        match random.below(8) {
            0..4 => {
                let bits = 4 + random.below(15);
                match matrix.allocate(random.below(1 << bits)) {
                    Ok(mut block) => {
                        let stamp = pid << 32 | turn as u64;
                        pattern::fill(&mut block, stamp);
                        mine.push((block, stamp));
                    }
                    Err(Error::Exhausted { .. } | Error::Contended { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            4..6 if !mine.is_empty() => {
                let (block, stamp) = mine.swap_remove(random.below(mine.len()));
                let (len, to) = (block.len(), random.below(PROCESSES));
                say(format_args!("{to} {} {len} {stamp}", block.into_offset().bytes()));
            }
            6 if !mine.is_empty() => {
                let (block, stamp) = mine.swap_remove(random.below(mine.len()));
                pattern::verify(&block, stamp);
            }
            _ => inbox.try_recv().into_iter().for_each(|parcel| {
                let block = take(matrix, parcel);
                mine.push((block, parcel.2));
            }),
        }
    }
    mine.iter().for_each(|(block, stamp)| pattern::verify(block, *stamp));
    drop(mine);
    say(format_args!("done {refused}"));
    inbox.into_iter().for_each(|parcel| drop(take(matrix, parcel)));
}

fn take(matrix: &Matrix, (offset, len, stamp): Parcel) -> Block<'_> {
    let block = matrix.from_offset(offset).expect("it was given to this process alone");
    assert_eq!(block.len(), len);
    pattern::verify(&block, stamp);
    block
}

/// Reads parcels on a thread of its own, so that no pipe ever fills up.
fn inbox() -> Receiver<Parcel> {
    let (sender, inbox) = channel();
    std::thread::spawn(move || {
        for line in lines() {
            let mut words = line.split(' ').map(|word| word.parse::<u64>().expect("a number"));
            let mut next = || words.next().expect("three numbers");
            let offset = Offset::from_bytes(next()).expect("an offset");
            let _ = sender.send((offset, next() as usize, next()));
        }
    });
    inbox
}

// --- the parent's side --------------------------------------------------------------------------

#[test]
fn processes_that_bootstrap_at_once_find_one_formatter() {
    for round in 0..5 {
        let scratch = Scratch::new();
        let mut actors: Vec<Actor> =
            (0..PROCESSES).map(|_| Actor::start("bootstrap", &scratch.name())).collect();
        actors.iter_mut().for_each(|actor| assert_eq!(actor.answer(), "waiting"));
        actors.iter_mut().for_each(|actor| actor.tell("go"));
        let answers: Vec<String> = actors.iter_mut().map(Actor::answer).collect();
        let formatters = answers.iter().filter(|answer| answer.starts_with("true")).count();
        assert_eq!(formatters, 1, "round {round}: {answers:?}");
        let mut offsets: Vec<&str> =
            answers.iter().map(|answer| answer.split_once(' ').unwrap().1).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), PROCESSES, "round {round}: two have one block: {answers:?}");
        actors.into_iter().for_each(Actor::finish);
        // What was allocated by offset outlives its process.
        let matrix = scratch.bootstrap(SIZE_BYTES, (40, 30));
        assert!(!matrix.matrix.as_matrix().formatted_here());
        for offset in offsets {
            let offset = Offset::from_bytes(offset.parse().unwrap()).unwrap();
            matrix.matrix.as_matrix().ack(offset).unwrap();
        }
        assert_whole(matrix.matrix.as_matrix());
    }
}

#[test]
fn block_allocated_here_is_freed_there() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(SIZE_BYTES as u64).create(&scratch.name()).unwrap();
    let mut actor = Actor::start("serve", &scratch.name());
    for (stamp, bytes) in [0, 1, 64, 5000, 70_000, 300_000, 4 * MIB].into_iter().enumerate() {
        let mut block = matrix.allocate(bytes).unwrap();
        pattern::fill(&mut block, stamp as u64);
        let held = block.offset().bytes();
        let refusal = actor.ask(format_args!("take {held} {bytes} {stamp}"));
        assert!(refusal.contains("a guard holds"), "{refusal}");
        let refusal = actor.ask(format_args!("ack {held}"));
        assert!(refusal.contains("a guard holds"), "{refusal}");
        pattern::verify(&block, stamp as u64);
        let offset = block.into_offset();
        let take = format!("take {} {bytes} {stamp}", offset.bytes());
        assert_eq!(actor.ask(&take), "taken and freed");
        assert!(actor.ask(&take).contains("no block that can be acked or taken"));
        assert!(matrix.from_offset(offset).is_err());
        assert_eq!(actor.ask("trim"), "trimmed");
        assert_whole(&matrix);
    }
    actor.finish();
}

#[test]
fn block_allocated_there_is_freed_here() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(SIZE_BYTES as u64).create(&scratch.name()).unwrap();
    let mut actor = Actor::start("serve", &scratch.name());
    for (stamp, bytes) in [0, 1, 64, 5000, 70_000, 300_000, 4 * MIB].into_iter().enumerate() {
        let offset: u64 = actor.ask(format_args!("give {bytes} {stamp}")).parse().unwrap();
        let offset = Offset::from_bytes(offset).unwrap();
        let block = matrix.from_offset(offset).unwrap();
        assert_eq!(block.len(), bytes);
        pattern::verify(&block, stamp as u64);
        drop(block);
        assert!(
            actor
                .ask(format_args!("ack {}", offset.bytes()))
                .contains("no block that can be acked or taken")
        );
        assert_eq!(actor.ask("trim"), "trimmed");
        assert_whole(&matrix);
    }
    // And the raw way.
    let raw = matrix.allocate_offset(600).unwrap();
    assert_eq!(actor.ask(format_args!("ack {}", raw.bytes())), "acked");
    assert!(matrix.ack(raw).is_err());
    assert_eq!(actor.ask("trim"), "trimmed");
    assert_whole(&matrix);
    actor.finish();
}

#[test]
fn memfd_passed_to_a_child_is_the_same_matrix() {
    let matrix = Matrix::builder().size(4 << 20).memfd("passed").unwrap();
    assert!(matrix.path().is_none() && matrix.formatted_here());
    assert!(matrix.destroy().is_err(), "it has no name");
    let fd = || Stdio::from(matrix.as_fd().try_clone_to_owned().unwrap());
    let mut block = matrix.allocate(5000).unwrap();
    pattern::fill(&mut block, 3);
    let command = format!("take {} 5000 3", block.into_offset().bytes());
    let mut taker = Actor::start_with("serve the descriptor", &command, fd());
    assert_eq!(taker.answer(), "taken and freed");
    taker.finish();
    assert_whole(&matrix);
    let mut giver = Actor::start_with("serve the descriptor", "give 200000 4", fd());
    let offset = Offset::from_bytes(giver.answer().parse().unwrap()).unwrap();
    giver.finish();
    let block = matrix.from_offset(offset).unwrap();
    pattern::verify(&block, 4);
    drop(block);
    assert_whole(&matrix);
}

/// What one process allocated goes into another one's cache, and is that one's until it ends.
#[test]
fn block_freed_there_is_kept_there_until_that_process_ends() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(SIZE_BYTES as u64).create(&scratch.name()).unwrap();
    let mut actor = Actor::start("serve", &scratch.name());
    let raw = matrix.allocate_offset(600).unwrap();
    assert_eq!(actor.ask(format_args!("ack {}", raw.bytes())), "acked");
    let kept = |who: &Participant| (who.own, who.cached_blocks, who.cached_bytes);
    let [own, other] = matrix.participants()[..].try_into().unwrap();
    assert_eq!((kept(&own), kept(&other)), ((true, 0, 0), (false, 1, 640)));
    assert_ne!(matrix.allocate(600).unwrap().offset(), raw);
    // The same place again, for the one that keeps it.
    assert_eq!(actor.ask("give 600 1"), raw.bytes().to_string());
    assert_eq!(actor.ask(format_args!("take {} 600 1", raw.bytes())), "taken and freed");
    actor.finish();
    assert_whole(&matrix);
}

#[test]
fn processes_at_random_work_leave_every_sector_whole() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(SIZE_BYTES as u64).create(&scratch.name()).unwrap();
    let mut actors: Vec<Actor> =
        (0..PROCESSES).map(|_| Actor::start("work", &scratch.name())).collect();
    let (inputs, answers): (Vec<ChildStdin>, Vec<Answers>) =
        actors.iter_mut().map(Actor::ends).unzip();
    let inputs: Vec<Mutex<ChildStdin>> = inputs.into_iter().map(Mutex::new).collect();
    let carried: Vec<(usize, Answers)> = std::thread::scope(|scope| {
        let carriers: Vec<_> =
            answers.into_iter().map(|answers| scope.spawn(|| carry(answers, &inputs))).collect();
        carriers.into_iter().map(|carrier| carrier.join().expect("a carrier")).collect()
    });
    drop(inputs); // every child is done: they free what is still on its way, and end
    actors.into_iter().for_each(Actor::finish);
    let handed_over: usize = carried.iter().map(|(count, _)| count).sum();
    assert!(handed_over > PROCESSES * TURNS / 20, "only {handed_over} blocks changed hands");
    println!("{handed_over} blocks changed hands");
    assert_whole(&matrix);
}

/// Carries a child's parcels to the others until it is done; returns how many, and the child's
/// output, which it needs to the end.
fn carry(mut answers: Answers, inputs: &[Mutex<ChildStdin>]) -> (usize, Answers) {
    let mut count = 0;
    while let Some(answer) = answers.next() {
        let (to, parcel) = answer.split_once(' ').expect("two words");
        if to == "done" {
            return (count, answers);
        }
        let to: usize = to.parse().expect("a child's number");
        writeln!(inputs[to].lock().expect("no carrier panicked"), "{parcel}").expect("it listens");
        count += 1;
    }
    panic!("a child ended before it was done");
}

#[test]
fn offset_means_the_same_where_the_segment_lies_elsewhere() {
    let scratch = Scratch::new();
    let matrix = Matrix::builder().size(4 << 20).create(&scratch.name()).unwrap();
    let again = Matrix::builder().open(&scratch.name()).unwrap();
    assert_ne!(matrix.mapping().as_ptr(), again.mapping().as_ptr());
    let mut actor = Actor::start("serve", &scratch.name());
    let there: usize = actor.ask("base").parse().unwrap();
    println!("bases: {:p} {:p} {there:#x}", matrix.mapping().as_ptr(), again.mapping().as_ptr());
    let mut block = matrix.allocate(10_000).unwrap();
    pattern::fill(&mut block, 1);
    let offset = block.into_offset();
    let (here, twin) = (matrix.payload_ptr(offset).unwrap(), again.payload_ptr(offset).unwrap());
    assert_ne!(here, twin);
    let mut block = again.from_offset(offset).unwrap();
    pattern::verify(&block, 1);
    pattern::fill(&mut block, 2);
    let at = block.into_offset().bytes();
    assert_eq!(actor.ask(format_args!("take {at} 10000 2")), "taken and freed");
    actor.finish();
    assert_sound(&again);
    assert_whole(&matrix);
}
