//! Relatives of PlugX and command-and-control frameworks. Enters: observations. Leaves: signals.
//! Must not know: policy, modes, cuts.

mod cobaltstrike;
mod codec;
mod deflated;
mod derusbi;
mod dnscat2;
mod framework;
mod gh0st;
mod havoc;
mod iodine;
mod meterpreter;
mod mythic;
mod nine002;
mod poisonivy;
mod ptunnel;
mod shadowpad;
mod sliver;
pub(super) mod telling;
mod winnti;
mod zxshell;

use super::registry::Registration;

/// The detectors of this family.
pub(super) const DETECTORS: &[Registration] = &[
    cobaltstrike::REGISTRATION,
    sliver::REGISTRATION,
    mythic::REGISTRATION,
    dnscat2::REGISTRATION,
    iodine::REGISTRATION,
    ptunnel::REGISTRATION,
    gh0st::REGISTRATION,
    nine002::REGISTRATION,
    derusbi::REGISTRATION,
    zxshell::REGISTRATION,
    winnti::REGISTRATION,
    havoc::REGISTRATION,
    meterpreter::REGISTRATION,
    poisonivy::REGISTRATION,
    shadowpad::REGISTRATION,
];
