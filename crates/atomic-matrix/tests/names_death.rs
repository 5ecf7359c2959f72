//! What becomes of common blocks and of names when a process dies.

mod common;

use atomic_matrix::{Error, Matrix, Offset};
use common::child::{Actor, role, say};
use common::{MIB, Scratch, assert_sound, assert_whole};
use std::io::BufRead;
use std::time::{Duration, Instant};

const KIND: u32 = 7;

/// A child of these tests: does what it is told by a line, and answers with an offset.
#[test]
fn child_entry() {
    let Some((_, segment)) = role() else { return };
    let matrix = Matrix::builder().open(&segment).expect("opens");
    let mut guards = Vec::new();
    say("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let block = || {
            let mut block = matrix.allocate(3000).expect("fits");
            block.fill(9);
            block
        };
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("hold", _) => {
                let block = block();
                say(block.offset().to_raw());
                guards.push(block);
            }
            ("common", _) => say(block().into_common().expect("works").offset().to_raw()),
            ("adopt", offset) => {
                let offset = Offset::from_raw(offset.parse().expect("a number"));
                // SAFETY: the parent neither looks at the block nor adopts it.
                guards.push(unsafe { matrix.adopt_common(offset) }.expect("works"));
                say(offset.to_raw());
            }
            ("create", name) => {
                say(matrix.create_named(name, KIND, block()).expect("works").offset().to_raw());
            }
            ("remove", name) => {
                // SAFETY: the parent does not look at the block.
                let block = unsafe { matrix.remove_named(name, KIND) }.expect("works");
                say(block.offset().to_raw());
                guards.push(block);
            }
            (other, _) => panic!("no order: {other}"),
        }
    }
}

fn start(scratch: &Scratch) -> (Matrix, Actor) {
    let matrix = Matrix::builder().size(4 * MIB as u64).create(&scratch.name()).expect("creates");
    let mut actor = Actor::start("any", &scratch.name());
    assert_eq!(actor.answer(), "ready");
    (matrix, actor)
}

fn ask(actor: &mut Actor, what: &str) -> Offset {
    Offset::from_raw(actor.ask(what).parse().expect("an offset"))
}

/// Kills an actor, waits until the kernel has dropped its lock, and recovers; returns how many held blocks
/// went back.
fn kill_and_recover(actor: Actor, matrix: &Matrix) -> u64 {
    drop(actor);
    let begin = Instant::now();
    while matrix.participants().iter().all(|p| p.alive) {
        assert!(begin.elapsed() < Duration::from_secs(10), "the kernel keeps a dead one's lock");
        std::thread::sleep(Duration::from_millis(1));
    }
    let recovery = matrix.recover();
    assert_eq!((recovery.dead.len(), recovery.deferred, recovery.busy), (1, 0, false));
    assert_eq!(recovery.blocks, recovery.dead[0].blocks);
    recovery.blocks
}

fn free(matrix: &Matrix, offset: Offset) {
    // SAFETY: nobody else is there.
    let block = unsafe { matrix.adopt_common(offset) }.expect("is common");
    assert!(block.len() == 3000 && block.iter().all(|&byte| byte == 9));
}

#[test]
fn death_gives_back_what_was_to_become_common_and_leaves_what_was() {
    let scratch = Scratch::new();
    let (matrix, mut actor) = start(&scratch);
    let held = ask(&mut actor, "hold");
    let stays: Vec<_> = (0..3).map(|_| ask(&mut actor, "common")).collect();
    assert_eq!(matrix.participants()[1].blocks, 1);
    assert_eq!(kill_and_recover(actor, &matrix), 1);
    assert!(matrix.common(held).is_err());
    assert_eq!(matrix.stats().sectors.iter().map(|s| s.common_blocks).sum::<u64>(), 3);
    assert_sound(&matrix);
    stays.into_iter().for_each(|offset| free(&matrix, offset));
    assert_whole(&matrix);
}

#[test]
fn death_gives_back_what_was_adopted() {
    let scratch = Scratch::new();
    let (matrix, mut actor) = start(&scratch);
    let [first, second] = [0, 1].map(|_| {
        let block = matrix.allocate(3000).unwrap();
        block.into_common().unwrap().offset()
    });
    ask(&mut actor, &format!("adopt {}", first.to_raw()));
    assert!(matches!(matrix.common(first), Err(Error::NotCommon { owner: 2, .. })));
    assert_eq!(kill_and_recover(actor, &matrix), 1);
    assert!(matrix.common(first).is_err());
    // SAFETY: nobody else is there.
    drop(unsafe { matrix.adopt_common(second) }.unwrap());
    assert_whole(&matrix);
}

#[test]
fn death_after_a_name_was_created_leaves_it_with_its_block() {
    let scratch = Scratch::new();
    let (matrix, mut actor) = start(&scratch);
    let offset = ask(&mut actor, "create orders");
    assert_eq!(kill_and_recover(actor, &matrix), 0);
    assert_eq!(matrix.open_named("orders", KIND).unwrap().offset(), offset);
    // SAFETY: nobody else is there.
    let block = unsafe { matrix.remove_named("orders", KIND) }.unwrap();
    assert!(block.iter().all(|&byte| byte == 9));
    drop(block);
    assert_whole(&matrix);
}

#[test]
fn death_after_a_name_was_removed_gives_its_block_back() {
    let scratch = Scratch::new();
    let (matrix, mut actor) = start(&scratch);
    ask(&mut actor, "create orders");
    ask(&mut actor, "remove orders");
    assert_eq!(kill_and_recover(actor, &matrix), 1);
    assert_eq!(matrix.open_named("orders", KIND), Err(Error::NoSuchName));
    assert_whole(&matrix);
}

#[test]
fn handle_inherited_by_fork_changes_neither_blocks_nor_names() {
    let scratch = Scratch::new();
    let (matrix, actor) = start(&scratch);
    let block = matrix.allocate(3000).unwrap();
    let offset = block.offset();
    let common = matrix.allocate(3000).unwrap().into_common().unwrap().offset();
    let named = matrix.create_named("a", KIND, matrix.allocate(1).unwrap()).unwrap();
    // SAFETY: the child does only what is tested here, and ends at once.
    match unsafe { nix::unistd::fork() }.expect("forks") {
        nix::unistd::ForkResult::Child => {
            let forked = Err::<(), _>(Error::Forked);
            // SAFETY: refused.
            let adopted = unsafe { matrix.adopt_common(common) }.map(std::mem::forget);
            // SAFETY: refused.
            let removed = unsafe { matrix.remove_named("a", KIND) }.map(std::mem::forget);
            let right = block.into_common().map(drop) == forked
                && adopted == forked
                && removed == forked
                && matrix.open_named("a", KIND) == Ok(named);
            // SAFETY: ends the process without running what is the parent's.
            unsafe { nix::libc::_exit(i32::from(!right)) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).expect("waits");
            assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
        }
    }
    assert!(matches!(matrix.common(offset), Err(Error::NotCommon { owner: 1, .. })));
    drop(block);
    // SAFETY: nobody else looks at them.
    drop(unsafe { matrix.adopt_common(common) }.unwrap());
    // SAFETY: as above.
    drop(unsafe { matrix.remove_named("a", KIND) }.unwrap());
    actor.finish();
    assert_whole(&matrix);
}

#[test]
fn name_is_changed_by_one_process_at_a_time_and_waits_for_no_dead_one() {
    let scratch = Scratch::new();
    let (matrix, mut actor) = start(&scratch);
    for n in 0..20 {
        actor.tell(format!("create theirs-{n}"));
        matrix.create_named(&format!("mine-{n}"), KIND, matrix.allocate(1).unwrap()).unwrap();
        actor.answer();
    }
    assert_eq!(matrix.names().count(), 40);
    drop(actor);
    let begin = Instant::now();
    // SAFETY: nobody else is there.
    drop(unsafe { matrix.remove_named("theirs-7", KIND) }.unwrap());
    assert!(begin.elapsed() < Duration::from_secs(4));
}
