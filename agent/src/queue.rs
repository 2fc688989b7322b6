//! Queues between threads of which one must never turn round and round until another has run.
//!
//! The channels of the standard library let go of the core and look again where the other side was interrupted in the
//! middle of a hand-over. A thread of class SCHED_FIFO that does so on the core of the thread it waits for keeps it from
//! ever running: frames waited 0.8 s, until the kernel's limit for that class struck (950 ms of a second, sched(7)). Here
//! whoever finds the other side busy sleeps. Errors are those of the standard library's channels.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

struct State<T> {
    items: VecDeque<T>,
    most: usize,
    senders: usize,
    is_heard: bool,
    /// Threads that sleep until there is something, and until there is room.
    takers: usize,
    givers: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        state.items.push_back(item);
        let is_awaited = state.takers > 0;
        drop(state);
        if is_awaited {
            self.filled.notify_one();
        }
    }

    fn take(&self, state: &mut State<T>) -> Result<T, TryRecvError> {
        let none =
            if state.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
        let item = state.items.pop_front().ok_or(none)?;
        if state.givers > 0 {
            self.drained.notify_one();
        }
        Ok(item)
    }
}

/// A queue without a bound: what goes into it must be bounded by whoever uses it.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

/// A queue of at most `most` items, at least one.
#[must_use]
pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        most: most.max(1),
        senders: 1,
        is_heard: true,
        takers: 0,
        givers: 0,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        filled: Condvar::new(),
        drained: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end into which things go; the queue ends when the last of these is gone.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Hands over, and waits where there is no room.
    ///
    /// # Errors
    /// Gives the item back when nobody will take it any more.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state();
        while state.is_heard && state.items.len() >= state.most {
            state.givers += 1;
            state = self.0.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.givers -= 1;
        }
        if !state.is_heard {
            return Err(SendError(item));
        }
        self.0.put(state, item);
        Ok(())
    }

    /// Hands over where there is room.
    ///
    /// # Errors
    /// Gives the item back when there is none, or nobody will take it any more.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let state = self.0.state();
        if !state.is_heard {
            return Err(TrySendError::Disconnected(item));
        }
        if state.items.len() >= state.most {
            return Err(TrySendError::Full(item));
        }
        self.0.put(state, item);
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.0.filled.notify_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

/// The end from which things are taken.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Takes what is there.
    ///
    /// # Errors
    /// When there is nothing, now or ever.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.state();
        self.0.take(&mut state)
    }

    /// Waits for the next.
    ///
    /// # Errors
    /// When there will be none.
    pub fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.state();
        loop {
            match self.0.take(&mut state) {
                Ok(item) => return Ok(item),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {}
            }
            state.takers += 1;
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.takers -= 1;
        }
    }

    /// Waits for the next, so long at most.
    ///
    /// # Errors
    /// When there is none by then, or there will be none.
    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        // A patience beyond what the clock can count is a wait without an end.
        let deadline = Instant::now().checked_add(patience);
        let mut state = self.0.state();
        loop {
            match self.0.take(&mut state) {
                Ok(item) => return Ok(item),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            let left = deadline.map_or(patience, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            state.takers += 1;
            let waited = self.0.filled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.takers -= 1;
        }
    }

    /// What is there, one after the other.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_heard = false;
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.0.drained.notify_all();
        drop(left);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{ClockId, clock_gettime};
    use std::thread;

    #[test]
    fn everything_arrives_once_and_in_the_order_of_its_sender() {
        let (sender, receiver) = bounded(8);
        let threads: Vec<_> = (0..4_u64)
            .map(|of| {
                let sender = sender.clone();
                thread::spawn(move || (0..20_000).for_each(|n| sender.send((of, n)).unwrap()))
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Ok((of, n)) = receiver.recv() {
            assert_eq!(next[usize::try_from(of).unwrap()], n);
            next[usize::try_from(of).unwrap()] += 1;
        }
        assert_eq!(next, [20_000; 4]);
        threads.into_iter().for_each(|one| one.join().unwrap());
    }

    #[test]
    fn whoever_finds_the_other_side_busy_sleeps() {
        let (sender, receiver) = bounded(8);
        let cpu = || {
            let spent = clock_gettime(ClockId::ThreadCPUTime);
            Duration::try_from(spent).unwrap()
        };
        let busy = receiver.0.state();
        let (waited, spent) = thread::scope(|scope| {
            let finding = scope.spawn(|| {
                let (began, before) = (Instant::now(), cpu());
                sender.try_send(1).unwrap();
                (began.elapsed(), cpu() - before)
            });
            thread::sleep(Duration::from_millis(300));
            drop(busy);
            finding.join().unwrap()
        });
        assert!(waited > Duration::from_millis(200), "it did not find it busy: {waited:?}");
        assert!(spent < Duration::from_millis(20), "{spent:?} of {waited:?}");
    }

    #[test]
    fn what_is_full_says_so_and_what_is_over_gives_back() {
        let (sender, receiver) = bounded(1);
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let short = Duration::from_millis(20);
        assert_eq!(receiver.recv_timeout(short), Err(RecvTimeoutError::Timeout));
        let waiting = sender.clone();
        sender.send(3).unwrap();
        let waiter = thread::spawn(move || waiting.send(4));
        drop(receiver);
        assert_eq!(waiter.join().unwrap(), Err(SendError(4)));
        assert_eq!(sender.try_send(5), Err(TrySendError::Disconnected(5)));
        let (sender, receiver) = channel();
        let (late, end) = (sender.clone(), thread::spawn(move || receiver.recv()));
        late.send(6).unwrap();
        assert_eq!(end.join().unwrap(), Ok(6));
        let (sender, receiver) = channel::<u8>();
        let end = thread::spawn(move || receiver.recv_timeout(Duration::MAX));
        drop(sender);
        assert_eq!(end.join().unwrap(), Err(RecvTimeoutError::Disconnected));
    }
}
