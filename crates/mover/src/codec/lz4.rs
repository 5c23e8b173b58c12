//! LZ4 frames: independent blocks of 4 MiB with a content checksum, which is what the reference reads.

use std::hash::Hasher;
use std::io::{self, BufRead, BufReader, Read, Write};

use lz4_flex::block;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{Link, Stage, damaged};

const MAGIC: u32 = 0x184d_2204;
const READ: usize = 256 << 10;

/// The encoder.
pub(super) struct Encoder(FrameEncoder<Link>);

impl Encoder {
    pub(super) fn new(next: Link) -> Self {
        let info =
            FrameInfo::new().block_size(BlockSize::Max4MB).block_mode(BlockMode::Independent).content_checksum(true);
        Self(FrameEncoder::with_frame_info(info, next))
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Encoder {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        // An empty input is a frame too.
        self.0.write_all(&[])?;
        self.0.try_finish()?;
        self.0.into_inner().finish()
    }
}

/// Reads frames one after the other. Stricter than the reference in one point: a frame must have its end mark.
pub(super) struct Decoder<R> {
    input: BufReader<R>,
    frame: Option<Frame>,
    compressed: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

struct Frame {
    block_size: usize,
    block_checksum: bool,
    content_size: Option<u64>,
    content_checksum: bool,
    hasher: XxHash32,
    size: u64,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(READ, input),
            frame: None,
            compressed: Vec::new(),
            plain: Vec::new(),
            at: 0,
        }
    }

    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads the head of the next frame; `None` at the end of the input.
    fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(None);
            }
            match self.u32()? {
                MAGIC => return self.head().map(Some),
                skippable if skippable & 0xffff_fff0 == 0x184d_2a50 => {
                    let size = u64::from(self.u32()?);
                    if io::copy(&mut self.input.by_ref().take(size), &mut io::sink())? != size {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                _ => return Err(damaged("lz4: bad magic number")),
            }
        }
    }

    fn head(&mut self) -> io::Result<Frame> {
        let mut head = vec![0; 2];
        self.input.read_exact(&mut head)?;
        let (flags, block) = (head[0], head[1]);
        if flags >> 6 != 1 || flags & 0b10 != 0 || block & 0x8f != 0 {
            return Err(damaged("lz4: unknown frame flags"));
        }
        if flags & 0x20 == 0 {
            return Err(damaged("lz4: block dependency not supported"));
        }
        if flags & 1 != 0 {
            return Err(damaged("lz4: dictionaries are not supported"));
        }
        let block_size = match block >> 4 {
            code @ 4..=7 => 1 << (8 + 2 * code),
            _ => return Err(damaged("lz4: unknown block size")),
        };
        let mut content_size = None;
        if flags & 8 != 0 {
            let mut size = [0; 8];
            self.input.read_exact(&mut size)?;
            head.extend_from_slice(&size);
            content_size = Some(u64::from_le_bytes(size));
        }
        let mut checksum = [0];
        self.input.read_exact(&mut checksum)?;
        if checksum[0] != (XxHash32::oneshot(0, &head) >> 8) as u8 {
            return Err(damaged("lz4: the header is damaged"));
        }
        Ok(Frame {
            block_size,
            block_checksum: flags & 0x10 != 0,
            content_size,
            content_checksum: flags & 4 != 0,
            hasher: XxHash32::with_seed(0),
            size: 0,
        })
    }

    /// Decodes the next block into `plain`; leaves it empty at the end of a frame.
    fn block(&mut self, frame: &mut Frame) -> io::Result<bool> {
        let word = self.u32()?;
        if word == 0 {
            if frame.content_checksum && self.u32()? != (frame.hasher.finish() as u32) {
                return Err(damaged("lz4: invalid frame checksum"));
            }
            if frame.content_size.is_some_and(|size| size != frame.size) {
                return Err(damaged("lz4: the frame has another size than its header says"));
            }
            return Ok(false);
        }
        let size = (word & 0x7fff_ffff) as usize;
        if size > frame.block_size {
            return Err(damaged("lz4: a block is too large"));
        }
        self.compressed.resize(size, 0);
        self.input.read_exact(&mut self.compressed)?;
        if frame.block_checksum && self.u32()? != XxHash32::oneshot(0, &self.compressed) {
            return Err(damaged("lz4: invalid block checksum"));
        }
        if word >> 31 == 1 {
            std::mem::swap(&mut self.plain, &mut self.compressed);
        } else {
            self.plain.resize(frame.block_size, 0);
            let size = block::decompress_into(&self.compressed, &mut self.plain)
                .map_err(|error| damaged(format_args!("lz4: {error}")))?;
            self.plain.truncate(size);
        }
        frame.hasher.write(&self.plain);
        frame.size += self.plain.len() as u64;
        Ok(true)
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.next_frame()? {
                    Some(frame) => frame,
                    None => return Ok(0),
                },
            };
            self.plain.clear();
            self.at = 0;
            if self.block(&mut frame)? {
                self.frame = Some(frame);
            }
        }
        let taken = buffer.len().min(self.plain.len() - self.at);
        buffer[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}
