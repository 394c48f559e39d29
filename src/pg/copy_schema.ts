/**
 * The step of schema `mmlite` for copying rows: what has to survive a restart of the node that they come to.
 */

/** Name of the trigger that keeps applications from writing to a table while rows are copied into it. */
export const COPYING_TRIGGER = "mmlite_copying";

/** The SQL of the step. */
export const COPY_STEP = `CREATE TABLE mmlite.copy (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  source text NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE mmlite.copy IS
  'there while the rows of this node are to be copied from another one: nothing is applied meanwhile';

CREATE FUNCTION mmlite.refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'cannot write to table %.%: its rows are being copied from another node', TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Write to another node until mmlite status shows that it has ended.';
END $$;
COMMENT ON FUNCTION mmlite.refuse_write IS 'trigger ${COPYING_TRIGGER} of each table, until its rows are whole';

ALTER TABLE mmlite.peer ADD COLUMN copied_snapshot text;
ALTER TABLE mmlite.peer ADD COLUMN copied_until pg_lsn;
COMMENT ON COLUMN mmlite.peer.copied_snapshot IS
  'which transactions of the peer came with its rows (txid_current_snapshot() there): they do not come again';
COMMENT ON COLUMN mmlite.peer.copied_until IS 'position in the WAL of the peer that all of them were committed before';`;

/** The SQL of the step for what follows the rows: applications are kept out until this node has caught up. */
export const GO_LIVE_STEP = `ALTER TABLE mmlite.copy ADD COLUMN whole_at timestamptz;
ALTER TABLE mmlite.copy ADD COLUMN report json;
COMMENT ON COLUMN mmlite.copy.whole_at IS
  'when all rows had come: what is committed on other nodes is applied from then on, and applications wait for what was';
COMMENT ON COLUMN mmlite.copy.report IS 'the result of the job, for the end of it; null until then';`;
