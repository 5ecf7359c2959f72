//! A pipe, and a pair of Unix domain sockets that keep messages apart: copied in and out by the
//! kernel, in which both sides wait. Every reader has one of its own, and posters write to all.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use anyhow::{Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::messages::medium::{Draft, Medium, Plan, Post, Read};

/// What a pipe holds, in bytes: the most that everybody may ask for.
const PIPE_BYTES: i32 = 1 << 20;

/// Ends of one reader's way: where it reads, and where posters write.
type Ends = (File, File);

/// Pipes, or sockets.
pub struct Kernel<const SOCKETS: bool> {
    ways: Vec<Ends>,
    bytes: usize,
}

/// Pipes.
pub type Pipes = Kernel<false>;
/// Sockets of the type `SOCK_SEQPACKET`.
pub type Sockets = Kernel<true>;

fn pipe() -> Result<Ends> {
    let (reader, writer) = io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
    Ok((
        File::from(std::os::fd::OwnedFd::from(reader)),
        File::from(std::os::fd::OwnedFd::from(writer)),
    ))
}

fn sockets() -> Result<Ends> {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (reader, writer) = socketpair(AddressFamily::Unix, kind, None, flags)?;
    Ok((File::from(reader), File::from(writer)))
}

impl<const SOCKETS: bool> Medium for Kernel<SOCKETS> {
    type Poster = KernelPoster;
    type Reader = KernelReader;
    const ENDS_BY_CLOSING: bool = true;

    fn create(plan: &Plan) -> Result<Self> {
        let ways = (0..plan.readers).map(|_| if SOCKETS { sockets() } else { pipe() });
        Ok(Self { ways: ways.collect::<Result<_>>()?, bytes: plan.bytes })
    }

    fn poster(&mut self, _number: usize) -> Result<KernelPoster> {
        let outs = self.ways.iter().map(|(_, writer)| writer.try_clone());
        Ok(KernelPoster { outs: outs.collect::<io::Result<_>>()?, buffer: vec![0; self.bytes] })
    }

    fn reader(&mut self, number: usize) -> Result<KernelReader> {
        Ok(KernelReader { from: self.ways[number].0.try_clone()?, buffer: vec![0; self.bytes] })
    }

    fn forked(&mut self) {
        self.ways.clear();
    }
}

/// A poster's ends of all readers' ways.
pub struct KernelPoster {
    outs: Vec<File>,
    buffer: Vec<u8>,
}

impl Post for KernelPoster {
    #[inline(always)]
    fn post(&mut self, draft: &Draft) -> Result<()> {
        draft.write(&mut self.buffer);
        for out in &mut self.outs {
            out.write_all(&self.buffer)?;
        }
        Ok(())
    }
}

/// A reader's end of its way.
pub struct KernelReader {
    from: File,
    buffer: Vec<u8>,
}

impl Read for KernelReader {
    #[inline(always)]
    fn read(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64> {
        let mut len = 0;
        while len < self.buffer.len() {
            let more = self.from.read(&mut self.buffer[len..])?;
            if more == 0 {
                ensure!(len == 0, "the last message ends after {len} bytes");
                return Ok(0);
            }
            len += more;
        }
        look(&self.buffer);
        Ok(1)
    }
}
