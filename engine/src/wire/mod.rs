//! Enters: a [`Frame`], bytes as captured. Leaves: a [`PacketView`] that borrows from it, or the
//! counted reason ([`Unparsed`]) why there is none. Must not know: flows, directions, policy, or
//! anything above the transport header.

mod fast;
mod frame;
mod link;
mod parse;
mod unparsed;
mod view;

pub use frame::{Frame, LinkType};
pub use parse::parse;
pub use unparsed::Unparsed;
pub use view::{PacketView, Proto, TcpFacts};

#[cfg(test)]
mod tests;
