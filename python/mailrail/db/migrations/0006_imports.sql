-- Imports of contacts: the upload in pieces, what became of its rows, and which of them failed.

CREATE TABLE imports (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  status text NOT NULL DEFAULT 'receiving' CHECK (status IN ('receiving', 'processing', 'completed', 'failed', 'cancelled')),
  reason text,
  format text NOT NULL CHECK (format IN ('csv', 'json')),
  list_id bigint REFERENCES lists ON DELETE SET NULL,
  tags text[] NOT NULL DEFAULT '{}',
  contact_status text CHECK (contact_status IN ('subscribed', 'unsubscribed')),
  upsert boolean NOT NULL DEFAULT true,
  consent_source text,
  consent_wording text,
  mapping jsonb NOT NULL DEFAULT '{}',
  -- CSV only: [[name, target or null], …] and the delimiter.
  columns jsonb,
  delimiter text,
  -- The same key with the same digest is the same upload.
  idempotency_key text,
  digest bytea,
  bytes_received bigint NOT NULL DEFAULT 0,
  rows_received bigint NOT NULL DEFAULT 0,
  rows_done bigint NOT NULL DEFAULT 0,
  created bigint NOT NULL DEFAULT 0,
  updated bigint NOT NULL DEFAULT 0,
  unchanged bigint NOT NULL DEFAULT 0,
  skipped bigint NOT NULL DEFAULT 0,
  doubled bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- When the last bytes came: an upload that falls silent has broken off.
  heard_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  -- When a worker last gave it a turn; tenants take turns.
  turn_at timestamptz,
  completed_at timestamptz,
  CONSTRAINT imports_rows_add_up CHECK (rows_done = created + updated + unchanged + skipped + doubled + failed)
);
CREATE INDEX imports_page ON imports (account_id, id DESC);
CREATE UNIQUE INDEX imports_key ON imports (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX imports_open ON imports (account_id, id) WHERE status IN ('receiving', 'processing');

-- The upload as it came, cut at the ends of records. A piece goes with the transaction that merges it.
CREATE TABLE import_pieces (
  import_id bigint NOT NULL REFERENCES imports ON DELETE CASCADE,
  number integer NOT NULL,
  account_id bigint NOT NULL,
  first_row bigint NOT NULL,
  rows integer NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (import_id, number)
);
-- Compressing a megabyte costs more than writing it, and it lives for seconds.
ALTER TABLE import_pieces ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE import_errors (
  import_id bigint NOT NULL REFERENCES imports ON DELETE CASCADE,
  row bigint NOT NULL,
  account_id bigint NOT NULL,
  email text,
  code text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (import_id, row)
);

-- The import that wrote a contact last: where a person came from, and whether a row is his second in the same file.
ALTER TABLE contacts ADD COLUMN import_id bigint;

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['imports', 'import_pieces', 'import_errors'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON imports TO mailrail_api;
GRANT SELECT (import_id, number, account_id), INSERT, DELETE ON import_pieces TO mailrail_api;
GRANT SELECT ON import_errors TO mailrail_api;
GRANT SELECT, UPDATE ON imports TO mailrail_worker;
GRANT SELECT, DELETE ON import_pieces TO mailrail_worker;
GRANT SELECT, INSERT, DELETE ON import_errors TO mailrail_worker;
