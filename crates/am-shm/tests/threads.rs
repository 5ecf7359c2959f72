//! Races within one process: description locks exclude threads as they exclude processes.

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use am_shm::{Error, InitError, Options, Segment};
use common::{Scratch, options, stamp, stamp_of};

const THREADS: u32 = 8;

#[test]
fn threads_racing_find_one_formatter() {
    for round in 1..=50 {
        let scratch = Scratch::new();
        let barrier = Barrier::new(THREADS as usize);
        let calls = AtomicU32::new(0);
        let one = |i: u32| {
            barrier.wait();
            let segment = Segment::open_or_create(&scratch.place(), &options(), |m| {
                calls.fetch_add(1, Ordering::Relaxed);
                stamp(m, i)
            })
            .expect("opens or creates");
            (segment.formatted_here(), stamp_of(&segment), i)
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = (1..=THREADS).map(|i| scope.spawn(move || one(i))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let formatters: Vec<_> = outcomes.iter().filter(|o| o.0).map(|o| o.2).collect();
        assert_eq!((formatters.len(), calls.into_inner()), (1, 1), "round {round}");
        assert!(outcomes.iter().all(|o| o.1 == formatters[0]), "round {round}: {outcomes:?}");
    }
}

#[test]
fn threads_creating_at_once_have_one_winner() {
    for round in 1..=50 {
        let scratch = Scratch::new();
        let barrier = Barrier::new(THREADS as usize);
        let one = |i: u32| {
            barrier.wait();
            Segment::create(&scratch.place(), &options(), |m| stamp(m, i))
        };
        let made: Vec<_> = thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = (1..=THREADS).map(|i| scope.spawn(move || one(i))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1, "round {round}");
        for error in made.into_iter().filter_map(Result::err) {
            assert!(matches!(error, InitError::Segment(Error::Exists { .. })), "{error:?}");
        }
    }
}

/// Makes and destroys under one name, in every way, all at once: nobody ever sees a segment that
/// is not wholly formatted, and every segment made is destroyed exactly once.
#[test]
fn threads_making_and_destroying_one_name_never_see_it_unfinished() {
    let scratch = Scratch::new();
    let (made, destroyed) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for i in 1..=THREADS {
            let (scratch, made, destroyed) = (&scratch, &made, &destroyed);
            scope.spawn(move || {
                for round in 0..300_u32 {
                    // Every fifth formatter fails, and must not be seen either.
                    let fails = (round + i).is_multiple_of(5);
                    let result = Segment::open_or_create(&scratch.place(), &options(), |m| {
                        stamp(m, i)?;
                        if fails { Err("out of ink".to_owned()) } else { Ok(()) }
                    });
                    let segment = match result {
                        Ok(segment) => segment,
                        Err(InitError::Format(why)) if why == "out of ink" => continue,
                        Err(error) => panic!("round {round}: {error:?}"),
                    };
                    stamp_of(&segment);
                    made.fetch_add(u32::from(segment.formatted_here()), Ordering::Relaxed);
                    match segment.destroy() {
                        Ok(()) => _ = destroyed.fetch_add(1, Ordering::Relaxed),
                        Err(Error::AlreadyGone { .. }) => {}
                        Err(error) => panic!("round {round}: {error:?}"),
                    }
                }
            });
        }
    });
    assert!(!scratch.exists());
    assert_eq!(made.into_inner(), destroyed.into_inner());
}

#[test]
fn opener_beside_a_maker_sees_ready_or_not_found() {
    let scratch = Scratch::new();
    let done = AtomicBool::new(false);
    let found = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match Segment::open(&scratch.place(), &options()) {
                    Ok(segment) => {
                        stamp_of(&segment);
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => panic!("the opener sees {error:?}"),
                }
            }
        });
        for i in 1..=500 {
            let segment =
                Segment::create(&scratch.place(), &options(), |m| stamp(m, i)).expect("creates");
            segment.destroy().expect("destroys");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(found.into_inner() > 0, "the opener never met a segment");
}

#[test]
fn waiter_beside_a_slow_formatter_gives_up_in_time() {
    let scratch = Scratch::new();
    let (begun, finish) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            Segment::create(&scratch.place(), &options(), |m| {
                begun.wait();
                finish.wait();
                stamp(m, 1)
            })
        });
        begun.wait();
        let outcomes = [Duration::ZERO, Duration::from_millis(50)].map(|wait| {
            let hasty = Options { wait, ..options() };
            let opened = Segment::open(&scratch.place(), &hasty);
            let made = Segment::open_or_create(&scratch.place(), &hasty, |m| stamp(m, 2));
            (wait, opened, made)
        });
        // Let the formatter go on before anything can fail here.
        finish.wait();
        for (wait, opened, made) in outcomes {
            let is_stalled = |e: &Error| {
                matches!(e, Error::FormatterStalled { waited, .. }
                if *waited >= wait && *waited < wait + Duration::from_secs(5))
            };
            let error = opened.expect_err("opened an unfinished segment");
            assert!(is_stalled(&error), "{error:?}");
            let InitError::Segment(error) = made.expect_err("made a second segment") else {
                panic!("formatted beside another formatter");
            };
            assert!(is_stalled(&error), "{error:?}");
        }
        assert!(slow.join().unwrap().unwrap().formatted_here());
    });
    assert_eq!(stamp_of(&Segment::open(&scratch.place(), &options()).unwrap()), 1);
}
