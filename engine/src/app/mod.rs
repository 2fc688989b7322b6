//! Enters: the payload of one packet, or the first bytes of one direction of a flow. Leaves: the
//! name the client asked for ([`Name`]), or why there is none. Must not know: flows, addresses of
//! the packet, policy; it never allocates by a length the sender chose.

pub mod dns;
pub mod hello;
pub mod http;
pub mod http_head;
mod name;
pub mod quic;
mod reader;
pub mod socks;
pub mod ssh;
mod suffix;
pub mod tls;

pub use name::Name;
pub use suffix::registered_name;
pub(crate) use suffix::split;
