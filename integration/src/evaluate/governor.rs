//! E13: whoever forges triggers gets no more cuts than a week may have, and none of what business needs.

use super::Plan;
use super::draw::Draw;
use super::fleet::{Role, Size, population};
use super::ours::{Weeks, key};
use super::replay::{Replay, after};
use super::table::Outcome;
use sekisho_engine::certify::authority::Authority;
use sekisho_engine::certify::episode::scored;
use sekisho_engine::certify::governor::Governor;
use sekisho_schema::certificate::Budgets;
use sekisho_schema::episode::{Channel, EpisodeScore, ScoreInputs, Tier, input};
use sekisho_schema::ruling::Reduced;
use sekisho_schema::sealed::Local;
use sekisho_schema::{Scope, Verified};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Forged triggers within an hour.
const TRIGGERS: usize = 1000;
/// Hosts of the fleet that the cap is for.
const HOSTS: u64 = 40;
/// Destination cuts of the policy within an hour.
const CUTS_AN_HOUR: usize = 20;
/// The first and last addresses that business needs.
const BUSINESS: std::ops::Range<u32> = 0..16;

const POLICY: &str = "schema = \"sekisho.policy/1\"\nversion = 1\nmode = \"enforce\"\n\
[[decide]]\ndetector = \"indicator.*\"\ngrade = \"malicious\"\nlevel = 3\nlease = \"24h\"\n\
[budget]\nhost-cuts-per-hour = 1\ndestination-cuts-per-hour = 20\n\
[duty]\ngroup = \"server\"\nowner = \"nobody\"\ndeputy = \"nobody\"\n\
[[exempt]]\nname = \"business\"\nto = \"198.51.100.0/28\"\n";

/// The n-th forged destination; the first sixteen are the business's.
fn address(number: usize) -> Ipv4Addr {
    let number = number as u32;
    let network = if BUSINESS.contains(&number) { [198, 51, 100, 0] } else { [32, 0, 0, 0] };
    Ipv4Addr::from_bits(u32::from_be_bytes(network) + number)
}

/// An upload far above every threshold.
fn forged(second: f64) -> EpisodeScore {
    let inputs = ScoreInputs(vec![(input::UP, 1e13), (input::DOWN, 0.0)]);
    scored(Channel::Allowance, after(second), inputs).expect("both inputs are numbers")
}

/// The experiment.
pub(super) fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new("E13", "a thousand forged triggers in an hour");
    let second = |n: usize| 3600.0 * n as f64 / TRIGGERS as f64;
    let promise = Budgets::default().promise(Tier::CutDestination);
    let mut fleet = Governor::new(promise, HOSTS);
    let cap = (promise * HOSTS as f64).ceil() as usize;
    let cuts = (0..TRIGGERS).filter(|n| fleet.take(after(second(*n)))).count();
    outcome.hold(
        format!("cuts of a fleet of {HOSTS} by themselves"),
        format!("at most the weekly cap of {cap}"),
        cuts.to_string(),
        cuts <= cap,
    );
    one_host(&mut outcome, plan, second);
    whole_engine(&mut outcome, second);
    outcome
}

/// One host with a real certificate: what its authority rules about a thousand uploads.
fn one_host(outcome: &mut Outcome, plan: Plan, second: impl Fn(usize) -> f64) {
    let size = Size { servers: HOSTS as usize, workstations: 0 };
    let mut weeks = Weeks::new(Role::Server, size.servers, 4);
    population(&mut Draw::new(plan.seed ^ 13), size, 4, 1.0, |episode| weeks.take(&episode));
    let certificate = weeks.certificate(&Budgets::default());
    let promised =
        certificate.promise(Tier::CutDestination) + certificate.promise(Tier::IsolateHost);
    let cap = promised.ceil() as usize;
    let mut authority = Authority::default();
    authority.certify(Verified::locally(certificate, Local::Installed));
    let (mut cuts, mut held, mut told) = (0, 0, 0);
    for n in 0..TRIGGERS {
        let Some(ruling) = authority.rule(&key(n), &forged(second(n)), 1) else { continue };
        match ruling.tier {
            Tier::CutDestination | Tier::IsolateHost => cuts += 1,
            Tier::Hold => {
                held += 1;
                told += usize::from(matches!(
                    ruling.reduced,
                    Some(Reduced::Spent { .. } | Reduced::Revoked)
                ));
            }
            Tier::Alert => {}
        }
    }
    outcome.hold(
        "cuts of one host by its certificate",
        format!("1 to {cap}"),
        cuts.to_string(),
        cuts >= 1 && cuts <= cap,
    );
    outcome.hold(
        "the others are held, and their records say why",
        format!("{} of {}", TRIGGERS - cuts, TRIGGERS - cuts),
        format!("{held} held, {told} say why"),
        held == TRIGGERS - cuts && told == held,
    );
}

/// The whole engine in mode enforce: a thousand known addresses, those of the business among them.
fn whole_engine(outcome: &mut Outcome, second: impl Fn(usize) -> f64) {
    let addresses: Vec<Ipv4Addr> = (0..TRIGGERS).map(address).collect();
    let mut replay = Replay::new(POLICY, &addresses);
    for (n, to) in addresses.iter().enumerate() {
        replay.send(second(n), (*to, 8443), 100.0, 0.0);
    }
    replay.pass(3600.0);
    let mut cut: BTreeSet<IpAddr> = BTreeSet::new();
    let mut others = 0;
    for (_, set) in &replay.orders {
        for containment in set.containments.values() {
            match &containment.scope {
                Scope::Destination(address) => {
                    cut.insert(*address);
                }
                _ => others += 1,
            }
        }
    }
    let business = addresses.iter().take(BUSINESS.len()).filter(|a| cut.contains(&IpAddr::V4(**a)));
    let business = business.count();
    outcome.hold(
        "cuts by indicators in the whole engine",
        format!("1 to {CUTS_AN_HOUR} an hour, destinations only"),
        format!("{}, {others} of other scopes", cut.len()),
        !cut.is_empty() && cut.len() <= CUTS_AN_HOUR && others == 0,
    );
    outcome.hold("cuts of what business needs", "0 of 16", business.to_string(), business == 0);
    outcome.tell("findings told", replay.findings.len().to_string());
}
