//! The engine as its callers see it: frames and documents in, containments and records out.

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
mod intruder;
