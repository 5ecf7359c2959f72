//! Boost.Interprocess message_queue: a heap of messages by priority under a mutex, copied in and out.
//! Every reader has one of its own, and posters send to all.

use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};

use crate::ipc::pause;
use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

// Implemented by shim/queue.cpp.
unsafe extern "C" {
    fn am_queue_create(name: *const c_char, messages: usize, bytes: usize) -> *mut c_void;
    fn am_queue_open(name: *const c_char) -> *mut c_void;
    fn am_queue_send(queue: *mut c_void, message: *const u8, bytes: usize) -> i32;
    fn am_queue_receive(queue: *mut c_void, message: *mut u8, bytes: usize) -> isize;
    fn am_queue_close(queue: *mut c_void);
    fn am_queue_remove(name: *const c_char);
}

/// What the shim's `am_queue_send` and `am_queue_receive` return.
const SENT: i32 = 1;
const FULL: i32 = 0;
const EMPTY: isize = -1;

/// A mapped queue.
struct Queue(NonNull<c_void>);

impl Queue {
    fn open(name: &CString) -> Result<Self> {
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        let queue = unsafe { am_queue_open(name.as_ptr()) };
        NonNull::new(queue).map(Self).context("Boost cannot open its queue")
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: opened by `am_queue_open` or `am_queue_create`, and not used again.
        unsafe { am_queue_close(self.0.as_ptr()) };
    }
}

/// A queue for every reader.
pub struct BoostQueues {
    names: Vec<CString>,
    bytes: usize,
}

impl Medium for BoostQueues {
    type Poster = BoostPoster;
    type Reader = BoostReader;

    fn create(plan: &Plan) -> Result<Self> {
        let name = |reader| CString::new(crate::messages::queue_name(plan.id, reader));
        let names = (0..plan.readers).map(name).collect::<Result<Vec<_>, _>>()?;
        for name in &names {
            // SAFETY: `name` is a NUL-terminated string that outlives the call.
            let queue = unsafe { am_queue_create(name.as_ptr(), plan.depth, plan.bytes) };
            // Closed again; the name stays.
            NonNull::new(queue).map(Queue).context("Boost cannot create its queue")?;
        }
        Ok(Self { names, bytes: plan.bytes })
    }

    fn poster(&mut self, _number: usize) -> Result<BoostPoster> {
        let queues = self.names.iter().map(Queue::open).collect::<Result<_>>()?;
        Ok(BoostPoster { queues, buffer: vec![0; self.bytes] })
    }

    fn reader(&mut self, number: usize) -> Result<BoostReader> {
        Ok(BoostReader { queue: Queue::open(&self.names[number])?, buffer: vec![0; self.bytes] })
    }

    fn audit(self) -> Vec<String> {
        for name in &self.names {
            // SAFETY: `name` is a NUL-terminated string that outlives the call.
            unsafe { am_queue_remove(name.as_ptr()) };
        }
        Vec::new()
    }
}

/// A poster's mappings of all queues.
pub struct BoostPoster {
    queues: Vec<Queue>,
    buffer: Vec<u8>,
}

impl Post for BoostPoster {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        draft.write(&mut self.buffer);
        for queue in &self.queues {
            let (message, bytes) = (self.buffer.as_ptr(), self.buffer.len());
            let mut spins = 0;
            // SAFETY: the queue is open, and the buffer is that long.
            let mut outcome = unsafe { am_queue_send(queue.0.as_ptr(), message, bytes) };
            while outcome == FULL {
                pause(&mut spins);
                // SAFETY: as above.
                outcome = unsafe { am_queue_send(queue.0.as_ptr(), message, bytes) };
            }
            ensure!(outcome == SENT, "Boost cannot send");
        }
        Ok(())
    }
}

/// A reader's mapping of its queue.
pub struct BoostReader {
    queue: Queue,
    buffer: Vec<u8>,
}

impl Read for BoostReader {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let (message, bytes) = (self.buffer.as_mut_ptr(), self.buffer.len());
        // SAFETY: the queue is open, and the buffer is that long.
        let received = unsafe { am_queue_receive(self.queue.0.as_ptr(), message, bytes) };
        if received == EMPTY {
            return Ok(0);
        }
        let len = usize::try_from(received).ok().context("Boost cannot receive")?;
        look(&self.buffer[..len]);
        Ok(1)
    }
}
