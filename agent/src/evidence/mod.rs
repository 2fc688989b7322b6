//! What was on the wire before and at a match, kept for people.
