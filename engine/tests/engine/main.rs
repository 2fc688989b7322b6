//! The engine as its callers see it: frames and documents in, containments and records out.

#[cfg(test)]
mod adversary;
#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod containment;
#[cfg(test)]
mod determinism;
#[cfg(test)]
mod finding;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod frameworks;
#[cfg(test)]
mod intruder;
#[cfg(test)]
mod ladder;
#[cfg(test)]
mod learn;
#[cfg(test)]
mod ledger_model;
#[cfg(test)]
mod plugx_cases;
#[cfg(test)]
#[path = "../../src/detect/plugx_wire/forge.rs"]
mod plugx_forge;
#[cfg(test)]
mod plugx_transports;
#[cfg(test)]
mod relatives;
#[cfg(test)]
mod shipped;
