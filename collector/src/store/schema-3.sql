-- What hosts learned, by the time at which they began. Its hours count once the whole of it is here.
CREATE TABLE learned (
  agent TEXT NOT NULL, from_at INTEGER NOT NULL, role TEXT NOT NULL, until INTEGER, version TEXT, hours INTEGER NOT NULL DEFAULT 0, week TEXT, workloads TEXT,
  received_at INTEGER NOT NULL, PRIMARY KEY (agent, from_at)
) WITHOUT ROWID;
CREATE TABLE episodes (agent TEXT NOT NULL, from_at INTEGER NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (agent, from_at, name)) WITHOUT ROWID;

-- Sealed baselines and certificates of roles; the newest of each is the one in force.
CREATE TABLE certified (
  role TEXT NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, sealed TEXT NOT NULL, expires INTEGER NOT NULL, pushed_at INTEGER NOT NULL,
  PRIMARY KEY (role, kind, version)
) WITHOUT ROWID;

-- What people decided on the page. Never changed; `chain` is the hash of the line after the hash before it.
CREATE TABLE rulings (row INTEGER PRIMARY KEY, role TEXT NOT NULL, item TEXT NOT NULL, line TEXT NOT NULL, chain TEXT NOT NULL);
CREATE INDEX rulings_role ON rulings (role, item);

-- Cuts of behaviour that nobody ordered, by the collector's clock.
CREATE TABLE behaviour_cuts (agent TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL, role TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (agent, boot, seq)) WITHOUT ROWID;
CREATE INDEX behaviour_cuts_at ON behaviour_cuts (at);

-- The role of each agent that may come in: what it learned for last, else its group.
CREATE VIEW roles AS SELECT h.agent AS agent, h.host AS host,
  coalesce((SELECT l.role FROM learned l WHERE l.agent = h.agent ORDER BY l.received_at DESC LIMIT 1), h.grp) AS role
  FROM hosts h WHERE NOT EXISTS (SELECT 1 FROM denied d WHERE d.agent = h.agent);
