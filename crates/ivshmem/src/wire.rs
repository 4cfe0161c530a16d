//! One message over a socket: eight bytes, and at most one descriptor.

use core::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::error::{Error, Result};
use crate::protocol::{MESSAGE_SIZE, Violation, decode, encode};

/// Sends a message whole, or not at all; never sleeps.
pub(crate) fn send(socket: BorrowedFd<'_>, value: i64, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let bytes = encode(value);
    let fds = fd.as_slice();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags))? {
        MESSAGE_SIZE => Ok(()),
        // The kernel does not part so few bytes.
        _ => Err(Errno::MSGSIZE),
    }
}

/// A message that has not come in whole.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: [u8; MESSAGE_SIZE],
    len: usize,
    fd: Option<OwnedFd>,
}

impl Incoming {
    /// Receives the rest of a message, if it is there; never sleeps. Descriptors that do not belong are closed.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<Option<(i64, Option<OwnedFd>)>> {
        while self.len < MESSAGE_SIZE {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffer = [IoSliceMut::new(&mut self.bytes[self.len..])];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match retry_on_intr(|| recvmsg(socket, &mut buffer, &mut control, flags)) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) => return Err(Error::ServerGone),
                Err(error) => return Err(Error::io("hear the server")(error)),
            };
            let mut strays = 0;
            for message in control.drain() {
                let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
                for fd in fds {
                    strays += usize::from(self.fd.replace(fd).is_some());
                }
            }
            if strays > 0 {
                return Err(Violation::StrayDescriptor.into());
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                // Too many in one message, or no room in this process. Without one the message would mean
                // something else: that a peer has left.
                return Err(if self.fd.is_some() {
                    Violation::StrayDescriptor.into()
                } else {
                    Error::OutOfDescriptors
                });
            }
            if received.bytes == 0 {
                return Err(Error::ServerGone);
            }
            self.len += received.bytes;
        }
        self.len = 0;
        Ok(Some((decode(self.bytes), self.fd.take())))
    }
}
