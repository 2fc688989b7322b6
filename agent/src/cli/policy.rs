//! `sekisho policy show|seal|verify`; sealing and verifying need neither agent nor network.

use super::args::{ConfigArgs, Format, PolicyArgs, PolicyVerb, ReadArgs};
use super::contain::load;
use super::text::seconds;
use super::{Console, Outcome, cannot_write};
use crate::chain::{Complaint, causes};
use crate::clock;
use crate::state::{PolicyOrigin, load_anchors, load_policy, read_sealed_policy, write_atomically};
use sekisho_schema::policy::Exemption;
use sekisho_schema::sealed::{key_id, parse_secret};
use sekisho_schema::{Policy, Sealed, Span};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn run(args: PolicyArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    match args.verb {
        PolicyVerb::Seal { file, key, expires, out } => seal(&file, &key, expires, &out, console),
        PolicyVerb::Show(args) => show(&args, console),
        PolicyVerb::Verify { file, trust, config } => verify(&file, trust, &config, console),
    }
}

fn seal(
    file: &Path,
    key: &Path,
    expires: Span,
    out: &Path,
    console: &mut Console<'_>,
) -> Result<Outcome, Complaint> {
    let refuse = |error: String, help: &str| {
        Complaint::new(error, format!("nothing was sealed; {} is as it was", out.display()), help)
    };
    let text = fs::read_to_string(file).map_err(|error| {
        refuse(format!("cannot read {}: {error}", file.display()), "name the policy in TOML")
    })?;
    let policy = Policy::parse(&text).map_err(|error| {
        refuse(
            format!("{}: {}", file.display(), causes(&error)),
            "mend the policy; `sekisho check --policy FILE` checks it too",
        )
    })?;
    let secret = fs::read_to_string(key).map_err(|error| {
        refuse(format!("cannot read {}: {error}", key.display()), "name the file of the secret key")
    })?;
    let secret = parse_secret(&secret).map_err(|error| {
        refuse(
            format!("{}: {error}", key.display()),
            "name the file of the secret key, not of the public one",
        )
    })?;
    let until = clock::now().after(expires);
    let sealed = Sealed::wrap("policy", policy.version, until, text.as_bytes()).signed_by(&secret);
    let mut text = sealed.to_text();
    text.push('\n');
    write_atomically(out, text.as_bytes(), 0o644)
        .map_err(|error| refuse(causes(&error), "write elsewhere with --out"))?;
    writeln!(
        console.out,
        "sealed policy {} by key {} until {}: {}",
        policy.version,
        key_id(&secret.verifying_key()),
        seconds(until),
        out.display()
    )
    .map_err(|error| cannot_write(&error))?;
    Ok(Outcome::Fine)
}

fn verify(
    file: &Path,
    trust: Option<PathBuf>,
    config: &ConfigArgs,
    console: &mut Console<'_>,
) -> Result<Outcome, Complaint> {
    let trust = match trust {
        Some(trust) => trust,
        None => load(config)?.trust,
    };
    let cannot = |error: String| {
        Complaint::new(
            error,
            "nothing was changed",
            "name a policy that `policy seal` wrote, and the directory of *.pub files with --trust DIR",
        )
    };
    let anchors = load_anchors(&trust).map_err(|error| cannot(causes(&error)))?;
    let sealed = read_sealed_policy(file).map_err(|error| cannot(causes(&error)))?;
    match sealed.open_policy(&anchors, clock::now(), 0) {
        Ok(policy) => {
            let ids: Vec<&str> = sealed.signatures.keys().map(String::as_str).collect();
            writeln!(
                console.out,
                "policy {} ({}) is sealed by {} and fresh until {}",
                policy.version,
                policy.mode,
                ids.join(", "),
                seconds(sealed.expires)
            )
            .map_err(|error| cannot_write(&error))?;
            Ok(Outcome::Fine)
        }
        Err(error) => {
            Complaint::new(
                format!("policy {} (version {}) refused: {error}", file.display(), sealed.version),
                "an agent with these anchors would keep the policy that it has",
                format!("anchors were read from {}; re-seal with a key of theirs", trust.display()),
            )
            .print(console.err);
            Ok(Outcome::Finding)
        }
    }
}

fn show(args: &ReadArgs, console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let config = load(&args.config)?;
    // Only looks: a newer file of the configuration is adopted by the agent, not by this verb.
    let loaded = load_policy(&config.state, &config.trust, None, clock::now());
    for error in &loaded.refused {
        Complaint::new(
            causes(error),
            "another policy is in force",
            "re-seal it, or mend the trust anchors",
        )
        .print(console.err);
    }
    let origin = match loaded.origin {
        PolicyOrigin::BuiltIn => "built-in",
        PolicyOrigin::File => "file",
        PolicyOrigin::State => "adopted before",
    };
    let tell = if args.output == Format::Json {
        serde_json::to_string(
            &serde_json::json!({"origin": loaded.origin, "policy": *loaded.policy}),
        )
        .map_err(std::io::Error::from)
        .and_then(|text| writeln!(console.out, "{text}"))
    } else {
        table(&loaded.policy, origin, console)
    };
    tell.map_err(|error| cannot_write(&error))?;
    Ok(if loaded.refused.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn table(policy: &Policy, origin: &str, console: &mut Console<'_>) -> std::io::Result<()> {
    let out = &mut *console.out;
    writeln!(out, "policy {} ({origin}), mode {}", policy.version, policy.mode)?;
    if let Some(expires) = policy.expires {
        writeln!(out, "fresh until {}", seconds(expires))?;
    }
    writeln!(
        out,
        "duty: {}: {}, deputy {}",
        policy.duty.group, policy.duty.owner, policy.duty.deputy
    )?;
    writeln!(
        out,
        "inside: {}",
        policy.inside.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )?;
    for rule in &policy.decide {
        let grade = format!("{:?}", rule.grade).to_lowercase();
        let what = match rule.level {
            0 => "record only".to_owned(),
            3 => format!("cut the destination for {}", rule.lease),
            5 => format!("cut the host's egress for {}", rule.lease),
            6 => format!("cut all but management for {}", rule.lease),
            level => format!("level {level} for {}", rule.lease),
        };
        writeln!(
            out,
            "decide: {}, {grade} or worse: {what} (level {})",
            rule.detector, rule.level
        )?;
    }
    for exemption in &policy.exempt {
        match exemption {
            Exemption::Peer { name, to, port, .. } => writeln!(
                out,
                "exempt: {name}: to {to}{}",
                port.map(|port| format!(" port {port}")).unwrap_or_default()
            )?,
            Exemption::Service { name, transport, port, from } => {
                writeln!(out, "exempt: {name}: service {transport}/{port} for {from}")?
            }
        }
    }
    Ok(())
}
