//! The small privileged process that owns the tables.
