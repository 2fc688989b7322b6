//! Enters: a [`Frame`], bytes as captured. Leaves: a [`PacketView`] that borrows from it, the packet
//! inside a tunnel ([`tunnel`]), a datagram put together from its pieces ([`Fragments`]), or the
//! counted reason ([`Unparsed`]) why there is none. Must not know: flows, directions, policy, or
//! anything above the transport header.

mod fast;
mod fragment;
mod frame;
mod link;
mod network;
mod parse;
pub mod tunnel;
mod unparsed;
mod view;

pub use fragment::{Fragments, Gathered, Piece, Taken};
pub use frame::{Frame, LinkType};
pub use parse::{Packet, ip_packet, parse, read};
pub use unparsed::Unparsed;
pub use view::{IcmpFacts, PacketView, Proto, TcpFacts};

#[cfg(test)]
pub(crate) mod tests;
