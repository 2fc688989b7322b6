//! The layers of the ruleset: a table each, and what differs between them.

use super::terms::{field, matches, members, meta, word};
use super::{
    ALLOWANCE_TABLE, ARMED_HOST, ARMED_HOST_DEVICE, ARMED_MANAGEMENT, ARMED_MANAGEMENT_DEVICE,
    COLLECTOR, CUT_DEST4, CUT_DEST6, DISGUISED, KNOWN, STRICT_DEVICE, TABLE,
};
use nftables::expr::{Expression, MetaKey};
use nftables::schema::SetType;
use nftables::stmt::{Operator, Statement};
use nftables::types::NfFamily;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Containments, packets.
    Inet,
    /// Containments, frames.
    Netdev,
    /// Known addresses: a family each, so that a packet meets the look of its own family alone.
    Known4,
    Known6,
    /// Contained senders, frames between the ports of a bridge; where there is one.
    Bridge,
    /// Upload allowance, packets and frames; where the plan names one.
    Allowance,
    AllowanceFrames,
}

impl Layer {
    pub(super) const ALL: [Self; 7] = [
        Self::Inet,
        Self::Netdev,
        Self::Known4,
        Self::Known6,
        Self::Bridge,
        Self::Allowance,
        Self::AllowanceFrames,
    ];

    pub(super) const fn family(self) -> NfFamily {
        match self {
            Self::Allowance | Self::Inet => NfFamily::INet,
            Self::AllowanceFrames | Self::Netdev => NfFamily::NetDev,
            Self::Bridge => NfFamily::Bridge,
            Self::Known4 => NfFamily::IP,
            Self::Known6 => NfFamily::IP6,
        }
    }

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Allowance | Self::AllowanceFrames => ALLOWANCE_TABLE,
            _ => TABLE,
        }
    }

    /// Whether it judges frames, of which later fragments carry no ports.
    pub(super) const fn of_frames(self) -> bool {
        matches!(self, Self::AllowanceFrames | Self::Bridge | Self::Netdev)
    }

    /// Whether the containments of what this host sends are its business.
    pub(super) const fn contains(self) -> bool {
        matches!(self, Self::Inet | Self::Netdev)
    }

    /// The address families that can occur: whether IPv4.
    pub(super) const fn families(self) -> &'static [bool] {
        match self {
            Self::Known4 => &[true],
            Self::Known6 => &[false],
            _ => &[true, false],
        }
    }

    pub(super) fn sets(self) -> Vec<(&'static str, SetType)> {
        let mut sets = vec![(CUT_DEST4, SetType::Ipv4Addr), (CUT_DEST6, SetType::Ipv6Addr)];
        match self {
            Self::Inet => sets
                .extend([(ARMED_HOST, SetType::InetProto), (ARMED_MANAGEMENT, SetType::InetProto)]),
            Self::Netdev => sets.extend(
                [ARMED_HOST_DEVICE, ARMED_MANAGEMENT_DEVICE, STRICT_DEVICE]
                    .map(|name| (name, SetType::Ifname)),
            ),
            _ => sets.clear(),
        }
        sets
    }

    pub(super) fn counters(self) -> Vec<&'static str> {
        match self {
            Self::Inet => vec![CUT_DEST4, CUT_DEST6, ARMED_HOST, ARMED_MANAGEMENT, COLLECTOR],
            Self::Netdev => {
                vec![CUT_DEST4, CUT_DEST6, ARMED_HOST, ARMED_MANAGEMENT, COLLECTOR, DISGUISED]
            }
            Self::Known4 | Self::Known6 => vec![COLLECTOR, KNOWN],
            Self::Bridge => vec![COLLECTOR],
            // Made with their table.
            Self::Allowance | Self::AllowanceFrames => Vec::new(),
        }
    }

    /// The match on a set that arms a whole-host cut.
    pub(super) fn armed(self, families: &str, devices: &str) -> Statement<'static> {
        if self == Self::Netdev {
            matches(meta(MetaKey::Oifname), Operator::EQ, members(devices))
        } else {
            matches(meta(MetaKey::Nfproto), Operator::EQ, members(families))
        }
    }

    /// The match on the address family alone.
    pub(super) fn of_family(self, v4: bool) -> Statement<'static> {
        let number = Expression::Number(if v4 { 4 } else { 6 });
        match self {
            Self::Allowance | Self::Inet => {
                let word = word(if v4 { "ipv4" } else { "ipv6" });
                matches(meta(MetaKey::Nfproto), Operator::EQ, word)
            }
            Self::AllowanceFrames | Self::Bridge | Self::Netdev => {
                matches(meta(MetaKey::Protocol), Operator::EQ, word(if v4 { "ip" } else { "ip6" }))
            }
            // Tables of one family: nft refuses to ask for it, and this is always so.
            Self::Known4 | Self::Known6 => {
                let version = field(if v4 { "ip" } else { "ip6" }, "version");
                matches(version, Operator::EQ, number)
            }
        }
    }
}
