//! The policy in force, and what a drill lays over it: mode `enforce`, an exemption for the legitimate peer where
//! the host is cut, a perimeter with the canary in it, and no drills.

use super::scenario::{CANARY, Drill, PEER};
use crate::clock;
use ipnet::{IpNet, Ipv4Net};
use sekisho_schema::finding::Grade;
use sekisho_schema::policy::{
    Exemption, Mode, POLICY_SCHEMA, ParsePolicyError, RawExemption, RawPolicy, write_toml,
};
use sekisho_schema::sealed::{ParseKeyError, key_pair, parse_secret};
use sekisho_schema::{Policy, Sealed, Span, Transport};
use std::net::IpAddr;

/// How long the seal of a drill's policy is fresh.
const FRESH: Span = Span::from_hours(1);
/// From this level on a cut takes everything outside but exemptions.
const HOST_LEVEL: u8 = 5;
/// On this level all of a workload is cut.
const WORKLOAD_LEVEL: u8 = 4;

/// Why a policy can't be laid under a drill.
#[derive(Debug, thiserror::Error)]
pub(super) enum OverlayError {
    #[error("cannot make a key for the drill's policy")]
    Key(#[from] ParseKeyError),
    #[error("cannot draw a random number")]
    Random(#[source] getrandom::Error),
    #[error("the policy of the drill makes no sense")]
    Senseless(#[from] ParsePolicyError),
    #[error("cannot write the policy of the drill: {0}")]
    Write(String),
}

/// A policy and the only key that counts for it.
pub(super) struct SealedOverlay {
    pub(super) policy: String,
    pub(super) anchor: String,
}

/// The level that the decision table has for what the drill shows.
pub(super) fn level(policy: &Policy, drill: &Drill) -> u8 {
    policy.rule_for(&drill.expect.detector, Grade::Malicious).map_or(0, |rule| rule.level)
}

/// Whether the level, as far as a drill can reach it, takes the workload with all of its traffic.
pub(super) const fn is_of_workload(level: u8) -> bool {
    level == WORKLOAD_LEVEL
}

pub(super) fn lay(policy: &Policy, drill: &Drill) -> Result<SealedOverlay, OverlayError> {
    let raw = raw(policy, drill);
    let version = raw.version;
    let text = write_toml(&raw).map_err(OverlayError::Write)?;
    // What the agent would refuse is refused here, where somebody reads it.
    Policy::parse(&text)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(OverlayError::Random)?;
    let (secret, anchor) = key_pair(&seed);
    let sealed = Sealed::wrap("policy", version, clock::now().after(FRESH), text.as_bytes())
        .signed_by(&parse_secret(&secret)?);
    Ok(SealedOverlay { policy: sealed.to_text(), anchor })
}

fn raw(policy: &Policy, drill: &Drill) -> RawPolicy {
    let mut inside = policy.inside.clone();
    let canary = IpAddr::V4(CANARY);
    if !inside.iter().any(|network| network.contains(&canary)) {
        inside.extend(Ipv4Net::new(CANARY, 30).map(|network| IpNet::V4(network.trunc())));
    }
    let mut exempt: Vec<RawExemption> = policy.exempt.iter().map(raw_exemption).collect();
    if level(policy, drill) >= HOST_LEVEL {
        exempt.push(RawExemption {
            name: "the legitimate peer of the drill".to_owned(),
            to: Some(IpNet::from(PEER.ip())),
            transport: Some(Transport::Tcp),
            port: Some(PEER.port()),
            service: None,
            from: None,
        });
    }
    RawPolicy {
        schema: POLICY_SCHEMA.to_owned(),
        version: policy.version.max(1),
        mode: Mode::Enforce,
        inside,
        decide: policy.decide.clone(),
        budget: policy.budget.clone(),
        exempt,
        allowance: policy.allowance.clone(),
        allow: policy.allow.clone(),
        trial: policy.trial.clone(),
        escalation: policy.escalation.clone(),
        names: policy.names.clone(),
        // A drill within a drill would have no end.
        drill: Vec::new(),
        orders: policy.orders.clone(),
        duty: policy.duty.clone(),
    }
}

fn raw_exemption(exemption: &Exemption) -> RawExemption {
    match exemption {
        Exemption::Peer { name, to, transport, port } => RawExemption {
            name: name.clone(),
            to: Some(*to),
            transport: *transport,
            port: *port,
            service: None,
            from: None,
        },
        Exemption::Service { name, transport, port, from } => RawExemption {
            name: name.clone(),
            to: None,
            transport: None,
            port: None,
            service: Some(format!("{transport}/{port}")),
            from: Some(*from),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::scenario::load;
    use sekisho_schema::policy::DrillPlan;
    use std::path::Path;

    const SHIPPED: &str = include_str!("../../../rules/policies/enforce.toml");

    #[test]
    fn everything_in_force_stays_but_mode_drills_and_the_peer() {
        let more = "[[exempt]]\nname = \"backup\"\nto = \"192.0.2.20/32\"\ntransport = \"tcp\"\nport = 443\n\
             [[exempt]]\nname = \"customers\"\nservice = \"tcp/443\"\nfrom = \"0.0.0.0/0\"\n\
             [[drill]]\nname = \"plugx-tcp\"\nevery = \"24h\"\n";
        let before = Policy::parse(
            &format!("{SHIPPED}\n{more}").replace("mode = \"enforce\"", "mode = \"dry-run\""),
        )
        .unwrap();
        let drill = load(Path::new("/nonexistent"), "plugx-tcp").unwrap();
        let text = write_toml(&raw(&before, &drill)).unwrap();
        let after = Policy::parse(&text).unwrap();
        let mut exempt = after.exempt.clone();
        assert_eq!(
            exempt.pop().map(|added| matches!(added, Exemption::Peer { port: Some(443), .. })),
            Some(true)
        );
        assert_eq!(
            Policy { mode: before.mode, exempt, drill: before.drill.clone(), ..after },
            before
        );
    }

    #[test]
    fn the_peer_is_exempt_only_where_the_host_is_cut() {
        let mut policy = Policy::built_in(Mode::DryRun);
        policy.drill =
            vec![DrillPlan { name: "indicator".to_owned(), every: Span::from_hours(24) }];
        let drill = load(Path::new("/nonexistent"), "indicator").unwrap();
        assert_eq!(level(&policy, &drill), 3);
        let laid = raw(&policy, &drill);
        assert!(laid.exempt.is_empty() && laid.drill.is_empty() && laid.mode == Mode::Enforce);
    }

    #[test]
    fn the_seal_holds_for_its_own_anchor() {
        let drill = load(Path::new("/nonexistent"), "plugx-tcp").unwrap();
        let laid = lay(&Policy::built_in(Mode::Learn), &drill).unwrap();
        let key = sekisho_schema::sealed::parse_public(&laid.anchor).unwrap();
        let anchors = sekisho_schema::TrustAnchors::new([key], 1);
        let sealed = Sealed::parse(&laid.policy).unwrap();
        assert_eq!(sealed.open_policy(&anchors, clock::now(), 0).unwrap().mode, Mode::Enforce);
    }
}
