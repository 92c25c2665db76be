-- Transactional mail. A stream is one account's mail of one day; its shards are ranges of numbers that an API process
-- opened for itself. Expand only.

-- Which day's mail the stream is: NULL for a campaign, and for a day that was closed, which then begins a new stream.
ALTER TABLE streams ADD COLUMN day date;
ALTER TABLE streams ADD COLUMN is_test boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX streams_of_day ON streams (account_id, day, is_test) WHERE day IS NOT NULL;

-- The hold that covers this recipient where it is not that of a campaign.
ALTER TABLE audience ADD COLUMN hold_id bigint;

-- One row for each address of each mail. A mail to several has neighbouring numbers; its first row has what all share.
CREATE TABLE mails (
  stream_id bigint NOT NULL,
  seq integer NOT NULL,
  account_id bigint NOT NULL,
  first_seq integer NOT NULL,
  role text NOT NULL CHECK (role IN ('to', 'cc', 'bcc')),
  -- Blank once the person was erased.
  email_folded text NOT NULL,
  created_at timestamptz NOT NULL,
  scheduled_at timestamptz,
  sender text,
  subject text,
  -- The customer's own, as "name=value".
  tags text[],
  -- What the core made of the request: the mail as it is sent, but for its tokens.
  content bytea,
  PRIMARY KEY (stream_id, seq),
  CHECK ((seq = first_seq) = (content IS NOT NULL AND subject IS NOT NULL AND sender IS NOT NULL AND tags IS NOT NULL))
) PARTITION BY RANGE (stream_id);
ALTER TABLE mails ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX mails_page ON mails (account_id, created_at DESC, stream_id DESC, seq DESC) WHERE seq = first_seq;
CREATE INDEX mails_address ON mails (account_id, email_folded, created_at DESC);

-- Targets of links in transactional mail; like `links` they outlive retention.
CREATE TABLE mail_links (
  stream_id bigint NOT NULL,
  first_seq integer NOT NULL,
  last_seq integer NOT NULL,
  account_id bigint NOT NULL REFERENCES accounts,
  urls text[] NOT NULL,
  PRIMARY KEY (stream_id, first_seq)
);

CREATE OR REPLACE FUNCTION partitioned_by_stream() RETURNS text[] LANGUAGE sql IMMUTABLE
  RETURN ARRAY['audience', 'shards', 'claims', 'permits', 'results', 'result_batches', 'events', 'settlements',
               'recipient_state', 'state_counts', 'folds', 'mails'];

-- 0 for a campaign, 1 for transactional mail.
CREATE FUNCTION kind_of(stream bigint) RETURNS integer LANGUAGE sql IMMUTABLE
  RETURN ((stream >> 32) & 7)::integer;

-- A click names only its mail, so no tenant is known yet.
CREATE FUNCTION mail_link_target(stream bigint, mail integer, link integer) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  SELECT urls[link] FROM mail_links
  WHERE stream_id = stream AND first_seq <= mail AND last_seq >= mail ORDER BY first_seq DESC LIMIT 1
$$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

ALTER TABLE mails ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mails USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());
ALTER TABLE mail_links ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mail_links USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());
REVOKE ALL ON FUNCTION kind_of(bigint), mail_link_target(bigint, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION kind_of(bigint) TO mailrail_api, mailrail_worker;
GRANT EXECUTE ON FUNCTION mail_link_target(bigint, integer, integer) TO mailrail_api;
GRANT SELECT, INSERT ON mails, mail_links TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON mails, mail_links TO mailrail_worker;
-- The API's processes send transactional mail themselves: they claim, and write down what came of it.
GRANT USAGE ON lease_ids, claim_ids TO mailrail_api;
GRANT INSERT ON audience, claims, results, result_batches, events, send_limits TO mailrail_api;
GRANT SELECT ON result_batches TO mailrail_api;
-- A refused mail gives its key back.
GRANT DELETE ON idempotency_keys TO mailrail_api;
GRANT UPDATE (day) ON streams TO mailrail_worker;

SELECT make_partitions();
