//! Everybody who plays in the laboratory: one subcommand each.

#![allow(clippy::expect_used, clippy::panic, reason = "a laboratory fails loudly")]

use sekisho_integration::actors::{
    Arguments, bare, dns, forward, http, implant, intruder, leash, listen, load, raw, ready, talk,
};
use sekisho_integration::lab::sweep;

fn main() {
    let mut words = std::env::args().skip(1);
    let role = words.next().expect("usage: actor ROLE …");
    let arguments = Arguments::parse(words);
    match role.as_str() {
        "backup" => http::backup(&arguments),
        "bare-cut" => bare::bare_cut(&arguments),
        "browse" => http::browse(&arguments),
        "capture" => listen::capture(&arguments),
        "count" => listen::count(&arguments),
        "crowd" => load::crowd(&arguments),
        "dns-serve" => dns::serve(&arguments),
        "echo" => talk::echo(&arguments),
        "forge" => load::forge(&arguments),
        "forward" => forward::run(&arguments),
        "hog" => load::hog(&arguments),
        "hold" => load::hold(&arguments),
        "http-serve" => http::serve(&arguments),
        "janitor" => janitor(&arguments),
        "knock" => implant::knock(&arguments),
        "nft-loop" => listen::nft_loop(),
        "plugx-c2" => intruder::run(&arguments),
        "plugx-client" => implant::run(&arguments),
        "pour" => load::pour(&arguments),
        "send" => raw::send(&arguments),
        "sink" => listen::sink(&arguments),
        "talk" => talk::talk(&arguments),
        "updates" => http::updates(&arguments),
        other => panic!("no actor plays {other}"),
    }
}

/// `janitor PREFIX DIR`: waits until the laboratory has gone, however it went, and removes what it left.
fn janitor(arguments: &Arguments) {
    let [prefix, dir] = arguments.free.as_slice() else {
        panic!("usage: actor janitor PREFIX DIR")
    };
    assert!(prefix.starts_with("sk") && prefix.len() > 3, "{prefix} is no prefix of a laboratory");
    leash(&ready(), |_| ready());
    sweep(prefix);
    for mount in std::fs::read_to_string("/proc/mounts")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
    {
        if mount.starts_with(dir.as_str()) {
            let _left = std::process::Command::new("umount").arg("-l").arg(mount).status();
        }
    }
    let _gone = std::fs::remove_dir_all(dir);
}
