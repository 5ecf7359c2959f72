//! What the tests of thread caches share.

use am_matrix::{Block, Matrix};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Blocks in caches, over all sectors.
pub fn cached(matrix: &Matrix) -> u64 {
    matrix.stats().sectors.iter().map(|sector| sector.cached_blocks).sum()
}

/// How a block is freed.
pub const WAYS: [fn(&Matrix, Block<'_>); 4] = [
    |_, block| drop(block),
    |_, block| block.free().expect("held"),
    |matrix, block| matrix.ack(block.into_offset()).expect("given away"),
    |matrix, block| {
        let offset = block.into_offset();
        // SAFETY: nobody else knows the offset.
        unsafe { matrix.ack_unshared(offset) }.expect("given away");
    },
];

type Task = Box<dyn FnOnce(&mut Option<Matrix>) + Send>;

/// A thread with a handle, which does what it is told, one thing after the other.
pub struct Other {
    tasks: Sender<Task>,
    thread: JoinHandle<()>,
}

impl Other {
    pub fn start(matrix: &Matrix) -> Self {
        let (tasks, told) = channel::<Task>();
        let mut matrix = Some(matrix.clone());
        let thread =
            std::thread::spawn(move || told.into_iter().for_each(|task| task(&mut matrix)));
        Self { tasks, thread }
    }

    pub fn ask<T: Send + 'static>(&self, task: impl FnOnce(&Matrix) -> T + Send + 'static) -> T {
        self.tell(|matrix| task(matrix.as_ref().expect("a handle")))
    }

    pub fn drop_handle(&self) {
        self.tell(|matrix| *matrix = None);
    }

    fn tell<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Option<Matrix>) -> T + Send + 'static,
    ) -> T {
        let (answer, answers) = channel();
        let task: Task = Box::new(move |matrix| answer.send(task(matrix)).expect("it is awaited"));
        self.tasks.send(task).expect("the thread lives");
        answers.recv().expect("the thread does it")
    }

    pub fn end(self) {
        drop(self.tasks);
        self.thread.join().expect("a thread that works");
    }
}
