-- What every request needs: kept answers, the count of requests.
-- Expand only: API processes of the version before go on meanwhile.

-- —— accounts: a plan without a limit of requests, for operators to give ——————————————————————————————————————————————

ALTER TABLE accounts DROP CONSTRAINT accounts_plan_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_plan_check
  CHECK (plan IN ('starter', 'professional', 'enterprise', 'unlimited'));

-- —— answers kept under the key that their client chose ———————————————————————————————————————————————————————————————

-- One row per Idempotency-Key, written in the transaction of the effect. No foreign key: sends write here in bulk.
CREATE TABLE idempotency_keys (
  account_id bigint NOT NULL,
  -- A test key never meets what a live one did.
  is_test boolean NOT NULL,
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  -- SHA-256 of method, path, query and body: another request under the same key is a mistake of its client.
  fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
  -- in_progress: a send that was accepted and whose outcome is not known yet.
  state text NOT NULL CHECK (state IN ('in_progress', 'done')),
  status smallint,
  -- Sealed: some answers hold a secret that is shown once.
  body bytea,
  -- Of a send: where its mail is, and until when its process may be at it.
  stream_id bigint,
  seq integer,
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, is_test, key),
  CONSTRAINT idempotency_keys_answered CHECK (state <> 'done' OR status IS NOT NULL)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency_keys USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());

-- —— requests counted against the plan, over all API processes ————————————————————————————————————————————————————————

-- A row per account. Unlogged: its changes write no WAL, so their commits wait for no disk; a crash of the database begins
-- new windows.
CREATE UNLOGGED TABLE request_windows (
  account_id bigint PRIMARY KEY,
  began_at timestamptz NOT NULL,
  used integer NOT NULL
-- Updated with every request: its versions stay on its page.
) WITH (fillfactor = 10);
ALTER TABLE request_windows ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON request_windows USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());

-- Counts one request: how many it are in the account's window of a minute, and in how many seconds that ends. A window begins
-- with the first request after the one before. Called before any tenant is set, so that it is one statement.
CREATE FUNCTION count_request(account bigint, OUT used integer, OUT left_s double precision)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
#variable_conflict use_column
DECLARE
  began timestamptz;
  asked timestamptz := clock_timestamp();
BEGIN
  INSERT INTO request_windows AS w (account_id, began_at, used) VALUES (account, asked, 1)
  ON CONFLICT (account_id) DO UPDATE SET
    -- Also from below, lest a clock that was set back prolong the window.
    began_at = CASE WHEN asked - w.began_at BETWEEN interval '-60 s' AND interval '60 s' THEN w.began_at ELSE asked END,
    used = CASE WHEN asked - w.began_at BETWEEN interval '-60 s' AND interval '60 s' THEN w.used + 1 ELSE 1 END
  RETURNING w.used, w.began_at INTO count_request.used, began;
  left_s := greatest(extract(epoch FROM began + interval '60 s' - asked), 0);
END $$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

REVOKE ALL ON FUNCTION count_request(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_request(bigint) TO mailrail_api;
GRANT SELECT, INSERT, UPDATE ON idempotency_keys TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO mailrail_worker;
