//! Where the collector is: known before a cut, because names can't be asked after one.
//!
//! What was found is kept, so that an agent that restarts under a cut of its own host still knows;
//! and a name that can't be resolved yet, as at boot, holds nothing up and is asked for again.

use super::{Inbox, Message};
use crate::chain::causes;
use crate::queue::channel;
use crate::state::write_atomically;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file in the state directory.
const FILE: &str = "collector.json";
/// The longest that the start waits for a resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// A name that gave no address is asked for again after this.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    url: String,
    addresses: Vec<SocketAddr>,
}

/// The collector's addresses as far as they are known now; others follow as a message.
pub(super) fn endpoints(url: &str, state: &Path, inbox: Inbox) -> Vec<SocketAddr> {
    let Some(authority) = authority(url) else { return Vec::new() };
    let path = state.join(FILE);
    let (found, wait) = channel();
    let asking = Asking { url: url.to_owned(), authority, path: path.clone() };
    let asked = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let addresses = asking.until_found();
        // Too late for the start: then it is news.
        if found.send(addresses.clone()).is_err() {
            inbox.send(Message::Collector(addresses));
        }
    });
    if let Err(error) = asked {
        tracing::error!(%error, "no thread to ask for the collector's address");
    }
    if let Ok(addresses) = wait.recv_timeout(PATIENCE) {
        return addresses;
    }
    let kept = recall(&path, url);
    if kept.is_empty() {
        tracing::error!(collector = %url, state = "the collector is not exempt until its name is resolved: a cut of the host cuts it off", help = "name it by address, or mend name resolution", "cannot find the collector's address");
    } else {
        tracing::warn!(collector = %url, ?kept, "cannot find the collector's address; it is taken to be where it was");
    }
    kept
}

fn recall(path: &Path, url: &str) -> Vec<SocketAddr> {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok())
        .filter(|kept| kept.url == url)
        .map(|kept| kept.addresses)
        .unwrap_or_default()
}

/// Host and port of a collector's URL.
fn authority(url: &str) -> Option<String> {
    let authority =
        url.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or(rest))?;
    let has_port = authority.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    Some(if has_port { authority.to_owned() } else { format!("{authority}:443") })
}

struct Asking {
    url: String,
    authority: String,
    path: PathBuf,
}

impl Asking {
    /// Asks until there is an answer, and keeps it.
    fn until_found(self) -> Vec<SocketAddr> {
        loop {
            match self.authority.to_socket_addrs().map(Iterator::collect::<Vec<_>>) {
                Ok(addresses) if !addresses.is_empty() => {
                    self.keep(&addresses);
                    return addresses;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(collector = %self.url, %error, "cannot resolve the collector's name");
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn keep(&self, addresses: &[SocketAddr]) {
        if recall(&self.path, &self.url) == addresses {
            return;
        }
        let kept = Kept { url: self.url.clone(), addresses: addresses.to_vec() };
        let written =
            serde_json::to_vec(&kept).map_err(|error| error.to_string()).and_then(|bytes| {
                write_atomically(&self.path, &bytes, 0o600).map_err(|error| causes(&error))
            });
        if let Err(error) = written {
            tracing::warn!(%error, state = "an agent that starts under a cut may not find it", "cannot keep the collector's address");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn inbox() -> (Inbox, crate::queue::Receiver<Message>, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (sender, receiver) = channel();
        (Inbox { sender, waker: Arc::new(waker) }, receiver, poll)
    }

    #[test]
    fn an_authority_has_a_port_and_brackets_where_they_belong() {
        for (url, wanted) in [
            ("https://[2001:db8::1]:8443", Some("[2001:db8::1]:8443")),
            ("https://[2001:db8::1]/", Some("[2001:db8::1]:443")),
            ("https://watch.example", Some("watch.example:443")),
            ("http://watch.example", None),
        ] {
            assert_eq!(authority(url).as_deref(), wanted);
        }
    }

    #[test]
    fn a_name_that_is_not_resolved_is_where_it_was_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (known, other) = ("https://watch.invalid:8443", "https://other.invalid");
        let kept =
            Kept { url: known.to_owned(), addresses: vec!["192.0.2.9:8443".parse().unwrap()] };
        std::fs::write(dir.path().join(FILE), serde_json::to_vec(&kept).unwrap()).unwrap();
        let (inbox, _messages, _poll) = inbox();
        assert_eq!(endpoints(known, dir.path(), inbox.clone()), kept.addresses);
        assert!(endpoints(other, dir.path(), inbox).is_empty());
    }

    #[test]
    fn what_is_found_is_kept_for_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, _messages, _poll) = inbox();
        let url = "https://127.0.0.1:8443";
        let found = endpoints(url, dir.path(), inbox);
        assert_eq!(found, ["127.0.0.1:8443".parse().unwrap()]);
        assert_eq!(recall(&dir.path().join(FILE), url), found);
    }
}
