//! Flowtables: forwarded flows that meet no rule once they are in one.

use super::super::elements::nft;
use crate::netlink::{Channel, NetlinkError, attribute, text_of};

/// `NFT_MSG_GETFLOWTABLE` (linux/netfilter/nf_tables.h).
const GET_FLOWTABLE: u16 = nft(23);
/// `NFTA_FLOWTABLE_TABLE` and `NFTA_FLOWTABLE_NAME`.
const TABLE: u16 = 1;
const NAME: u16 = 2;

/// Every flowtable of this network namespace, by family, table and name.
pub(super) fn flowtables() -> Result<Vec<String>, NetlinkError> {
    let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    channel.dump(GET_FLOWTABLE, &[0; 4], |found: &mut Vec<String>, answer| {
        found.extend(read(answer.body))
    })
}

fn read(body: &[u8]) -> Option<String> {
    // NFPROTO_INET, _IPV4, _NETDEV, _BRIDGE, _IPV6 (linux/netfilter.h).
    let family = match body.first()? {
        1 => "inet",
        2 => "ip",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "other",
    };
    let rest = body.get(4..)?;
    let text = |kind| attribute(rest, kind).map(text_of);
    Some(format!("flowtable:{family}/{}/{}", text(TABLE)?, text(NAME)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    #[test]
    fn a_flowtable_is_named_by_family_table_and_name() {
        let mut writer = Writer::default();
        writer.text(TABLE, "x");
        writer.text(NAME, "ft");
        let body = [&[1, 0, 0, 0], writer.as_bytes()].concat();
        assert_eq!(read(&body).as_deref(), Some("flowtable:inet/x/ft"));
        assert_eq!(read(&[1, 0]), None);
    }
}
