//! From what a person wrote to a policy that makes sense.

use super::{
    DecideRule, Exemption, POLICY_SCHEMA, ParsePolicyError, Policy, RawExemption, RawPolicy,
    read_toml,
};
use crate::net::Transport;
use crate::time::Span;

impl Policy {
    /// Reads a policy from TOML and checks its sense.
    ///
    /// # Errors
    /// [`ParsePolicyError`] with line and column for a malformed text, or what makes no sense.
    pub fn parse(text: &str) -> Result<Self, ParsePolicyError> {
        let raw: RawPolicy =
            read_toml(text).map_err(|(at, message)| ParsePolicyError::Malformed { at, message })?;
        Self::build(raw)
    }

    /// Checks the sense of a policy.
    ///
    /// # Errors
    /// [`ParsePolicyError::Senseless`] with the reason.
    pub fn build(raw: RawPolicy) -> Result<Self, ParsePolicyError> {
        let refuse = |why: String| Err(ParsePolicyError::Senseless(why));
        if raw.schema != POLICY_SCHEMA {
            return refuse(format!("schema is \"{}\", expected \"{POLICY_SCHEMA}\"", raw.schema));
        }
        if raw.inside.is_empty() {
            return refuse("inside is empty: without a perimeter every network would be outside; name the inside networks or leave the key out".to_owned());
        }
        for (who, text) in
            [("owner", &raw.duty.owner), ("deputy", &raw.duty.deputy), ("group", &raw.duty.group)]
        {
            if text.trim().is_empty() {
                return refuse(format!(
                    "duty.{who} is empty: a decision without a person behind it is not a policy"
                ));
            }
        }
        raw.decide.iter().try_for_each(check_rule)?;
        check_bounds(&raw)?;
        let exempt = raw.exempt.into_iter().map(build_exemption).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            version: raw.version,
            mode: raw.mode,
            inside: raw.inside,
            decide: raw.decide,
            budget: raw.budget,
            exempt,
            allowance: raw.allowance,
            allow: raw.allow,
            trial: raw.trial,
            escalation: raw.escalation,
            names: raw.names,
            drill: raw.drill,
            orders: raw.orders,
            duty: raw.duty,
            expires: None,
        })
    }
}

fn check_rule(rule: &DecideRule) -> Result<(), ParsePolicyError> {
    let refuse = |why: String| Err(ParsePolicyError::Senseless(why));
    if rule.level > 6 {
        return refuse(format!(
            "decide for \"{}\": level {} is not for a policy; levels are 0 (record), 1 (throttle), 2 (quota), 3 (destination), 4 (workload), 5 (host), 6 (all but management); 7 (link) is for a person's order",
            rule.detector, rule.level
        ));
    }
    for (key, given, level) in [
        ("bytes-per-second", rule.bytes_per_second.is_some(), 1),
        ("quota-bytes", rule.quota_bytes.is_some(), 2),
    ] {
        if given != (rule.level == level) {
            return refuse(format!(
                "decide for \"{}\": {key} and level {level} belong together",
                rule.detector
            ));
        }
    }
    if rule.bytes_per_second == Some(0) || rule.quota_bytes == Some(0) {
        return refuse(format!(
            "decide for \"{}\": nothing at all is level 3, not a throttle or quota of 0",
            rule.detector
        ));
    }
    if (rule.freeze || rule.only_workload) && rule.level != 4 {
        return refuse(format!(
            "decide for \"{}\": freeze and only-workload belong to level 4",
            rule.detector
        ));
    }
    if rule.level > 0 && !(Span::from_secs(1)..=Span::from_hours(24 * 30)).contains(&rule.lease) {
        return refuse(format!(
            "decide for \"{}\": lease {} is outside 1s to 30d",
            rule.detector, rule.lease
        ));
    }
    Ok(())
}

/// The numbers outside the table of decisions.
fn check_bounds(raw: &RawPolicy) -> Result<(), ParsePolicyError> {
    let refuse = |why: String| Err(ParsePolicyError::Senseless(why));
    if raw.trial.lasts != Span::ZERO
        && !(Span::from_secs(10)..=Span::from_secs(3600)).contains(&raw.trial.lasts)
    {
        return refuse(format!(
            "trial.lasts is {}: a trial takes 10s to 1h, or 0s for none",
            raw.trial.lasts
        ));
    }
    if raw.escalation.up_to > 6 || raw.escalation.after == 0 {
        return refuse("escalation: up-to is 0 (none) to 6, after is at least 1".to_owned());
    }
    if raw.escalation.up_to > 0
        && !(Span::from_secs(1)..=Span::from_hours(24)).contains(&raw.escalation.within)
    {
        return refuse(format!("escalation.within is {}: it is 1s to 24h", raw.escalation.within));
    }
    if raw.names.longest_label > 63 {
        return refuse("names.longest-label is above 63, which is DNS's own bound".to_owned());
    }
    if raw.orders.up_to > 7
        || !(Span::from_secs(1)..=Span::from_hours(24 * 30)).contains(&raw.orders.longest)
    {
        return refuse("orders: up-to is 0 (none) to 7, longest is 1s to 30d".to_owned());
    }
    for drill in &raw.drill {
        if drill.name.trim().is_empty() || drill.every < Span::from_hours(1) {
            return refuse("drill: needs a name, and takes place at most every 1h".to_owned());
        }
    }
    Ok(())
}

fn build_exemption(raw: RawExemption) -> Result<Exemption, ParsePolicyError> {
    let refuse =
        |why: &str| Err(ParsePolicyError::Senseless(format!("exempt \"{}\": {why}", raw.name)));
    if raw.name.trim().is_empty() {
        return refuse("name is empty");
    }
    match (&raw.to, &raw.service) {
        (Some(to), None) => {
            if to.prefix_len() == 0 {
                return refuse(
                    "to names every address; an exemption that exempts all would make every cut empty",
                );
            }
            if raw.from.is_some() {
                return refuse("from belongs to service, not to to");
            }
            if raw.port.is_some() && !matches!(raw.transport, Some(Transport::Tcp | Transport::Udp))
            {
                return refuse("a port needs transport = \"tcp\" or \"udp\"");
            }
            Ok(Exemption::Peer {
                name: raw.name,
                to: *to,
                transport: raw.transport,
                port: raw.port,
            })
        }
        (None, Some(service)) => {
            let Some((transport, port)) = service.split_once('/') else {
                return refuse("service is written tcp/443 or udp/123");
            };
            let transport = match transport {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => return refuse("service is written tcp/443 or udp/123"),
            };
            let Ok(port) = port.parse() else {
                return refuse("the port of service is not a number from 1 to 65535");
            };
            let Some(from) = raw.from else {
                return refuse("service needs from: the networks that it may answer");
            };
            if raw.transport.is_some() || raw.port.is_some() {
                return refuse("transport and port belong to to, not to service");
            }
            Ok(Exemption::Service { name: raw.name, transport, port, from })
        }
        _ => refuse("needs either to or service"),
    }
}
