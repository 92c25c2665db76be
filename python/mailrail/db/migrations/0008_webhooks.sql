-- Webhook endpoints, what an account spends a month, refunds, and what the API's role may no longer write.
-- Expand only: processes of the version before go on meanwhile, and what they hold and settle is counted by a trigger.

-- —— webhook endpoints —————————————————————————————————————————————————————————————————————————————————————————————————

CREATE SEQUENCE webhook_endpoint_ids AS bigint CACHE 1;

CREATE TABLE webhook_endpoints (
  -- Drawn before the row is written: the number is part of what its secret is sealed for.
  id bigint PRIMARY KEY DEFAULT nextval('webhook_endpoint_ids'),
  account_id bigint NOT NULL REFERENCES accounts,
  url text NOT NULL CHECK (length(url) <= 2048),
  -- Event types, or '*' alone.
  events text[] NOT NULL CHECK (cardinality(events) > 0),
  description text,
  is_active boolean NOT NULL DEFAULT true,
  -- Sealed (sealing.py) for this account and this row.
  secret bytea NOT NULL,
  -- The one before, which signs beside the new one until then.
  previous_secret bytea,
  previous_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);
CREATE INDEX webhook_endpoints_page ON webhook_endpoints (account_id, id DESC);

-- —— wallet: a cap on what a month may cost, refunds ———————————————————————————————————————————————————————————————————

-- NULL is no cap. It stands in the row of kind 'available', as frozen_at does.
ALTER TABLE ledger_accounts ADD COLUMN monthly_cap_micros bigint CHECK (monthly_cap_micros >= 0);

ALTER TABLE holds ADD COLUMN refunded_micros bigint NOT NULL DEFAULT 0 CHECK (refunded_micros >= 0);
ALTER TABLE holds ADD CONSTRAINT holds_refunds_are_of_captures CHECK (refunded_micros <= captured_micros);

CREATE INDEX holds_page ON holds (account_id, id DESC);
CREATE INDEX transfers_page ON transfers (account_id, id DESC);
CREATE INDEX streams_account ON streams (account_id, created_at);

-- The month of a moment in UTC, named by its first day.
CREATE FUNCTION month_of(moment timestamptz) RETURNS date LANGUAGE sql IMMUTABLE
  RETURN date_trunc('month', moment AT TIME ZONE 'UTC')::date;

-- What the holds of a month cost so far: held or captured, less what was refunded. A hold counts in the month in which it
-- was taken, whenever it settles, so that each dollar counts once.
CREATE TABLE spending (
  account_id bigint NOT NULL REFERENCES accounts,
  month date NOT NULL CHECK (extract(day FROM month) = 1),
  spent_micros bigint NOT NULL DEFAULT 0 CHECK (spent_micros >= 0),
  PRIMARY KEY (account_id, month)
);

-- Keeps `spending` in step with the holds, whoever writes them and however many at once.
CREATE FUNCTION count_new_holds() RETURNS trigger LANGUAGE plpgsql SET search_path = mailrail, pg_temp AS $$
DECLARE
  change record; spent bigint;
BEGIN
  FOR change IN
    SELECT account_id, month_of(created_at) AS month, sum(amount_micros - released_micros - refunded_micros)::bigint AS micros
    FROM new_holds GROUP BY 1, 2 HAVING sum(amount_micros - released_micros - refunded_micros) <> 0 ORDER BY 1, 2
  LOOP
    INSERT INTO spending AS s (account_id, month, spent_micros) VALUES (change.account_id, change.month, change.micros)
      ON CONFLICT (account_id, month) DO UPDATE SET spent_micros = s.spent_micros + excluded.spent_micros
      RETURNING spent_micros INTO spent;
    -- The row of the month is locked by now, so concurrent holds cannot pass the cap together. Whoever takes the holds of
    -- several requests at once looks at the cap before: this refuses them all.
    IF spent > (SELECT monthly_cap_micros FROM ledger_accounts w
                WHERE w.account_id = change.account_id AND w.kind = 'available') THEN
      RAISE EXCEPTION 'account % would spend more in % than its cap', change.account_id, change.month
        USING ERRCODE = 'check_violation', CONSTRAINT = 'holds_within_spend_cap';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

CREATE FUNCTION count_settled_holds() RETURNS trigger LANGUAGE plpgsql SET search_path = mailrail, pg_temp AS $$
DECLARE change record;
BEGIN
  FOR change IN
    SELECT account_id, month_of(created_at) AS month, sum(micros)::bigint AS micros FROM (
      SELECT account_id, created_at, amount_micros - released_micros - refunded_micros AS micros FROM new_holds
      UNION ALL
      SELECT account_id, created_at, released_micros + refunded_micros - amount_micros FROM old_holds) changed
    GROUP BY 1, 2 HAVING sum(micros) <> 0 ORDER BY 1, 2
  LOOP
    -- Where a hold's date was changed, the month may have no row yet.
    INSERT INTO spending (account_id, month) VALUES (change.account_id, change.month) ON CONFLICT DO NOTHING;
    UPDATE spending SET spent_micros = spent_micros + change.micros
      WHERE account_id = change.account_id AND month = change.month;
  END LOOP;
  RETURN NULL;
END $$;

CREATE TRIGGER holds_counted AFTER INSERT ON holds REFERENCING NEW TABLE AS new_holds
  FOR EACH STATEMENT EXECUTE FUNCTION count_new_holds();
CREATE TRIGGER holds_recounted AFTER UPDATE ON holds REFERENCING OLD TABLE AS old_holds NEW TABLE AS new_holds
  FOR EACH STATEMENT EXECUTE FUNCTION count_settled_holds();

INSERT INTO spending (account_id, month, spent_micros)
  SELECT account_id, month_of(created_at), sum(amount_micros - released_micros) FROM holds GROUP BY 1, 2;

-- —— API keys ——————————————————————————————————————————————————————————————————————————————————————————————————————————

-- To the minute: more would be a write per request.
ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['webhook_endpoints', 'spending'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;

REVOKE ALL ON FUNCTION month_of(timestamptz), count_new_holds(), count_settled_holds() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION month_of(timestamptz), count_new_holds(), count_settled_holds()
  TO mailrail_api, mailrail_worker;
GRANT USAGE ON webhook_endpoint_ids TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT, UPDATE ON spending TO mailrail_api, mailrail_worker;

-- Plan and price are the operator's, and so is whatever else of an account or a key is not named here.
REVOKE UPDATE ON accounts, api_keys FROM mailrail_api;
GRANT UPDATE (name, sender_name, sender_email, postal_address, track_opens, track_clicks, unknown_policy)
  ON accounts TO mailrail_api;
GRANT UPDATE (revoked_at, last_used_at) ON api_keys TO mailrail_api;
-- A key for operators is made on the command line alone, whatever a bug in the API might ask for.
CREATE POLICY no_operator ON api_keys AS RESTRICTIVE FOR INSERT TO mailrail_api
  WITH CHECK (NOT scopes @> ARRAY['operator']);
