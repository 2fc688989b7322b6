-- Orders on their way to hosts, one row for each agent that has the host's name.
CREATE TABLE orders (
  id TEXT NOT NULL, agent TEXT NOT NULL, host TEXT NOT NULL, sealed TEXT NOT NULL, sealed_by TEXT NOT NULL, sent_at INTEGER NOT NULL, expires INTEGER NOT NULL,
  fetched_at INTEGER, answered_at INTEGER, done INTEGER, detail TEXT, containment TEXT, PRIMARY KEY (id, agent)
) WITHOUT ROWID;
CREATE INDEX orders_open ON orders (answered_at, expires);

-- What a person is told of. `key` names the incident: it is told once, however often it is reported.
CREATE TABLE notices (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, at INTEGER NOT NULL, kind TEXT NOT NULL, agent TEXT, host TEXT, grp TEXT, subject TEXT NOT NULL, text TEXT NOT NULL,
  seen_at INTEGER, seen_by TEXT, seen_note TEXT
);
-- Who was told, when, and what came of it. `who` is `owner` or `deputy`.
CREATE TABLE deliveries (
  notice INTEGER NOT NULL, who TEXT NOT NULL, due_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, delivered_at INTEGER, given_up_at INTEGER, failure TEXT,
  PRIMARY KEY (notice, who)
) WITHOUT ROWID;
CREATE TABLE delivery_log (row INTEGER PRIMARY KEY, notice INTEGER NOT NULL, who TEXT NOT NULL, at INTEGER NOT NULL, outcome TEXT NOT NULL);

-- Certificates by the hash of their key. One that was overtaken by a later one that is in use is of no use any more.
CREATE TABLE certificates (agent TEXT NOT NULL, spki TEXT NOT NULL, issued_at INTEGER NOT NULL, until INTEGER NOT NULL, used_at INTEGER, PRIMARY KEY (agent, spki)) WITHOUT ROWID;

CREATE TABLE drills (
  agent TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, name TEXT NOT NULL, passed INTEGER NOT NULL, detail TEXT NOT NULL, by TEXT,
  time_to_detect_ns INTEGER, time_to_contain_ns INTEGER, leaked_bytes INTEGER NOT NULL, PRIMARY KEY (agent, boot, seq)
) WITHOUT ROWID;
CREATE TABLE previews (agent TEXT NOT NULL, containment TEXT NOT NULL, at INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (agent, containment)) WITHOUT ROWID;

-- `first_at`: when it was first heard of, by the collector's clock.
ALTER TABLE containments ADD COLUMN first_at INTEGER;
ALTER TABLE containments ADD COLUMN confirmed_at INTEGER;
CREATE INDEX containments_first ON containments (first_at);
ALTER TABLE receipts ADD COLUMN open TEXT NOT NULL DEFAULT '[]';
ALTER TABLE receipts ADD COLUMN coverage TEXT NOT NULL DEFAULT '[]';
ALTER TABLE receipts ADD COLUMN target TEXT NOT NULL DEFAULT '[]';

-- Events up to this sequence were removed on purpose; the chain goes on from this hash.
ALTER TABLE boots ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE boots ADD COLUMN pruned_chain TEXT;
CREATE INDEX events_received ON events (received_at);
CREATE TABLE prunings (row INTEGER PRIMARY KEY, at INTEGER NOT NULL, before INTEGER NOT NULL, why TEXT NOT NULL, events INTEGER NOT NULL, findings INTEGER NOT NULL, other INTEGER NOT NULL);
