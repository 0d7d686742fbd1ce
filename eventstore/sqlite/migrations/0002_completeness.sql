-- A copy of the file without its -wal must not pass for the log.
-- Whether the database file, without its -wal, holds all events: in the file itself it is 0 from
-- before the first append of a writer until after its last. What says so of a log that is being
-- written is in the -wal, beside which it is 1.
CREATE TABLE completeness (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    whole INTEGER NOT NULL
) STRICT;
INSERT INTO completeness (id, whole) VALUES (1, 1);
