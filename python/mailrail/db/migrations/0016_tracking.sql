-- Readers told from machines, clicks counted by link, and tracking switched off by domain, campaign and contact.
-- Expand only: processes of the version before record, fold and send as they did. Codes of events are those of emails/model.py.

-- —— readers and machines ——————————————————————————————————————————————————————————————————————————————————————————————

-- How an open or a click showed by itself that no person made it; NULL where it did not, and for all other events.
ALTER TABLE events ADD COLUMN machine text;
ALTER TABLE recipient_state
  ADD COLUMN machine_opens integer NOT NULL DEFAULT 0,
  ADD COLUMN machine_clicks integer NOT NULL DEFAULT 0;
-- Recipients of whom nothing but machines was seen: nobody counts twice.
ALTER TABLE folds
  ADD COLUMN machine_opened integer NOT NULL DEFAULT 0,
  ADD COLUMN machine_clicked integer NOT NULL DEFAULT 0;

-- The opens and clicks of a range of mails, each with what gives a machine away once all of them are known: nobody reads a mail
-- before it has arrived, and nobody follows two links at the same moment. emails/engagement.py says the same of one mail,
-- and a test holds the two together. Planned as a part of the statement that asks.
CREATE FUNCTION engagement(stream bigint, first_seq integer, last_seq integer)
  RETURNS TABLE (seq integer, kind smallint, dedupe bigint, at timestamptz, detail text, machine text)
  LANGUAGE sql STABLE AS $$
  SELECT e.seq, e.kind, e.dedupe, coalesce(e.at, e.received_at), e.detail,
    CASE WHEN e.machine IS NOT NULL THEN e.machine
         WHEN coalesce(e.at, e.received_at) < d.at + interval '2 seconds' THEN 'soon'
         WHEN e.kind = 10 AND min(e.detail) OVER near <> max(e.detail) OVER near THEN 'burst' END
  FROM mailrail.events e
  LEFT JOIN (SELECT a.seq, min(coalesce(a.at, a.received_at)) AS at FROM mailrail.events a
             WHERE a.stream_id = stream AND a.seq BETWEEN first_seq AND last_seq AND a.kind = 2 GROUP BY a.seq) d
    ON d.seq = e.seq
  WHERE e.stream_id = stream AND e.seq BETWEEN first_seq AND last_seq AND e.kind IN (9, 10)
  WINDOW near AS (PARTITION BY e.seq, e.kind ORDER BY coalesce(e.at, e.received_at)
                  RANGE BETWEEN interval '1 second' PRECEDING AND interval '1 second' FOLLOWING)
$$;

-- —— clicks by link ————————————————————————————————————————————————————————————————————————————————————————————————————

-- What a fold counted of a campaign's links; a link that nobody followed has no row.
CREATE TABLE link_counts (
  stream_id bigint NOT NULL,
  shard integer NOT NULL,
  n integer NOT NULL,
  account_id bigint NOT NULL,
  -- People, their clicks, and the clicks of machines; when people clicked first and last.
  clicked integer NOT NULL,
  clicks integer NOT NULL,
  machine_clicks integer NOT NULL,
  first_at timestamptz,
  last_at timestamptz,
  PRIMARY KEY (stream_id, shard, n)
) PARTITION BY RANGE (stream_id);

CREATE OR REPLACE FUNCTION partitioned_by_stream() RETURNS text[] LANGUAGE sql IMMUTABLE
  RETURN ARRAY['audience', 'shards', 'claims', 'permits', 'results', 'result_batches', 'events', 'settlements',
               'recipient_state', 'state_counts', 'folds', 'mails', 'link_counts'];

-- —— switches ——————————————————————————————————————————————————————————————————————————————————————————————————————————

ALTER TABLE domains
  ADD COLUMN track_opens boolean NOT NULL DEFAULT true,
  ADD COLUMN track_clicks boolean NOT NULL DEFAULT true;
ALTER TABLE campaigns
  ADD COLUMN track_opens boolean NOT NULL DEFAULT true,
  ADD COLUMN track_clicks boolean NOT NULL DEFAULT true;
ALTER TABLE contacts ADD COLUMN tracking boolean NOT NULL DEFAULT true;
-- Those who are not to be tracked are few, and asked for with every open.
CREATE INDEX contacts_untracked ON contacts (account_id, email_folded) INCLUDE (id) WHERE NOT tracking;

-- —— recording —————————————————————————————————————————————————————————————————————————————————————————————————————————

-- Opens, clicks and unsubscriptions, a batch at a time. `machines` is as events.machine, `ages_ms` how long ago it was. Those of
-- dropped streams are passed over, and of people who are not to be tracked all but the unsubscriptions.
CREATE FUNCTION record_engagement(stream_ids bigint[], seqs integer[], kinds smallint[], dedupes bigint[], details text[],
    machines text[], ages_ms bigint[]) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE
  recorded integer;
  touched_streams bigint[];
  touched_shards integer[];
  untracked_streams bigint[];
  untracked_seqs integer[];
BEGIN
  -- Hardly any account has such people, and one look tells.
  IF EXISTS (SELECT FROM streams s JOIN contacts c ON c.account_id = s.account_id AND NOT c.tracking
             WHERE s.stream_id = ANY(stream_ids)) THEN
    SELECT array_agg(e.stream_id), array_agg(e.seq) INTO untracked_streams, untracked_seqs
    FROM (SELECT DISTINCT * FROM unnest(stream_ids, seqs) AS given(stream_id, seq)) e
    JOIN audience a ON a.stream_id = e.stream_id AND a.seq = e.seq
    WHERE EXISTS (SELECT FROM contacts c WHERE c.account_id = a.account_id AND NOT c.tracking
                  AND (c.id = a.contact_id OR a.contact_id IS NULL AND c.email_folded = lower(a.email)));
  END IF;

  WITH seen AS (
    SELECT e.*, s.account_id, s.shard_size
    FROM unnest(stream_ids, seqs, kinds, dedupes, details, machines, ages_ms)
      AS e(stream_id, seq, kind, dedupe, detail, machine, age_ms)
    JOIN streams s USING (stream_id)
    WHERE e.kind IN (9, 10, 11)
  ), added AS (
    INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, detail, machine)
    SELECT stream_id, seq, kind, dedupe, account_id, 0, now() - coalesce(age_ms, 0) * interval '1 millisecond', detail, machine
    FROM seen
    WHERE kind = 11 OR (stream_id, seq) NOT IN (SELECT * FROM unnest(untracked_streams, untracked_seqs))
    ON CONFLICT DO NOTHING RETURNING stream_id, seq
  ), touched AS (
    SELECT a.stream_id, (a.seq - 1) / s.shard_size AS shard, count(*) AS events
    FROM added a JOIN streams s USING (stream_id) GROUP BY 1, 2
  )
  SELECT coalesce(sum(events), 0), array_agg(stream_id), array_agg(shard)
  INTO recorded, touched_streams, touched_shards FROM touched;

  -- Two statements, as emails/fold.py: make_due has them and for its reason.
  PERFORM FROM folds f JOIN unnest(touched_streams, touched_shards) AS t(stream_id, shard) USING (stream_id, shard)
    ORDER BY f.stream_id, f.shard FOR UPDATE OF f;
  UPDATE folds f SET due_at = least(f.due_at, now() + interval '1 second')
    FROM unnest(touched_streams, touched_shards) AS t(stream_id, shard)
    WHERE f.stream_id = t.stream_id AND f.shard = t.shard;
  RETURN recorded;
END $$;

-- As processes of the version before call it.
CREATE OR REPLACE FUNCTION record_engagement(
    stream_ids bigint[], seqs integer[], kinds smallint[], dedupes bigint[], details text[]) RETURNS integer
  LANGUAGE sql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  SELECT record_engagement(stream_ids, seqs, kinds, dedupes, details, NULL, NULL)
$$;

-- —— webhooks: email.opened and email.clicked say whether it was a machine, as far as is known when they happen ——————————

CREATE OR REPLACE FUNCTION tell_events() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM webhook_endpoints WHERE is_active) THEN
    RETURN NULL;
  END IF;
  INSERT INTO webhook_messages (account_id, type, at, stream_id, seq, attempt, campaign_id, contact_id, facts)
    SELECT e.account_id, t.type, coalesce(e.at, e.received_at), e.stream_id, e.seq, e.attempt, s.campaign_id, a.contact_id,
      mail_facts(a.email, s.is_test, f.subject, f.tags) || CASE
        WHEN e.kind = 10 THEN jsonb_build_object('link', clicked_link(e.stream_id, e.seq, e.detail))
        WHEN e.kind IN (3, 4) THEN jsonb_build_object('bounceType', CASE e.kind WHEN 3 THEN 'hard' ELSE 'soft' END,
                                                      'reason', left(e.detail, 1000))
        WHEN e.kind IN (7, 8) THEN jsonb_build_object('reason', left(e.detail, 1000))
        ELSE '{}' END || CASE
        WHEN e.kind IN (9, 10) THEN jsonb_build_object('machine', EXISTS (
          SELECT FROM engagement(e.stream_id, e.seq, e.seq) g
          WHERE g.kind = e.kind AND g.dedupe = e.dedupe AND g.machine IS NOT NULL))
        ELSE '{}' END
    FROM new_events e
    JOIN (VALUES (1, 'email.sent'), (2, 'email.delivered'), (3, 'email.bounced'), (4, 'email.bounced'),
                 (7, 'email.complained'), (8, 'email.delayed'), (9, 'email.opened'), (10, 'email.clicked')) t (kind, type)
      ON t.kind = e.kind
    JOIN streams s ON s.stream_id = e.stream_id
    JOIN audience a ON a.stream_id = e.stream_id AND a.seq = e.seq
    -- A transactional mail's first row has what all its addresses share.
    LEFT JOIN mails m ON m.stream_id = e.stream_id AND m.seq = e.seq AND s.campaign_id IS NULL
    LEFT JOIN mails f ON f.stream_id = m.stream_id AND f.seq = m.first_seq
    WHERE is_asked_for(e.account_id, t.type)
    ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

ALTER TABLE link_counts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON link_counts USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());
GRANT SELECT ON link_counts TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON link_counts TO mailrail_worker;
REVOKE ALL ON FUNCTION engagement(bigint, integer, integer),
  record_engagement(bigint[], integer[], smallint[], bigint[], text[], text[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION engagement(bigint, integer, integer) TO mailrail_worker;
GRANT EXECUTE ON FUNCTION record_engagement(bigint[], integer[], smallint[], bigint[], text[], text[], bigint[]) TO mailrail_api;

SELECT make_partitions();
