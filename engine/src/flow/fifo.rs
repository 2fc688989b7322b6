//! Reusable places in the order of their filling, so that the oldest can give way.

pub(super) const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node<T> {
    item: T,
    newer: u32,
    older: u32,
}

/// Places that are filled and freed; a freed place keeps its item, so that buffers are reused.
#[derive(Clone, Debug)]
pub(super) struct Fifo<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    oldest: u32,
    newest: u32,
    len: usize,
}

impl<T: Default> Fifo<T> {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NOWHERE, oldest: NOWHERE, newest: NOWHERE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn oldest(&self) -> Option<u32> {
        if self.oldest == NOWHERE { None } else { Some(self.oldest) }
    }

    #[inline]
    pub(super) fn item(&self, at: u32) -> Option<&T> {
        self.nodes.get(at as usize).map(|node| &node.item)
    }

    #[inline]
    pub(super) fn item_mut(&mut self, at: u32) -> Option<&mut T> {
        self.nodes.get_mut(at as usize).map(|node| &mut node.item)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node<T>> {
        self.nodes.get_mut(at as usize)
    }

    /// Takes a place as the newest; its item is what the place last held.
    pub(super) fn take(&mut self) -> u32 {
        let at = if self.free == NOWHERE {
            self.nodes.push(Node { item: T::default(), newer: NOWHERE, older: NOWHERE });
            (self.nodes.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.node_mut(at).map_or(NOWHERE, |node| node.newer);
            at
        };
        self.len += 1;
        self.link(at);
        at
    }

    /// Gives a taken place back.
    pub(super) fn give_back(&mut self, at: u32) {
        self.unlink(at);
        let free = self.free;
        if let Some(node) = self.node_mut(at) {
            node.newer = free;
            self.free = at;
            self.len -= 1;
        }
    }

    /// Makes a taken place the newest.
    pub(super) fn renew(&mut self, at: u32) {
        self.unlink(at);
        self.link(at);
    }

    fn link(&mut self, at: u32) {
        let newest = std::mem::replace(&mut self.newest, at);
        if let Some(node) = self.node_mut(at) {
            node.older = newest;
            node.newer = NOWHERE;
        }
        match self.node_mut(newest) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some((older, newer)) = self.node_mut(at).map(|node| (node.older, node.newer)) else {
            return;
        };
        match self.node_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fifo;

    #[test]
    fn the_oldest_is_the_one_longest_not_renewed() {
        let mut fifo: Fifo<u32> = Fifo::new();
        let (a, b, c) = (fifo.take(), fifo.take(), fifo.take());
        fifo.renew(a);
        assert_eq!(fifo.oldest(), Some(b));
        fifo.give_back(b);
        assert_eq!((fifo.oldest(), fifo.len()), (Some(c), 2));
        assert_eq!(fifo.take(), b);
        fifo.give_back(c);
        fifo.give_back(a);
        assert_eq!(fifo.oldest(), Some(b));
        fifo.give_back(b);
        assert_eq!((fifo.oldest(), fifo.len()), (None, 0));
    }
}
