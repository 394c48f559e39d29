/**
 * The step of schema `mmlite` for peers that leave, are given up, or begin anew.
 */

/** The SQL of the step. */
export const LEAVE_STEP = `ALTER TABLE mmlite.peer ADD COLUMN away_since timestamptz;
ALTER TABLE mmlite.peer ADD COLUMN evicted_at timestamptz;
ALTER TABLE mmlite.peer ADD COLUMN evicted_why text;
ALTER TABLE mmlite.peer ADD COLUMN repair_due timestamptz;
ALTER TABLE mmlite.peer ADD COLUMN left_lsn pg_lsn;
ALTER TABLE mmlite.peer ADD COLUMN left_commit_timestamp timestamptz;
COMMENT ON COLUMN mmlite.peer.away_since IS 'since when nothing goes to the peer; null while it does';
COMMENT ON COLUMN mmlite.peer.evicted_at IS 'when its slot was dropped for the WAL that it kept; null while it was not';
COMMENT ON COLUMN mmlite.peer.evicted_why IS 'which bound was passed, as the message about it ends';
COMMENT ON COLUMN mmlite.peer.repair_due IS
  'since when rows may differ from those of the peer, because something was never delivered; null once they were compared';
COMMENT ON COLUMN mmlite.peer.left_lsn IS 'of a removed peer: how far it was applied here, a position in its WAL';
COMMENT ON COLUMN mmlite.peer.left_commit_timestamp IS 'of a removed peer: when the last of its transactions here committed there';

ALTER TABLE mmlite.progress ADD COLUMN slot_lsn pg_lsn;
COMMENT ON COLUMN mmlite.progress.slot_lsn IS
  'where the slot of the sender began that feeds this node: with another one something may be missing';`;
