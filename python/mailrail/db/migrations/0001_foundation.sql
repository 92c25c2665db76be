-- The whole data model of mailrail. Run by `mailrail migrate` as mailrail_owner, in schema mailrail.
--
-- Two families of tables. Tenant tables (accounts, contacts, campaigns, the ledger …) stay for the life of an account.
-- Send tables are RANGE-partitioned on stream_id, one partition per kind of stream and week, so that retention is a DROP;
-- every unique key of theirs begins with stream_id and they carry no foreign keys.
-- Codes of outcomes, events and states are those of emails/model.py.

-- —— who is asking ——————————————————————————————————————————————————————————————————————————————————————————————————————

-- NULL where no tenant was set, so that every policy below then shows nothing.
CREATE FUNCTION current_account() RETURNS bigint LANGUAGE sql STABLE
  RETURN nullif(current_setting('mailrail.account_id', true), '')::bigint;

CREATE TABLE installation (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- HMAC of a constant: another MAILRAIL_SECRET_KEY would make every id, token and password of this database unreadable.
  secret_fingerprint bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- —— accounts ———————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE accounts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL CHECK (name <> ''),
  plan text NOT NULL DEFAULT 'starter' CHECK (plan IN ('starter', 'professional', 'enterprise')),
  price_micros bigint NOT NULL DEFAULT 300 CHECK (price_micros >= 0),
  sender_name text,
  sender_email text,
  postal_address text,
  track_opens boolean NOT NULL DEFAULT true,
  track_clicks boolean NOT NULL DEFAULT true,
  unknown_policy text NOT NULL DEFAULT 'resend' CHECK (unknown_policy IN ('resend', 'never_resend')),
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  name text NOT NULL,
  -- The first characters, shown in lists and used to find the row; the rest is known only by its hash.
  prefix text NOT NULL UNIQUE,
  hash bytea NOT NULL CHECK (length(hash) = 32),
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz
);
CREATE INDEX api_keys_account ON api_keys (account_id);

-- —— wallet: a double-entry ledger in micro-dollars ————————————————————————————————————————————————————————————————————

CREATE TABLE ledger_accounts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  kind text NOT NULL CHECK (kind IN ('available', 'held', 'cash', 'revenue')),
  balance_micros bigint NOT NULL DEFAULT 0,
  CONSTRAINT ledger_accounts_funds CHECK (kind IN ('cash', 'revenue') OR balance_micros >= 0),
  UNIQUE (account_id, kind)
);

CREATE TABLE holds (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  stream_id bigint NOT NULL,
  price_micros bigint NOT NULL CHECK (price_micros >= 0),
  recipients integer NOT NULL CHECK (recipients > 0),
  amount_micros bigint NOT NULL CHECK (amount_micros = price_micros * recipients),
  captured_micros bigint NOT NULL DEFAULT 0 CHECK (captured_micros >= 0),
  released_micros bigint NOT NULL DEFAULT 0 CHECK (released_micros >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  closed_at timestamptz,
  CONSTRAINT holds_not_overdrawn CHECK (captured_micros + released_micros <= amount_micros),
  CONSTRAINT holds_closed_when_settled CHECK (closed_at IS NULL OR captured_micros + released_micros = amount_micros)
);
CREATE INDEX holds_stream ON holds (stream_id);
CREATE INDEX holds_open ON holds (created_at) WHERE closed_at IS NULL;

CREATE TABLE transfers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  kind text NOT NULL CHECK (kind IN ('deposit', 'hold', 'capture', 'release', 'refund')),
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  hold_id bigint REFERENCES holds,
  -- The caller's own name for this transfer: the same key never moves money twice.
  key text NOT NULL CHECK (key <> ''),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (account_id, key)
);

CREATE TABLE postings (
  transfer_id bigint NOT NULL REFERENCES transfers,
  ledger_account_id bigint NOT NULL REFERENCES ledger_accounts,
  account_id bigint NOT NULL,
  amount_micros bigint NOT NULL CHECK (amount_micros <> 0),
  PRIMARY KEY (transfer_id, ledger_account_id)
);
CREATE INDEX postings_ledger_account ON postings (ledger_account_id);

CREATE FUNCTION check_transfer_is_zero_sum() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT sum(amount_micros) FROM mailrail.postings WHERE transfer_id = NEW.transfer_id) IS DISTINCT FROM 0 THEN
    RAISE EXCEPTION 'postings of transfer % do not sum to zero', NEW.transfer_id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER postings_zero_sum AFTER INSERT ON postings
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer_is_zero_sum();

-- A correction is a new transfer: no role, the owner included, edits what was posted.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER postings_append_only BEFORE UPDATE OR DELETE ON postings
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE ON transfers
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- —— sending domains ———————————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE domains (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  domain text NOT NULL CHECK (domain = lower(domain)),
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'verified', 'failed')),
  created_at timestamptz NOT NULL DEFAULT now(),
  verified_at timestamptz,
  UNIQUE (account_id, domain)
);

-- —— contacts ——————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE contacts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  email text NOT NULL,
  email_folded text NOT NULL GENERATED ALWAYS AS (lower(email)) STORED,
  name text,
  first_name text,
  last_name text,
  status text NOT NULL DEFAULT 'subscribed' CHECK (status IN ('subscribed', 'unsubscribed', 'bounced', 'complained')),
  tags text[] NOT NULL DEFAULT '{}',
  custom_fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_fields) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT contacts_email UNIQUE (account_id, email_folded)
);
CREATE INDEX contacts_page ON contacts (account_id, id DESC);
CREATE INDEX contacts_tags ON contacts USING gin (tags);

-- The names of custom fields ever used: a template's unknown variables are told by it without reading a contact.
CREATE TABLE contact_fields (
  account_id bigint NOT NULL REFERENCES accounts,
  name text NOT NULL,
  PRIMARY KEY (account_id, name)
);

CREATE TABLE lists (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  name text NOT NULL CHECK (name <> ''),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (account_id, name)
);

CREATE TABLE list_members (
  list_id bigint NOT NULL REFERENCES lists ON DELETE CASCADE,
  contact_id bigint NOT NULL REFERENCES contacts ON DELETE CASCADE,
  account_id bigint NOT NULL,
  status text NOT NULL DEFAULT 'subscribed' CHECK (status IN ('subscribed', 'unsubscribed')),
  subscribed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (list_id, contact_id)
);
CREATE INDEX list_members_contact ON list_members (contact_id);

CREATE TABLE suppressions (
  account_id bigint NOT NULL REFERENCES accounts,
  email_folded text NOT NULL CHECK (email_folded = lower(email_folded)),
  reason text NOT NULL CHECK (reason IN ('bounce', 'complaint', 'manual')),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, email_folded)
);

-- —— campaigns —————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE campaigns (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  name text NOT NULL,
  subject text NOT NULL,
  preheader text,
  from_name text,
  from_email text,
  reply_to text[] NOT NULL DEFAULT '{}',
  html text NOT NULL,
  text text,
  list_id bigint REFERENCES lists,
  tags text[] NOT NULL DEFAULT '{}',
  warnings jsonb NOT NULL DEFAULT '[]',
  status text NOT NULL DEFAULT 'draft'
    CHECK (status IN ('draft', 'scheduled', 'queued', 'sending', 'paused', 'completed', 'cancelled', 'failed')),
  reason text,
  stream_id bigint UNIQUE,
  hold_id bigint REFERENCES holds,
  audience_count integer,
  created_at timestamptz NOT NULL DEFAULT now(),
  scheduled_at timestamptz,
  sent_at timestamptz,
  submitted_at timestamptz,
  completed_at timestamptz,
  CONSTRAINT campaigns_started CHECK ((status IN ('draft', 'scheduled')) = (stream_id IS NULL) OR status IN ('cancelled', 'failed'))
);
CREATE INDEX campaigns_page ON campaigns (account_id, id DESC);
CREATE INDEX campaigns_running ON campaigns (id) WHERE status IN ('queued', 'sending', 'paused');

-- —— streams: one campaign's send, or one account-day of transactional mail —————————————————————————————————————————————

CREATE SEQUENCE stream_numbers AS bigint MINVALUE 1 MAXVALUE 4294967295 CYCLE;

-- Weeks since the epoch (UTC); the clock of partitions.
CREATE FUNCTION week_of(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE
  RETURN floor(extract(epoch FROM moment) / 604800)::bigint;

-- kind 0 = campaign, 1 = transactional.
CREATE FUNCTION new_stream_id(kind integer) RETURNS bigint LANGUAGE sql VOLATILE
  RETURN ((week_of(now()) * 8 + kind) << 32) | (nextval('mailrail.stream_numbers') & 4294967295);

CREATE TABLE streams (
  stream_id bigint PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  campaign_id bigint REFERENCES campaigns,
  list_id bigint,
  -- What is sent, frozen at the start: the core's frozen content and the sender, as JSON text.
  content text NOT NULL,
  identity text NOT NULL,
  shard_size integer NOT NULL CHECK (shard_size > 0),
  bounce_grace interval NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  closed_at timestamptz
);

-- Outlives retention: a click on an old mail still finds its target.
CREATE TABLE links (
  stream_id bigint NOT NULL,
  n integer NOT NULL CHECK (n > 0),
  account_id bigint NOT NULL REFERENCES accounts,
  url text NOT NULL,
  PRIMARY KEY (stream_id, n)
);

-- —— send tables, partitioned ——————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE audience (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  account_id bigint NOT NULL,
  contact_id bigint,
  email text NOT NULL,
  -- A keyed hash takes the address's place when a person is erased.
  email_hash bytea,
  PRIMARY KEY (stream_id, seq)
) PARTITION BY RANGE (stream_id);

CREATE TABLE shards (
  stream_id bigint NOT NULL,
  shard integer NOT NULL,
  account_id bigint NOT NULL,
  -- A copy of the campaign's state: a claim reads only this row, which it locks.
  state text NOT NULL CHECK (state IN ('sending', 'paused', 'cancelled')),
  first_seq integer NOT NULL,
  last_seq integer NOT NULL,
  next_seq integer NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,
  lease_id bigint,
  lease_until timestamptz,
  -- When there is next something to send; NULL while there is not.
  wake_at timestamptz,
  submitted_at timestamptz,
  -- What the rounds reported so far, for progress; the truth is recipient_state.
  accepted integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  skipped integer NOT NULL DEFAULT 0,
  unknown integer NOT NULL DEFAULT 0,
  PRIMARY KEY (stream_id, shard),
  CHECK (next_seq BETWEEN first_seq AND last_seq + 1)
) PARTITION BY RANGE (stream_id);
CREATE INDEX shards_wake ON shards (wake_at) WHERE wake_at IS NOT NULL;

CREATE SEQUENCE lease_ids AS bigint CACHE 1;
CREATE SEQUENCE claim_ids AS bigint CACHE 1;

-- One row per round, committed before any call of the round is written to a socket.
CREATE TABLE claims (
  stream_id bigint NOT NULL,
  shard integer NOT NULL,
  claim_id bigint NOT NULL,
  account_id bigint NOT NULL,
  lease_id bigint NOT NULL,
  epoch bigint NOT NULL,
  attempt smallint NOT NULL,
  first_seq integer,
  last_seq integer,
  seqs integer[],
  claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (stream_id, shard, claim_id),
  CHECK ((seqs IS NULL) = (first_seq IS NOT NULL AND last_seq IS NOT NULL))
) PARTITION BY RANGE (stream_id);

-- The only way to attempt n + 1.
CREATE TABLE permits (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  attempt smallint NOT NULL,
  account_id bigint NOT NULL,
  shard integer NOT NULL,
  due_at timestamptz NOT NULL,
  hold_id bigint,
  claim_id bigint,
  PRIMARY KEY (stream_id, seq, attempt)
) PARTITION BY RANGE (stream_id);
CREATE INDEX permits_due ON permits (stream_id, shard, due_at) WHERE claim_id IS NULL;

CREATE TABLE results (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  attempt smallint NOT NULL,
  outcome smallint NOT NULL,
  ses_message_id text,
  error text,
  at timestamptz NOT NULL DEFAULT now(),
  account_id bigint NOT NULL,
  PRIMARY KEY (stream_id, seq, attempt, outcome)
) PARTITION BY RANGE (stream_id);

CREATE TABLE result_batches (
  stream_id bigint NOT NULL,
  claim_id bigint NOT NULL,
  part integer NOT NULL,
  account_id bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (stream_id, claim_id, part)
) PARTITION BY RANGE (stream_id);

CREATE TABLE events (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  kind smallint NOT NULL,
  -- The attempt (0 when unknown) where a mail can have only one of its kind; otherwise tells two of them apart.
  dedupe bigint NOT NULL DEFAULT 0,
  account_id bigint NOT NULL,
  attempt smallint NOT NULL,
  at timestamptz,
  received_at timestamptz NOT NULL DEFAULT now(),
  ses_message_id text,
  detail text,
  PRIMARY KEY (stream_id, seq, kind, dedupe)
) PARTITION BY RANGE (stream_id);

CREATE TABLE settlements (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  hold_id bigint NOT NULL,
  account_id bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('captured', 'released')),
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (stream_id, seq, hold_id)
) PARTITION BY RANGE (stream_id);
CREATE UNIQUE INDEX settlements_captured_once ON settlements (stream_id, seq) WHERE kind = 'captured';

-- What the fold computed; a recipient that was never claimed has no row.
CREATE TABLE recipient_state (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  account_id bigint NOT NULL,
  shard integer NOT NULL,
  state smallint NOT NULL,
  attempt smallint NOT NULL,
  reason text,
  ses_message_id text,
  at timestamptz,
  opens integer NOT NULL DEFAULT 0,
  clicks integer NOT NULL DEFAULT 0,
  complained boolean NOT NULL DEFAULT false,
  unsubscribed boolean NOT NULL DEFAULT false,
  PRIMARY KEY (stream_id, seq)
) PARTITION BY RANGE (stream_id);

CREATE TABLE state_counts (
  stream_id bigint NOT NULL,
  shard integer NOT NULL,
  state smallint NOT NULL,
  account_id bigint NOT NULL,
  recipients integer NOT NULL,
  PRIMARY KEY (stream_id, shard, state)
) PARTITION BY RANGE (stream_id);

-- When each shard is to be folded; apart from shards, so that the applier never waits for a claim.
CREATE TABLE folds (
  stream_id bigint NOT NULL,
  shard integer NOT NULL,
  account_id bigint NOT NULL,
  due_at timestamptz,
  folded_at timestamptz,
  open integer NOT NULL,
  opened integer NOT NULL DEFAULT 0,
  clicked integer NOT NULL DEFAULT 0,
  complained integer NOT NULL DEFAULT 0,
  unsubscribed integer NOT NULL DEFAULT 0,
  closed_at timestamptz,
  PRIMARY KEY (stream_id, shard)
) PARTITION BY RANGE (stream_id);
CREATE INDEX folds_due ON folds (due_at) WHERE due_at IS NOT NULL;

-- —— events as they came ———————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE notifications (
  day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
  message_id text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  topic_arn text NOT NULL,
  body text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (day, message_id)
) PARTITION BY RANGE (day);

-- Narrow rows that come and go, so that the wide ones are written once and never updated.
CREATE TABLE notification_queue (
  day date NOT NULL,
  message_id text NOT NULL
);

CREATE TABLE parked_notifications (
  notification_id bigint PRIMARY KEY,
  day date NOT NULL,
  message_id text NOT NULL,
  reason text NOT NULL,
  parked_at timestamptz NOT NULL DEFAULT now()
);

-- —— plumbing ——————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL,
  message jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Who may act for a role or an API process, by the database's clock.
CREATE TABLE leases (
  name text PRIMARY KEY,
  holder text NOT NULL,
  epoch bigint NOT NULL DEFAULT 1,
  lease_until timestamptz NOT NULL
);

-- —— partitions ————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE FUNCTION partitioned_by_stream() RETURNS text[] LANGUAGE sql IMMUTABLE
  RETURN ARRAY['audience', 'shards', 'claims', 'permits', 'results', 'result_batches', 'events', 'settlements',
               'recipient_state', 'state_counts', 'folds'];

-- Makes what is missing for the weeks and days ahead; returns how many partitions it made. Safe to run at any time:
-- a new table is filled with its parent's shape first and attached after, under a lock that stops no reader or writer.
CREATE FUNCTION make_partitions(weeks_ahead integer DEFAULT 4) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE
  parent text; part text; week bigint; kind integer; day date; made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('mailrail.make_partitions'));
  FOR week IN SELECT generate_series(week_of(now()), week_of(now()) + weeks_ahead) LOOP
    FOR kind IN 0..1 LOOP
      FOREACH parent IN ARRAY partitioned_by_stream() LOOP
        part := format('%s_w%s_k%s', parent, week, kind);
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       parent, part, (week * 8 + kind) << 32, (week * 8 + kind + 1) << 32);
        made := made + 1;
      END LOOP;
    END LOOP;
  END LOOP;
  FOR day IN SELECT generate_series(current_date - 1, current_date + 7, interval '1 day')::date LOOP
    part := 'notifications_' || to_char(day, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(part) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE notifications INCLUDING DEFAULTS INCLUDING INDEXES)', part);
    EXECUTE format('ALTER TABLE notifications ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, day, day + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

-- Raw notifications are kept for a week; what was not applied by then is parked and keeps its reason.
CREATE FUNCTION drop_old_notifications(keep_days integer DEFAULT 7) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp SET lock_timeout = '2s' AS $$
DECLARE part text; dropped integer := 0;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'notifications'::regclass
      AND c.relname < 'notifications_' || to_char(current_date - keep_days, 'YYYYMMDD')
      AND NOT EXISTS (SELECT FROM notification_queue q WHERE q.day < current_date - keep_days)
  LOOP
    EXECUTE format('DROP TABLE %I', part);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

-- —— functions of the owner: what the API role may do beyond its tenant's rows ——————————————————————————————————————————

CREATE FUNCTION require_tenant(account bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF account IS DISTINCT FROM mailrail.current_account() THEN
    RAISE EXCEPTION 'account % is not the tenant of this transaction', account USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

-- Finds a key before any tenant is known; the caller compares the hash in constant time.
CREATE FUNCTION find_api_key(key_prefix text)
  RETURNS TABLE (id bigint, account_id bigint, hash bytea, scopes text[], plan text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  SELECT k.id, k.account_id, k.hash, k.scopes, a.plan
  FROM api_keys k JOIN accounts a ON a.id = k.account_id
  WHERE k.prefix = key_prefix AND k.revoked_at IS NULL
$$;

-- Tag search runs here because @> is not leakproof: under a row policy its index would not be used.
CREATE FUNCTION contacts_with_tags(account bigint, wanted text[], before_id bigint, skip integer, most integer)
  RETURNS SETOF contacts LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  PERFORM require_tenant(account);
  RETURN QUERY SELECT c.* FROM contacts c
    WHERE c.account_id = account AND c.tags @> wanted AND (before_id IS NULL OR c.id < before_id)
    ORDER BY c.id DESC OFFSET skip LIMIT most;
END $$;

-- The people whom a campaign reaches now. `list` NULL means any list, empty `wanted` any tag.
CREATE FUNCTION audience_of(account bigint, list bigint, wanted text[])
  RETURNS TABLE (contact_id bigint, email text)
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  PERFORM require_tenant(account);
  RETURN QUERY SELECT c.id, c.email FROM contacts c
    WHERE c.account_id = account AND c.status = 'subscribed'
      AND (cardinality(wanted) = 0 OR c.tags @> wanted)
      AND (list IS NULL OR EXISTS (SELECT FROM list_members m
                                   WHERE m.list_id = list AND m.contact_id = c.id AND m.status = 'subscribed'))
      AND NOT EXISTS (SELECT FROM suppressions s WHERE s.account_id = account AND s.email_folded = c.email_folded);
END $$;

CREATE FUNCTION count_audience(account bigint, list bigint, wanted text[]) RETURNS integer
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  SELECT count(*)::integer FROM audience_of(account, list, wanted)
$$;

-- Writes the stream's audience with dense numbers from 1, in one statement; returns its size.
CREATE FUNCTION freeze_audience(account bigint, stream bigint, list bigint, wanted text[]) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE frozen integer;
BEGIN
  PERFORM require_tenant(account);
  INSERT INTO audience (stream_id, seq, account_id, contact_id, email)
    SELECT stream, row_number() OVER (ORDER BY a.contact_id), account, a.contact_id, a.email
    FROM audience_of(account, list, wanted) a;
  GET DIAGNOSTICS frozen = ROW_COUNT;
  RETURN frozen;
END $$;

-- A click names only its mail, so no tenant is known yet.
CREATE FUNCTION link_target(stream bigint, link integer) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  SELECT url FROM links WHERE stream_id = stream AND n = link
$$;

-- Opens and clicks, a batch at a time: (stream, seq, kind, dedupe, detail). Those of dropped streams are passed over.
CREATE FUNCTION record_engagement(stream_ids bigint[], seqs integer[], kinds smallint[], dedupes bigint[], details text[])
  RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE recorded integer;
BEGIN
  WITH seen AS (
    SELECT e.*, s.account_id, s.shard_size
    FROM unnest(stream_ids, seqs, kinds, dedupes, details) AS e(stream_id, seq, kind, dedupe, detail)
    JOIN streams s USING (stream_id)
    WHERE e.kind IN (9, 10, 11)
  ), added AS (
    INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, detail)
    SELECT stream_id, seq, kind, dedupe, account_id, 0, now(), detail FROM seen
    ON CONFLICT DO NOTHING RETURNING stream_id, seq
  ), touched AS (
    SELECT DISTINCT a.stream_id, (a.seq - 1) / s.shard_size AS shard FROM added a JOIN seen s USING (stream_id, seq)
  ), due AS (
    UPDATE folds f SET due_at = least(f.due_at, now() + interval '1 second')
    FROM (SELECT stream_id, shard FROM folds JOIN touched USING (stream_id, shard)
          ORDER BY stream_id, shard FOR UPDATE OF folds) t
    WHERE f.stream_id = t.stream_id AND f.shard = t.shard
  )
  SELECT count(*) INTO recorded FROM added;
  RETURN recorded;
END $$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mailrail FROM PUBLIC;
GRANT USAGE ON SCHEMA mailrail TO mailrail_api, mailrail_worker;
GRANT EXECUTE ON FUNCTION current_account(), week_of(timestamptz), new_stream_id(integer), require_tenant(bigint),
  check_transfer_is_zero_sum(), refuse_change() TO mailrail_api, mailrail_worker;
GRANT EXECUTE ON FUNCTION find_api_key(text), contacts_with_tags(bigint, text[], bigint, integer, integer),
  audience_of(bigint, bigint, text[]), count_audience(bigint, bigint, text[]),
  freeze_audience(bigint, bigint, bigint, text[]), link_target(bigint, integer),
  record_engagement(bigint[], integer[], smallint[], bigint[], text[]) TO mailrail_api;
GRANT EXECUTE ON FUNCTION make_partitions(integer), drop_old_notifications(integer) TO mailrail_worker;

GRANT SELECT ON installation TO mailrail_api, mailrail_worker;
GRANT USAGE ON stream_numbers TO mailrail_api;
GRANT USAGE ON lease_ids, claim_ids TO mailrail_worker;

-- The API sees and writes its tenant's rows only: FORCE makes the policies bind whoever owns the table, too.
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['api_keys', 'ledger_accounts', 'holds', 'transfers', 'postings', 'domains', 'contacts',
      'contact_fields', 'lists', 'list_members', 'suppressions', 'campaigns', 'streams', 'links']
      || partitioned_by_stream() LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON accounts USING (id = current_account()) WITH CHECK (id = current_account());

GRANT SELECT, UPDATE ON accounts TO mailrail_api;
GRANT SELECT, INSERT, UPDATE ON api_keys, domains, campaigns, contacts, lists, list_members, suppressions TO mailrail_api;
GRANT SELECT, INSERT ON contact_fields, streams, links, transfers, postings TO mailrail_api;
GRANT SELECT, INSERT, UPDATE ON holds TO mailrail_api;
GRANT SELECT, UPDATE ON ledger_accounts TO mailrail_api;
GRANT DELETE ON contacts, list_members, lists, campaigns, suppressions, domains TO mailrail_api;
GRANT SELECT, INSERT, UPDATE ON shards, folds TO mailrail_api;
GRANT SELECT ON audience, permits, claims, results, events, settlements, recipient_state, state_counts TO mailrail_api;
GRANT INSERT ON outbox, notification_queue TO mailrail_api;
GRANT SELECT (day, message_id), INSERT (message_id, topic_arn, body) ON notifications TO mailrail_api;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mailrail TO mailrail_worker;
REVOKE UPDATE, DELETE ON postings, transfers, results, result_batches, events, settlements FROM mailrail_worker;
REVOKE INSERT, UPDATE, DELETE ON installation FROM mailrail_worker;

-- Only now: partitions made after the grants above carry none, so no role reaches a row around its parent's policies.
SELECT make_partitions();
