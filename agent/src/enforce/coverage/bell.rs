//! Rings when devices, filters or named network namespaces change.

use crate::netlink::NetlinkError;
use netlink_sys::Socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// `RTNLGRP_LINK` and `RTNLGRP_TC` (linux/rtnetlink.h).
const GROUPS: [u32; 2] = [1, 4];
/// Where namespaces with names are; the directory may come later.
const NAMED: &str = "/run/netns";
/// Messages thrown away at once: a flood rings on.
const MOST: usize = 4_096;

/// Hears that something changed; what, the next look tells.
pub struct Bell {
    socket: Socket,
    names: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Bell {
    /// Begins to hear.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not tell.
    pub fn hang() -> Result<Self, NetlinkError> {
        let failed = |doing| move |source| NetlinkError::Socket { doing, source };
        let mut socket =
            Socket::new(netlink_sys::protocols::NETLINK_ROUTE).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("hear changes"))?;
        }
        socket.set_non_blocking(true).map_err(failed("hear changes without waiting"))?;
        Ok(Self { socket, names: watch_names(), buffer: vec![0; 32 * 1024] })
    }

    /// Waits for a change, for so long at most; `true` when there was one.
    pub fn wait(&mut self, patience: Duration) -> bool {
        self.names = self.names.take().or_else(watch_names);
        let mut all = vec![PollFd::new(&self.socket, PollFlags::IN)];
        all.extend(self.names.as_ref().map(|names| PollFd::new(names, PollFlags::IN)));
        let wait = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let heard = poll(&mut all, Some(&wait)).is_ok_and(|count| count > 0);
        drop(all);
        self.quiet();
        heard
    }

    /// Forgets what was heard so far.
    pub fn quiet(&mut self) {
        for _ in 0..MOST {
            let mut space = self.buffer.as_mut_slice();
            match self.socket.recv(&mut space, 0) {
                Ok(_) => {}
                // More than the kernel could keep (ENOBUFS): the socket is well, and the next look sees all.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                Err(_) => break,
            }
        }
        if let Some(names) = &self.names {
            for _ in 0..MOST {
                if !rustix::io::read(names, self.buffer.as_mut_slice()).is_ok_and(|count| count > 0)
                {
                    break;
                }
            }
        }
    }
}

fn watch_names() -> Option<OwnedFd> {
    let names =
        inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok()?;
    let what =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&names, NAMED, what).ok()?;
    Some(names)
}
