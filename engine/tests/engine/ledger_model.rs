//! The ledger beside a small model of it: random sequences end, after every step, in the same desired state.

use crate::forge::{Bench, LOCAL, START, end, tcp};
use sekisho_engine::cases::{Move, destination, moves};
use sekisho_engine::{HostFact, Input, Limits, Output};
use sekisho_schema::order::{Command, Order};
use sekisho_schema::sealed::Local;
use sekisho_schema::{
    Body, ContainmentId, Measure, Proof, Receipt, Scope, Span, Timestamp, Verified,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

const POLICY: &str = "
[[decide]]
detector = \"indicator.*\"
grade = \"malicious\"
level = 3
lease = \"1h\"
[budget]
host-cuts-per-hour = 100000
destination-cuts-per-hour = 100000
group-host-cuts-per-hour = 100000
[escalation]
up-to = 5
after = 2
within = \"600s\"
";
const TRIAL: Span = Span::from_secs(120);
const HOUR: Span = Span::from_secs(3600);

fn strength(measure: Measure) -> u8 {
    match measure {
        Measure::Observe => 0,
        Measure::Throttle { .. } => 1,
        Measure::Quota { .. } => 2,
        Measure::Cut => 3,
        Measure::Freeze => 4,
    }
}

#[derive(Clone, Debug)]
struct Held {
    until: Timestamp,
    trial: Option<Timestamp>,
    judged: bool,
    by_itself: bool,
    /// Whether it is on record as this host's traffic, and the destination behind it.
    own: bool,
    target: Option<IpAddr>,
    escalated: bool,
}

impl Held {
    fn end(&self) -> Timestamp {
        self.trial.map_or(self.until, |trial| trial.min(self.until))
    }
}

/// At most one for each scope and strength of hold.
type Key = (Scope, u8);

#[derive(Default)]
struct Model {
    now: Timestamp,
    held: BTreeMap<Key, Held>,
    told: BTreeMap<IpAddr, Timestamp>,
    tries: Vec<(Timestamp, IpAddr)>,
    /// Until when an owner is waited for, the lease of what follows, the destination.
    waits: Vec<(Timestamp, Span, IpAddr)>,
}

impl Model {
    fn nth(&self, which: usize) -> Option<Key> {
        self.held.keys().nth(which.checked_rem(self.held.len())?).cloned()
    }

    fn is_wider(wide: &Scope, narrow: &Scope) -> bool {
        match narrow {
            Scope::Destination(_) => matches!(wide, Scope::Host | Scope::ManagementOnly),
            Scope::Host => *wide == Scope::ManagementOnly,
            _ => false,
        }
    }

    fn is_covered(&self, key: &Key, until: Timestamp) -> bool {
        self.held.contains_key(key)
            || self.held.iter().any(|((scope, strength), held)| {
                held.end() >= until
                    && (Self::is_wider(scope, &key.0) || *scope == key.0 && *strength > key.1)
            })
    }

    fn begin(&mut self, key: Key, lease: Span, held: Held) {
        let is_tried = matches!(key.0, Scope::Host | Scope::ManagementOnly) && TRIAL < lease;
        let (until, trial) = (self.now.after(lease), is_tried.then(|| self.now.after(TRIAL)));
        self.held.insert(key.clone(), Held { until, trial, judged: false, ..held });
        self.drop_needless(&key);
    }

    /// A firm escalated cut makes what it covers needless.
    fn drop_needless(&mut self, key: &Key) {
        let firm = self.held[key].clone();
        if firm.trial.is_some() || !firm.escalated {
            return;
        }
        self.held.retain(|(scope, strength), held| {
            let is_narrower = Self::is_wider(&key.0, scope) || *scope == key.0 && *strength < key.1;
            !(is_narrower && held.until <= firm.until && held.by_itself)
        });
        self.forget_tries();
    }

    fn forget_tries(&mut self) {
        if !self.held.values().any(|held| held.own) {
            self.tries.clear();
        }
    }

    fn contain(&mut self, scope: Scope, lease: Span, measure: Measure) -> bool {
        let key = (scope, strength(measure));
        if self.held.keys().any(|(scope, other)| *scope == key.0 && *other > key.1) {
            return false;
        }
        let until = self.now.after(lease);
        if let Some(held) = self.held.get_mut(&key) {
            if held.until < until {
                held.until = until;
                self.drop_needless(&key);
            }
            return true;
        }
        let own = matches!(
            key.0,
            Scope::Host | Scope::ManagementOnly | Scope::Cgroup(_) | Scope::Container(_)
        );
        let (by_itself, escalated) = (false, false);
        let fresh =
            Held { until, trial: None, judged: false, by_itself, own, target: None, escalated };
        self.begin(key, lease, fresh);
        true
    }

    fn release(&mut self, key: &Key, break_glass: bool) -> bool {
        let guarded = matches!(key.0, Scope::Host | Scope::ManagementOnly) && !break_glass;
        if !guarded {
            self.held.remove(key);
            self.forget_tries();
        }
        !guarded
    }

    fn confirm(&mut self, key: &Key) {
        let Some(held) = self.held.get_mut(key) else { return };
        if held.trial.take().is_some() {
            held.judged = false;
            self.drop_needless(key);
        }
    }

    fn level(key: &Key) -> u8 {
        if key.1 < 3 { key.1 } else { key.0.level() }
    }

    /// Whether the owner is asked because this is one try too many.
    fn found_more(&mut self, target: IpAddr) -> bool {
        let standing =
            self.held.iter().filter(|(_, held)| held.own).map(|(key, _)| Self::level(key));
        let is_known = self.held.values().any(|held| held.own && held.target == Some(target));
        if standing.max().is_none_or(|level| level >= 5) || is_known {
            return false;
        }
        let now = self.now;
        self.tries.retain(|(at, _)| now.since(*at) <= Span::from_secs(600));
        if !self.tries.iter().any(|(_, tried)| *tried == target) {
            self.tries.push((now, target));
        }
        let enough = self.tries.len() >= 2;
        if enough {
            self.tries.clear();
        }
        enough
    }

    fn found(&mut self, target: IpAddr) {
        let asks = self.found_more(target);
        let key = (Scope::Destination(target), 3);
        let until = self.now.after(HOUR);
        let is_fresh = self.told.get(&target).is_none_or(|at| {
            self.now.since(*at).nanos().unsigned_abs() >= HOUR.nanos().unsigned_abs()
        });
        if !self.is_covered(&key, until) {
            self.told.insert(target, self.now);
            let fresh = Held {
                until,
                trial: None,
                judged: false,
                by_itself: true,
                own: true,
                target: Some(target),
                escalated: false,
            };
            self.begin(key, HOUR, fresh);
        } else if is_fresh || asks {
            self.told.insert(target, self.now);
            if let Some(held) = self.held.get_mut(&key) {
                held.until = held.until.max(until);
            }
        }
        if asks {
            let longest = self.held.values().filter(|held| held.own).map(|held| held.until).max();
            let lease = longest.map_or(Span::ZERO, |until| until.since(self.now));
            self.waits.push((self.now.after(Span::from_secs(10)), lease, target));
        }
    }

    fn nobody_owns(&mut self, lease: Span, target: IpAddr) {
        let key = (Scope::Host, 3);
        let until = self.now.after(lease);
        if !self.held.values().any(|held| held.own) {
            return;
        }
        if self.is_covered(&key, until) {
            if let Some(held) = self.held.get_mut(&key)
                && held.until < until
            {
                held.until = until;
                self.drop_needless(&key);
            }
            return;
        }
        let fresh = Held {
            until,
            trial: None,
            judged: false,
            by_itself: true,
            own: true,
            target: Some(target),
            escalated: true,
        };
        self.begin(key, lease, fresh);
    }

    fn lose_trial(&mut self, key: &Key) {
        let held = self.held[key].clone();
        let Some(target) = held.target.filter(|_| held.by_itself) else { return };
        let behind = (Scope::Destination(target), 3);
        match self.held.get_mut(&behind) {
            Some(same) => same.until = same.until.max(held.until),
            None => {
                let fresh = Held { trial: None, judged: false, escalated: false, ..held.clone() };
                self.begin(behind, held.until.since(self.now), fresh);
            }
        }
    }

    fn pass(&mut self, until: Timestamp) {
        loop {
            let second = Span::from_secs(1);
            let verdict =
                |held: &Held| held.trial.filter(|_| !held.judged).map(|end| end.before(second));
            let ends =
                self.held.values().flat_map(|held| [Some(held.end()), verdict(held)]).flatten();
            let next = ends.chain(self.waits.iter().map(|wait| wait.0)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            let due = |held: &Held| verdict(held).is_some_and(|at| at <= next);
            let keys: Vec<Key> = self
                .held
                .iter()
                .filter(|(_, held)| due(held))
                .map(|(key, _)| key.clone())
                .collect();
            for key in &keys {
                self.held.get_mut(key).unwrap().judged = true;
            }
            for key in keys {
                self.lose_trial(&key);
            }
            self.held.retain(|_, held| held.end() > next);
            self.forget_tries();
            let (over, waits) = self.waits.iter().partition(|wait| wait.0 <= next);
            self.waits = waits;
            for (_, lease, target) in Vec::into_iter(over) {
                self.nobody_owns(lease, target);
            }
        }
        self.now = self.now.max(until);
    }

    fn set_clock(&mut self, step: Span) {
        for held in self.held.values_mut() {
            held.until = held.until.after(step);
            held.trial = held.trial.map(|end| end.after(step));
        }
        self.waits.iter_mut().for_each(|wait| wait.0 = wait.0.after(step));
        self.tries.iter_mut().for_each(|tried| tried.0 = tried.0.after(step));
        self.now = self.now.after(step);
    }
}

fn desired(bench: &Bench) -> Vec<String> {
    let held = bench.engine.held().containments.values();
    let mut lines: Vec<_> = held
        .map(|held| {
            assert_eq!(held.level, held.scope.level_of(held.measure));
            let strength = strength(held.measure);
            format!("{} {strength} until {} trial {:?}", held.scope, held.until, held.trial_until)
        })
        .collect();
    lines.sort();
    lines
}

fn modelled(model: &Model) -> Vec<String> {
    let mut lines: Vec<_> = model
        .held
        .iter()
        .map(|((scope, strength), held)| {
            format!("{scope} {strength} until {} trial {:?}", held.until, held.trial)
        })
        .collect();
    lines.sort();
    lines
}

fn id_of(bench: &Bench, key: &Key) -> ContainmentId {
    let mut held = bench.engine.held().containments.values();
    held.find(|held| held.scope == key.0 && strength(held.measure) == key.1).unwrap().id.clone()
}

fn order(bench: &mut Bench, what: Command, at: Timestamp) -> bool {
    let order = Order { what, by: "Aiko".to_owned(), reason: "drill".to_owned() };
    let order = Verified::locally(order, Local::ControlSocket);
    let done = bench.engine.handle_order(order, at).is_ok();
    bench.drain();
    done
}

fn proof(id: ContainmentId, scope: Scope, good: bool) -> Receipt {
    let word = |good: bool| Some(if good { "proven" } else { "unproven" }.to_owned());
    let proof = Proof { cut: word(good), exemptions: Some("ok".to_owned()), ..Proof::default() };
    crate::ladder::receipt(id, scope, proof)
}

fn play(seed: u64) -> Vec<Output> {
    let policy = crate::forge::policy("enforce", POLICY);
    let known: Vec<String> = (1..=6).map(|n| destination(n).to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut bench = Bench::with(policy, &known, Limits::default());
    bench.input(Input::Fact(HostFact::Enforcement(Ok(())), START));
    let mut model = Model { now: START, ..Model::default() };
    let mut port = 1024;
    for (step, happens) in moves(seed, 40).into_iter().enumerate() {
        match happens.clone() {
            Move::Clock(step) => {
                model.set_clock(step);
                bench.input(Input::Fact(HostFact::ClockSet(step), model.now));
                // What a jump passed over has come to its end now and not before.
                model.pass(model.now);
            }
            Move::Confirm(which) => {
                let Some(key) = model.nth(which) else { continue };
                let containment = id_of(&bench, &key);
                model.confirm(&key);
                assert!(order(&mut bench, Command::Confirm { containment }, model.now));
            }
            Move::Contain { scope, lease, measure, twice } => {
                for _ in 0..=u8::from(twice) {
                    let scope = scope.clone();
                    let expected = model.contain(scope.clone(), lease, measure);
                    let what = Command::Contain { scope, lease, measure, break_glass: false };
                    assert_eq!(order(&mut bench, what, model.now), expected, "{seed}/{step}");
                }
            }
            Move::Found(number) => {
                port += 1;
                let IpAddr::V4(target) = destination(number) else { unreachable!() };
                model.found(destination(number));
                let syn = tcp(model.now, end(LOCAL, port), end(target, 443), 2, 100, 0, &[]);
                bench.feed(&[syn]);
            }
            Move::Pass(span) => {
                model.pass(model.now.after(span));
                bench.tick(model.now);
            }
            Move::Prove(which, good) => {
                let Some(key) = model.nth(which) else { continue };
                let receipt = proof(id_of(&bench, &key), key.0.clone(), good);
                if good {
                    model.confirm(&key);
                }
                bench.input(Input::Receipt(Box::new(receipt), model.now));
            }
            Move::Release { which, break_glass } => {
                let Some(key) = model.nth(which) else { continue };
                let containment = id_of(&bench, &key);
                let expected = model.release(&key, break_glass);
                let what = Command::Release { containment, break_glass };
                assert_eq!(order(&mut bench, what, model.now), expected, "{seed}/{step}");
            }
        }
        assert_eq!(desired(&bench), modelled(&model), "seed {seed}, step {step}: {happens:?}");
    }
    what_was_told_agrees(&bench, seed);
    bench.log
}

/// Every set that was ordered is of a later generation than the one before, the last is what is desired, and
/// each containment that ended was told to have ended.
fn what_was_told_agrees(bench: &Bench, seed: u64) {
    let orders = bench.orders();
    assert!(orders.windows(2).all(|pair| pair[0].set.generation < pair[1].set.generation));
    if let Some(last) = orders.last() {
        assert_eq!(last.set, *bench.engine.held(), "seed {seed}");
    }
    let mut open = BTreeMap::new();
    for output in &bench.log {
        let Output::Record(record) = output else { continue };
        match &record.body {
            Body::Containment(held) => {
                open.insert(held.id.clone(), held.held_until());
            }
            Body::Release(release) => {
                assert!(open.remove(&release.containment).is_some(), "seed {seed}: {release:?}");
            }
            _ => {}
        }
    }
    let held: Vec<_> = bench
        .engine
        .held()
        .containments
        .values()
        .map(|held| (&held.id, held.held_until()))
        .collect();
    let told: Vec<_> = open.iter().map(|(id, until)| (id, *until)).collect();
    assert_eq!(told, held, "seed {seed}");
}

#[test]
fn after_every_step_of_random_sequences_the_ledger_is_what_the_model_says() {
    let mut causes: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..2_000 {
        for output in play(seed) {
            let Output::Record(record) = output else { continue };
            if let Body::Release(release) = record.body {
                *causes.entry(release.cause).or_default() += 1;
            }
        }
    }
    // The sequences reach every way to an end.
    for cause in ["break-glass", "escalated", "expired", "order", "trial"] {
        assert!(causes.get(cause).is_some_and(|count| *count >= 50), "{cause}: {causes:?}");
    }
}
