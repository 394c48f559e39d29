# Starts PostgreSQL, with a new data directory the first time. There is no program but this shell and the server's.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --no-sync -U postgres -A scram-sha-256 --pwfile=/dev/fd/3 --encoding=UTF8 --locale=C 3<<END
$POSTGRES_PASSWORD
END
  echo 'host all,replication all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories= -c wal_level=logical \
  -c max_wal_senders=20 -c max_replication_slots=20 -c track_commit_timestamp=on -c shared_buffers=32MB
