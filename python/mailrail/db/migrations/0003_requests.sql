-- What every request needs: kept answers, the count of requests, test keys.
CREATE TABLE idempotency_keys (
  account_id bigint NOT NULL REFERENCES accounts,
  is_test boolean NOT NULL DEFAULT false,
  key text NOT NULL,
  fingerprint bytea NOT NULL,
  state text NOT NULL DEFAULT 'done',
  status smallint,
  body bytea,
  stream_id bigint,
  seq integer,
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, is_test, key)
);
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency_keys USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO mailrail_api, mailrail_worker;
