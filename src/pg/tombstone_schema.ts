/**
 * The step of schema `mmlite` by which deleted rows are found without reading every list of them.
 *
 * Short lists are noted as they are and searched whole, which is fast while they are few. Long ones are runs: pieces in
 * the order of their hashes, of which an index tells the only one that can have a hash. Runs are made of short lists,
 * and long ones of short ones, by `mmlite.merge_tombstones`, which `node/group_keeper.ts` calls; the more lists there
 * are, the fewer are left to search.
 */
import { COMMIT_LOCK, SETTLE_ROWS_SQLSTATE } from "./conflict_schema.ts";

/** Bytes of an entry: hash and time. */
const ENTRY_BYTES = 16;
/** Entries of a piece, at most: four of them fill a page. */
const PIECE_ENTRIES = 120;
/** A list of more bytes is noted as a run. */
export const MAX_LIST_BYTES = PIECE_ENTRIES * ENTRY_BYTES;
/** So many lists of about one length become one. */
const MERGED_LISTS = 16;
/** The powers of this number by which lists are about of one length. */
const LENGTH_STEP = 8;
/** Entries of a run that no longer becomes part of a longer one: a merge takes less than a second for two of them. */
const FINAL_ENTRIES = 0x2_0000;
/** Lists that one merge takes at most. */
const MAX_MERGED_LISTS = 10_000;
/** What a search for one hash in a run costs, in entries that are read instead. */
const SEARCH_COST = 8;

/** The SQL of the step. */
export const TOMBSTONE_STEP = `ALTER TABLE mmlite.tombstone
  ADD COLUMN run bigint, ADD COLUMN length integer, ADD COLUMN newest_xid bigint;
CREATE UNIQUE INDEX tombstone_run ON mmlite.tombstone (run) WHERE run IS NOT NULL;
COMMENT ON COLUMN mmlite.tombstone.run IS 'of a long list its pieces in mmlite.tombstone_piece; entries is empty then';
COMMENT ON COLUMN mmlite.tombstone.length IS 'entries of a long list; null where they are here';
COMMENT ON COLUMN mmlite.tombstone.newest_xid IS
  'of a list that was made of others the last transaction that noted one of them; null for one that xmin has noted';

CREATE SEQUENCE mmlite.tombstone_run_id;
CREATE TABLE mmlite.tombstone_piece (
  run bigint NOT NULL,
  first_hash bytea NOT NULL,
  entries bytea NOT NULL,
  PRIMARY KEY (run, first_hash)
);
ALTER TABLE mmlite.tombstone_piece ALTER entries SET STORAGE PLAIN;
COMMENT ON TABLE mmlite.tombstone_piece IS 'entries of long lists of mmlite.tombstone, ${PIECE_ENTRIES} at most in each';

CREATE FUNCTION mmlite.note_tombstones(of_node text, last_at timestamptz, of_entries bytea) RETURNS void
  LANGUAGE plpgsql AS $$
DECLARE
  run_id bigint := nextval('mmlite.tombstone_run_id');
BEGIN
  INSERT INTO mmlite.tombstone_piece (run, first_hash, entries)
  SELECT run_id, substring(of_entries, at + 1, 8), substring(of_entries, at + 1, ${MAX_LIST_BYTES})
    FROM generate_series(0, length(of_entries) - 1, ${MAX_LIST_BYTES}) AS at;
  INSERT INTO mmlite.tombstone (origin, last_timestamp, entries, run, length)
    VALUES (of_node, last_at, '', run_id, length(of_entries) / ${ENTRY_BYTES});
END $$;
COMMENT ON FUNCTION mmlite.note_tombstones IS 'notes a long list of deleted rows, which is in the order of their hashes';

CREATE FUNCTION mmlite.merge_tombstones(of_node text, seen txid_snapshot) RETURNS integer
  LANGUAGE plpgsql SET work_mem = '32MB' SET enable_hashjoin = on SET enable_seqscan = on AS $$
DECLARE
  run_id bigint;
  places tid[];
  merged_runs bigint[];
  last_at timestamptz;
  last_xid bigint;
BEGIN
  -- Of those that are about as long, and the shortest for which there are enough.
  WITH list AS (
    SELECT d.ctid AS place, d.run, d.last_timestamp, coalesce(d.newest_xid, mmlite.full_xid(d.xmin)) AS xid,
           coalesce(d.length, length(d.entries) / ${ENTRY_BYTES}) AS length
      FROM mmlite.tombstone d WHERE d.origin = of_node
  ), sorted AS (
    SELECT l.*, floor(ln(greatest(l.length, 1)::float8) / ln(${LENGTH_STEP}::float8)) AS class FROM list l
     WHERE l.length < ${FINAL_ENTRIES} AND txid_visible_in_snapshot(l.xid, seen)
  ), chosen AS (
    SELECT s.*, sum(s.length) OVER w AS total, row_number() OVER w AS number FROM sorted s
     WHERE s.class = (SELECT c.class FROM sorted c GROUP BY c.class HAVING count(*) >= ${MERGED_LISTS}
                       ORDER BY c.class LIMIT 1)
    WINDOW w AS (ORDER BY s.last_timestamp, s.place ROWS UNBOUNDED PRECEDING)
  )
  SELECT array_agg(c.place), array_agg(c.run) FILTER (WHERE c.run IS NOT NULL), max(c.last_timestamp), max(c.xid)
    INTO places, merged_runs, last_at, last_xid FROM chosen c
   WHERE c.number <= ${MAX_MERGED_LISTS} AND c.total <= ${2 * FINAL_ENTRIES};
  IF places IS NULL THEN RETURN 0; END IF;
  run_id := nextval('mmlite.tombstone_run_id');
  -- In one statement, so that nobody sees a row in neither.
  WITH gone AS (
    DELETE FROM mmlite.tombstone d WHERE d.ctid = ANY (places) RETURNING d.entries
  ), gone_piece AS (
    DELETE FROM mmlite.tombstone_piece p WHERE p.run = ANY (merged_runs) RETURNING p.entries
  ), list AS (
    SELECT g.entries || '' AS entries FROM gone g UNION ALL SELECT p.entries FROM gone_piece p
  ), entry AS (
    SELECT substring(p.entries, p.i * ${ENTRY_BYTES} + 1, ${ENTRY_BYTES}) AS entry FROM (
      SELECT l.entries, generate_series(0, length(l.entries) / ${ENTRY_BYTES} - 1) AS i FROM list l) p OFFSET 0
  ), newest AS (
    SELECT DISTINCT ON (substring(e.entry, 1, 8)) e.entry FROM entry e ORDER BY substring(e.entry, 1, 8), e.entry DESC
  ), whole AS (
    SELECT string_agg(n.entry, '') AS entries FROM newest n
  ), piece AS (
    INSERT INTO mmlite.tombstone_piece (run, first_hash, entries)
    SELECT run_id, substring(w.entries, at + 1, 8), substring(w.entries, at + 1, ${MAX_LIST_BYTES})
      FROM whole w, generate_series(0, length(w.entries) - 1, ${MAX_LIST_BYTES}) AS at
    RETURNING length(entries) / ${ENTRY_BYTES} AS length
  )
  INSERT INTO mmlite.tombstone (origin, last_timestamp, entries, run, length, newest_xid)
  SELECT of_node, last_at, '', run_id, sum(p.length), last_xid FROM piece p;
  RETURN array_length(places, 1);
END $$;
COMMENT ON FUNCTION mmlite.merge_tombstones IS
  'makes one list of several of a node that are about as long; how many, 0 where there are too few; whoever applies must see what the snapshot sees';

CREATE OR REPLACE FUNCTION mmlite.newest_tombstone(
  hash bigint, of_schema text, of_table text, at timestamptz, of_node text,
  OUT deleted_at timestamptz, OUT deleted_by text
) LANGUAGE plpgsql AS $$
DECLARE
  list record;
  found timestamptz;
  wanted bytea := int8send(hash);
  -- Changes that come out of their origin's order are compared with what that did later as well (retry_schema.ts).
  own boolean := coalesce(current_setting('mmlite.out_of_order', true) = 'on', false);
BEGIN
  -- In one statement: while it runs, short lists may become a run. Bytes that are no hash are left to find_entry.
  FOR list IN
    SELECT d.origin, d.entries FROM mmlite.tombstone d
     WHERE d.last_timestamp >= at AND (own OR d.origin <> of_node) AND d.run IS NULL AND position(wanted IN d.entries) > 0
    UNION ALL
    SELECT d.origin, p.entries FROM mmlite.tombstone d, LATERAL (
      SELECT s.entries FROM mmlite.tombstone_piece s WHERE s.run = d.run AND s.first_hash <= wanted
       ORDER BY s.first_hash DESC LIMIT 1) p
     WHERE d.last_timestamp >= at AND (own OR d.origin <> of_node) AND d.run IS NOT NULL AND position(wanted IN p.entries) > 0
  LOOP
    found := mmlite.find_entry(list.entries, hash);
    IF mmlite.newer(found, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := found;
      deleted_by := list.origin;
    END IF;
  END LOOP;
  FOR list IN SELECT t.origin, t.commit_timestamp FROM mmlite.truncation t
               WHERE t.table_schema = of_schema AND t.table_name = of_table AND (own OR t.origin <> of_node) LOOP
    IF mmlite.newer(list.commit_timestamp, list.origin, coalesce(deleted_at, at), coalesce(deleted_by, of_node)) THEN
      deleted_at := list.commit_timestamp;
      deleted_by := list.origin;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION mmlite.newest_tombstone IS
  'the newest delete or truncate by another node, or by any where changes come out of their order, that is newer than a change; nulls if there is none';

CREATE FUNCTION mmlite.meets_deleted(hashes bigint[], at timestamptz, of_node text, seen txid_snapshot) RETURNS boolean
  LANGUAGE plpgsql SET enable_hashjoin = on AS $$
DECLARE
  newest bigint := txid_snapshot_xmax(txid_current_snapshot());
  -- In a list that is longer, hashes are looked for one by one.
  read_up_to bigint := ${SEARCH_COST}::bigint * cardinality(hashes);
BEGIN
  RETURN EXISTS (
    WITH list AS (
      SELECT d.origin, d.entries, d.run, d.length FROM mmlite.tombstone d
       WHERE d.last_timestamp >= at AND d.origin <> of_node AND NOT txid_visible_in_snapshot(coalesce(d.newest_xid,
         -- As mmlite.full_xid tells it, which takes longer.
         ((newest & -4294967296) | d.xmin::text::bigint)
           - CASE WHEN (newest & -4294967296) | d.xmin::text::bigint > newest THEN 4294967296 ELSE 0 END), seen)
         -- A transaction is not disturbed by what it has noted itself, of rows that had to go for others.
         AND d.xmin::text IS DISTINCT FROM (txid_current_if_assigned() & 4294967295)::text
    ), bytes AS (
      SELECT l.origin, l.entries || '' AS entries FROM list l WHERE l.run IS NULL
      UNION ALL
      SELECT l.origin, p.entries FROM list l JOIN mmlite.tombstone_piece p ON p.run = l.run WHERE l.length <= read_up_to
    ), entry AS (
      SELECT p.origin, substring(p.entries, p.i * ${ENTRY_BYTES} + 1, 8) AS hash,
             substring(p.entries, p.i * ${ENTRY_BYTES} + 9, 8) AS deleted_at FROM (
        SELECT b.origin, b.entries, generate_series(0, length(b.entries) / ${ENTRY_BYTES} - 1) AS i FROM bytes b) p
    )
    SELECT FROM (
      -- Times are read of what is met alone.
      SELECT e.origin, e.deleted_at FROM entry e JOIN unnest(hashes) AS h(hash) ON int8send(h.hash) = e.hash OFFSET 0) m
     WHERE mmlite.newer(timestamptz '2000-01-01 00:00:00Z'
       + ('x' || encode(m.deleted_at, 'hex'))::bit(64)::bigint * interval '1 microsecond', m.origin, at, of_node)
    UNION ALL
    SELECT FROM list l, unnest(hashes) AS h(hash), LATERAL (
      SELECT s.entries FROM mmlite.tombstone_piece s WHERE s.run = l.run AND s.first_hash <= int8send(h.hash)
       ORDER BY s.first_hash DESC LIMIT 1) p
     WHERE l.length > read_up_to AND CASE WHEN position(int8send(h.hash) IN p.entries) > 0
       THEN mmlite.newer(mmlite.find_entry(p.entries, h.hash), l.origin, at, of_node) ELSE false END);
END $$;
COMMENT ON FUNCTION mmlite.meets_deleted IS
  'whether one of the rows with these hashes was deleted by another node later than a time; what a snapshot sees does not count';

CREATE OR REPLACE FUNCTION mmlite.require_undisturbed(
  hashes bigint[], at timestamptz, of_node text, since_begin boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- Statements for one row have looked for what was noted before.
  seen txid_snapshot := CASE WHEN since_begin THEN current_setting('mmlite.snapshot') ELSE '1:1:' END;
BEGIN
  -- Until the commit: of two that meet in a row that is not here, the second one sees what the first did.
  PERFORM pg_advisory_xact_lock(${COMMIT_LOCK}, 0);
  IF EXISTS (SELECT FROM mmlite.tombstone d WHERE d.last_timestamp >= at AND d.origin <> of_node)
     AND (mmlite.meets_deleted(hashes, at, of_node, seen) OR EXISTS (
       SELECT FROM mmlite.written w WHERE w.xid = txid_current() AND mmlite.meets_deleted(w.hashes, at, of_node, seen)))
  OR EXISTS (
    SELECT FROM mmlite.truncation c
     WHERE c.commit_timestamp >= at AND c.origin <> of_node
       AND (cardinality(hashes) > 0 OR EXISTS (SELECT FROM mmlite.written w WHERE w.xid = txid_current()))
       AND NOT txid_visible_in_snapshot(mmlite.full_xid(c.xmin), seen)
  ) THEN
    RAISE EXCEPTION 'rows were deleted on another node meanwhile' USING ERRCODE = '${SETTLE_ROWS_SQLSTATE}';
  END IF;
  IF EXISTS (SELECT FROM mmlite.written) THEN DELETE FROM mmlite.written WHERE xid = txid_current(); END IF;
END $$;
DROP FUNCTION mmlite.meets(bytea, text, bigint[], timestamptz, text);

CREATE OR REPLACE FUNCTION mmlite.note_deleted(
  of_node text, last_at timestamptz, of_entries bytea, of_schemas text[], of_tables text[], truncated_at timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- Whoever applies has committed before this, or finds it before its own commit.
  PERFORM pg_advisory_xact_lock(${COMMIT_LOCK}, 0);
  IF length(of_entries) > ${MAX_LIST_BYTES} THEN
    PERFORM mmlite.note_tombstones(of_node, last_at, of_entries);
  ELSIF length(of_entries) > 0 THEN
    INSERT INTO mmlite.tombstone (origin, last_timestamp, entries) VALUES (of_node, last_at, of_entries);
  END IF;
  FOR i IN 1..coalesce(array_length(of_tables, 1), 0) LOOP
    INSERT INTO mmlite.truncation AS c (table_schema, table_name, origin, commit_timestamp)
      VALUES (of_schemas[i], of_tables[i], of_node, truncated_at[i])
      ON CONFLICT (table_schema, table_name, origin) DO UPDATE
        SET commit_timestamp = greatest(c.commit_timestamp, excluded.commit_timestamp);
  END LOOP;
END $$;`;

/** The step that keeps what a long transaction has to look for before it commits. */
export const GONE_STEP = `CREATE UNLOGGED TABLE mmlite.gone (
  xid bigint NOT NULL,
  of_table text NOT NULL,
  hash bigint NOT NULL,
  key text[] NOT NULL
);
CREATE INDEX gone_xid ON mmlite.gone (xid);
COMMENT ON TABLE mmlite.gone IS
  'rows that a long transaction has deleted and that may not have been here, until it ends';`;
