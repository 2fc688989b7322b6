CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Times are nanoseconds since 1970-01-01T00:00:00Z by the collector's clock, unless the agent said them.
CREATE TABLE hosts (
  agent TEXT PRIMARY KEY, host TEXT NOT NULL, grp TEXT NOT NULL, enrolled_at INTEGER NOT NULL, certificate_until INTEGER NOT NULL,
  last_seen INTEGER, boot TEXT, version TEXT, requested TEXT, effective TEXT, why TEXT, policy_version INTEGER,
  bytes_out INTEGER, spool INTEGER, coverage TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
CREATE TABLE denied (agent TEXT PRIMARY KEY, at INTEGER NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tokens (
  id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, grp TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  used_at INTEGER, used_by TEXT, revoked_at INTEGER
) WITHOUT ROWID;

-- `link` is 1 when the chain from the event before holds, 0 when it is broken, NULL when it can't be said yet.
CREATE TABLE events (
  agent TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, received_at INTEGER NOT NULL,
  type TEXT NOT NULL, json TEXT NOT NULL, chain TEXT, link INTEGER, PRIMARY KEY (agent, boot, seq)
);
CREATE TABLE boots (agent TEXT NOT NULL, boot TEXT NOT NULL, ack INTEGER NOT NULL, first_at INTEGER NOT NULL, PRIMARY KEY (agent, boot)) WITHOUT ROWID;
CREATE TABLE faults (agent TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, what TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (agent, boot, seq, what)) WITHOUT ROWID;

-- Derived from events in the transaction that stores them.
CREATE TABLE findings (
  row INTEGER PRIMARY KEY, agent TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL,
  detector TEXT NOT NULL, grade TEXT NOT NULL, action TEXT NOT NULL, containment TEXT, UNIQUE (agent, boot, seq)
);
CREATE INDEX findings_at ON findings (at);
CREATE INDEX findings_id ON findings (agent, id);
CREATE TABLE receipts (
  agent TEXT NOT NULL, containment TEXT NOT NULL, generation INTEGER NOT NULL, at INTEGER NOT NULL, finding TEXT, applied INTEGER NOT NULL, error TEXT,
  cut TEXT, exemptions TEXT, time_to_contain_ns INTEGER, leaked_packets INTEGER NOT NULL, leaked_bytes INTEGER NOT NULL,
  PRIMARY KEY (agent, containment, generation)
) WITHOUT ROWID;
CREATE TABLE containments (
  agent TEXT NOT NULL, id TEXT NOT NULL, json TEXT, since INTEGER, until INTEGER, absent_at INTEGER,
  released_at INTEGER, release_cause TEXT, released_by TEXT, release_reason TEXT, PRIMARY KEY (agent, id)
) WITHOUT ROWID;

CREATE TABLE samples (agent TEXT NOT NULL, at INTEGER NOT NULL, boot TEXT NOT NULL, bytes_out INTEGER NOT NULL, PRIMARY KEY (agent, at)) WITHOUT ROWID;
CREATE INDEX samples_at ON samples (at);
CREATE TABLE policies (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, sealed TEXT NOT NULL, expires INTEGER NOT NULL, pushed_at INTEGER NOT NULL);
