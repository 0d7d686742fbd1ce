-- The event log, schema version 2. docs/log-format.md describes it for readers in other languages.
-- Names are kept once and referred to by number: a text key of that length in every row and index
-- halves the speed of appending.

CREATE TABLE stream (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE event_type (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Positions are assigned by the one writer, never by SQLite, so that they have no gaps and VACUUM
-- cannot change them. There is no index on event_id: its values come in no useful order, and
-- keeping them sorted would cost more than the rest of an append.
CREATE TABLE event_record (
    position       INTEGER PRIMARY KEY,
    stream_id      INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    type_id        INTEGER NOT NULL,
    event_id       TEXT NOT NULL,
    recorded_at_ns INTEGER NOT NULL,
    correlation_id TEXT,
    causation      INTEGER,
    actor          TEXT,            -- {"uid":0,"gid":0,"pid":1}
    data           TEXT NOT NULL,   -- JSON
    documents      TEXT,            -- JSON array of digests, NULL if there are none
    leaf_hash      BLOB NOT NULL,
    UNIQUE (stream_id, version)
) STRICT;

CREATE TABLE documents (
    digest     TEXT NOT NULL PRIMARY KEY,   -- sha256:<64 hexadecimal digits>
    media_type TEXT NOT NULL,
    body       BLOB NOT NULL
) STRICT;

-- Heads of the Merkle tree over the leaf hashes, signed. The peaks, 32 bytes each, are the roots of
-- the tree's complete subtrees: from them it goes on growing without a look at older rows.
CREATE TABLE checkpoints (
    size         INTEGER PRIMARY KEY,   -- covers positions 1 to size
    root         BLOB NOT NULL,
    peaks        BLOB NOT NULL,
    note         TEXT NOT NULL,         -- C2SP tlog-checkpoint
    sealed_at_ns INTEGER NOT NULL
) STRICT;

CREATE VIEW events AS
SELECT
    record.position       AS position,
    stream.name           AS stream,
    record.version        AS version,
    event_type.name       AS type,
    record.event_id       AS event_id,
    record.recorded_at_ns AS recorded_at_ns,
    record.correlation_id AS correlation_id,
    record.causation      AS causation,
    record.actor          AS actor,
    record.data           AS data,
    record.leaf_hash      AS leaf_hash
FROM event_record AS record
JOIN stream ON stream.id = record.stream_id
JOIN event_type ON event_type.id = record.type_id;

CREATE VIEW event_documents AS
SELECT record.position AS position, entry.key AS ordinal, entry.value AS digest
FROM event_record AS record, json_each(record.documents) AS entry
WHERE record.documents IS NOT NULL;

-- Against accidents with a SQL shell. Against intent there is the leaf hash.
CREATE TRIGGER event_record_in_order BEFORE INSERT ON event_record
WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM event_record)
BEGIN SELECT RAISE(ABORT, 'positions have no gaps and are never reused'); END;
CREATE TRIGGER event_record_no_update BEFORE UPDATE ON event_record
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER event_record_no_delete BEFORE DELETE ON event_record
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TRIGGER documents_no_update BEFORE UPDATE ON documents
BEGIN SELECT RAISE(ABORT, 'documents are never changed'); END;
CREATE TRIGGER documents_no_delete BEFORE DELETE ON documents
BEGIN SELECT RAISE(ABORT, 'documents are never deleted'); END;
CREATE TRIGGER stream_no_update BEFORE UPDATE ON stream
BEGIN SELECT RAISE(ABORT, 'streams are never renamed'); END;
CREATE TRIGGER stream_no_delete BEFORE DELETE ON stream
BEGIN SELECT RAISE(ABORT, 'streams are never deleted'); END;
CREATE TRIGGER event_type_no_update BEFORE UPDATE ON event_type
BEGIN SELECT RAISE(ABORT, 'event types are never renamed'); END;
CREATE TRIGGER event_type_no_delete BEFORE DELETE ON event_type
BEGIN SELECT RAISE(ABORT, 'event types are never deleted'); END;
CREATE TRIGGER checkpoints_in_order BEFORE INSERT ON checkpoints
WHEN NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoints)
BEGIN SELECT RAISE(ABORT, 'a checkpoint covers more than the one before'); END;
CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are never changed'); END;
CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are never deleted'); END;

-- Whether the database file, without its -wal, holds all events: in the file itself it is 0 from
-- before the first append of a writer until after its last. What says so of a log that is being
-- written is in the -wal, beside which it is 1.
CREATE TABLE completeness (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    whole INTEGER NOT NULL
) STRICT;
INSERT INTO completeness (id, whole) VALUES (1, 1);
