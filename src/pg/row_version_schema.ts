/**
 * The part of the step that settles conflicts (`conflict_schema.ts`) which tells the version of a row, when and on which
 * node it was committed, and whether a change is newer. The step of `retry_schema.ts` replaces
 * `mmlite.compare_version`.
 */

/** SQL of the functions. */
export const ROW_VERSION_FUNCTIONS =
  `CREATE FUNCTION mmlite.full_xid(of_xmin xid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  newest bigint := txid_snapshot_xmax(txid_current_snapshot());
  -- Of the full transaction ids with these 32 bits the latest that is not in the future.
  full_xid bigint := (newest & -4294967296) | of_xmin::text::bigint;
BEGIN
  RETURN CASE WHEN full_xid > newest THEN full_xid - 4294967296 ELSE full_xid END;
END $$;

CREATE FUNCTION mmlite.find_entry(entries bytea, hash bigint) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  -- Out of the TOAST table once, not for every step.
  list bytea := entries || '';
  wanted bytea := int8send(hash);
  low integer := 0;
  high integer := length(entries) / 16;
  middle integer;
BEGIN
  WHILE low < high LOOP
    middle := (low + high) / 2;
    IF substring(list, middle * 16 + 1, 8) < wanted THEN low := middle + 1; ELSE high := middle; END IF;
  END LOOP;
  IF substring(list, low * 16 + 1, 8) <> wanted THEN RETURN NULL; END IF;
  RETURN timestamptz '2000-01-01 00:00:00Z'
    + ('x' || encode(substring(list, low * 16 + 9, 8), 'hex'))::bit(64)::bigint * interval '1 microsecond';
END $$;

CREATE FUNCTION mmlite.node_of(origin_id oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  IF origin_id = 0 THEN
    SELECT name INTO found FROM mmlite.node;
  ELSE
    SELECT CASE WHEN starts.is_ours THEN substring(roname, 8) ELSE roname END INTO found
      FROM pg_catalog.pg_replication_origin, LATERAL (SELECT left(roname, 7) = 'mmlite_' AS is_ours) starts
     WHERE roident = origin_id;
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION mmlite.row_version(of_xmin xid, hash bigint, OUT at timestamptz, OUT node text) LANGUAGE plpgsql AS $$
DECLARE
  -- In a variable, or no index would serve.
  wanted bigint := mmlite.full_xid(of_xmin);
  list bytea;
  origin_id oid;
BEGIN
  at := pg_catalog.pg_xact_commit_timestamp(of_xmin);
  -- Of this very transaction, or of a time before versions were kept.
  IF at IS NULL THEN RETURN; END IF;
  SELECT g.origin, g.entries INTO node, list FROM mmlite.apply_group g WHERE g.xid = wanted;
  IF FOUND THEN
    at := coalesce(mmlite.find_entry(list, hash), at);
  ELSIF current_setting('server_version_num')::integer >= 140000 THEN
    SELECT x.roident INTO origin_id FROM pg_catalog.pg_xact_commit_timestamp_origin(of_xmin) x;
    node := mmlite.node_of(origin_id);
  ELSE
    -- Whatever is applied is noted there on these servers.
    node := mmlite.node_of(0);
  END IF;
END $$;
COMMENT ON FUNCTION mmlite.row_version IS
  'when and on which node the version of a row was committed: by its xmin and the hash of its key';

CREATE FUNCTION mmlite.is_noted_of(of_xmin xid, of_origin text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  wanted bigint := mmlite.full_xid(of_xmin);
BEGIN
  RETURN EXISTS (SELECT FROM mmlite.apply_group g WHERE g.xid = wanted AND g.origin = of_origin);
END $$;

CREATE OR REPLACE FUNCTION mmlite.version_timestamp(of_xmin xid, hash bigint) RETURNS timestamptz LANGUAGE sql AS
  'SELECT at FROM mmlite.row_version(of_xmin, hash)';

CREATE FUNCTION mmlite.newer(at timestamptz, of_node text, than timestamptz, than_node text) RETURNS boolean
  LANGUAGE sql IMMUTABLE AS
  'SELECT at > than OR (at = than AND of_node COLLATE "C" > coalesce(than_node, '''') COLLATE "C")';

CREATE FUNCTION mmlite.compare_version(
  of_xmin xid, hash bigint, at timestamptz, of_node text, seen_before timestamptz
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  committed timestamptz := pg_catalog.pg_xact_commit_timestamp(of_xmin);
  there record;
BEGIN
  IF committed IS NULL OR (committed < seen_before AND committed < at) THEN RETURN 0; END IF;
  SELECT * INTO there FROM mmlite.row_version(of_xmin, hash);
  -- An origin's own changes come in their order, whatever its clock did.
  IF there.node = of_node THEN RETURN 0; END IF;
  RETURN CASE WHEN mmlite.newer(at, of_node, there.at, there.node) THEN 1 ELSE -1 END;
END $$;
COMMENT ON FUNCTION mmlite.compare_version IS
  '0: the change follows the row''s version; 1: it is newer than the version of another node; -1: it is older';`;
