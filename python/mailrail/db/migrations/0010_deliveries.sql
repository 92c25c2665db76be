-- Webhooks go out: what happened (messages), to which endpoints it goes (deliveries), and each try (attempts).
-- Expand only. Codes of events and states are those of emails/model.py.
--
-- Messages are written by triggers where things happen, in the same transaction, so that whoever adds an event, completes a
-- campaign or takes somebody's word tells of it, set-wise, and nobody has to think of it. An installation without endpoints
-- pays one look at an empty table per statement.

ALTER TABLE webhook_endpoints
  -- Since when every attempt failed; NULL after one that did not.
  ADD COLUMN failing_since timestamptz,
  -- When and why mailrail itself switched the endpoint off; NULL again once its owner switches it on.
  ADD COLUMN disabled_at timestamptz,
  ADD COLUMN disabled_reason text;

-- One thing that happened, of a type that somebody asks for; its id is the receiver's `webhook-id`.
CREATE TABLE webhook_messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL,
  type text NOT NULL,
  at timestamptz NOT NULL,
  -- What it is about, as numbers of rows: the dispatcher makes public ids of them.
  stream_id bigint,
  seq integer,
  attempt smallint,
  campaign_id bigint,
  contact_id bigint,
  list_id bigint,
  -- The rest, as it goes out. Frozen here, so that every try carries the same bytes.
  facts jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
);
-- A fold finds the same failures again and again.
CREATE UNIQUE INDEX webhook_messages_failed_once ON webhook_messages (stream_id, seq, attempt) WHERE type = 'email.failed';

-- A message on its way to one endpoint.
CREATE TABLE webhook_deliveries (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL,
  endpoint_id bigint NOT NULL,
  message_id bigint NOT NULL,
  type text NOT NULL,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
  -- How often it was tried, and how far it is in the schedule of retries, which a replay begins anew.
  attempts integer NOT NULL DEFAULT 0,
  step smallint NOT NULL DEFAULT 0,
  -- When it is to be tried next. While a dispatcher has it, when others may take it over.
  due_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  CHECK ((status = 'pending') = (due_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_page ON webhook_deliveries (endpoint_id, id DESC);
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (endpoint_id, id DESC) WHERE status = 'failed';
CREATE INDEX webhook_deliveries_message ON webhook_deliveries (message_id);

CREATE TABLE webhook_attempts (
  delivery_id bigint NOT NULL,
  attempt integer NOT NULL,
  account_id bigint NOT NULL,
  at timestamptz NOT NULL,
  duration_ms integer NOT NULL,
  -- NULL where no answer came; `error` then says why.
  http_status smallint,
  error text,
  -- The first 4 KB.
  answer text,
  PRIMARY KEY (delivery_id, attempt)
);

-- —— what happened becomes messages ————————————————————————————————————————————————————————————————————————————————————

CREATE FUNCTION is_asked_for(account bigint, wanted text) RETURNS boolean LANGUAGE sql STABLE
  RETURN EXISTS (SELECT FROM mailrail.webhook_endpoints
                 WHERE account_id = account AND is_active AND events && ARRAY[wanted, '*']);

-- What every message about a mail says of it. Takes no look at a table: one for each row would cost more than all the rest.
CREATE FUNCTION mail_facts(address text, is_test boolean, subject text, tags text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE
  RETURN jsonb_build_object('to', address, 'test', is_test, 'subject', subject, 'tags', coalesce(to_jsonb(tags), '[]'));

-- Clicks name their link by its number, except those that SES itself tells of.
CREATE FUNCTION clicked_link(stream bigint, mail integer, detail text) RETURNS text LANGUAGE sql STABLE
  RETURN CASE WHEN detail ~ '^[0-9]{1,9}$'
    THEN coalesce((SELECT url FROM mailrail.links WHERE stream_id = stream AND n = detail::integer),
                  mailrail.mail_link_target(stream, mail, detail::integer))
    ELSE left(detail, 4096) END;

CREATE FUNCTION tell_events() RETURNS trigger
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
    WHERE is_asked_for(e.account_id, t.type);
  RETURN NULL;
END $$;
CREATE TRIGGER events_told AFTER INSERT ON events REFERENCING NEW TABLE AS new_events
  FOR EACH STATEMENT EXECUTE FUNCTION tell_events();

-- Who failed is known to a fold alone: by SES's refusal, by silence that was given up, by time. What failed long ago was
-- told then, even if that message is no longer kept.
CREATE FUNCTION tell_failures() RETURNS trigger
  -- Failures are few; a fold, which joins all of a shard, forbids this to itself.
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp SET enable_nestloop = on AS $$
BEGIN
  IF NOT is_asked_for(NEW.account_id, 'email.failed') THEN
    RETURN NULL;
  END IF;
  INSERT INTO webhook_messages (account_id, type, at, stream_id, seq, attempt, campaign_id, contact_id, facts)
    SELECT r.account_id, 'email.failed', coalesce(r.at, now()), r.stream_id, r.seq, r.attempt, s.campaign_id, a.contact_id,
      mail_facts(a.email, s.is_test, f.subject, f.tags) || jsonb_build_object('reason', left(r.reason, 1000))
    FROM recipient_state r
    JOIN shards h ON h.stream_id = r.stream_id AND h.shard = NEW.shard
    JOIN streams s ON s.stream_id = r.stream_id
    JOIN audience a ON a.stream_id = r.stream_id AND a.seq = r.seq AND a.seq BETWEEN h.first_seq AND h.last_seq
    LEFT JOIN mails m ON m.stream_id = r.stream_id AND m.seq = r.seq AND m.seq BETWEEN h.first_seq AND h.last_seq
      AND s.campaign_id IS NULL
    LEFT JOIN mails f ON f.stream_id = m.stream_id AND f.seq = m.first_seq
    WHERE r.stream_id = NEW.stream_id AND r.seq BETWEEN h.first_seq AND h.last_seq AND r.state IN (3, 4, 6, 10)
      AND coalesce(r.at, now()) > now() - interval '7 days'
    ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER failures_told AFTER UPDATE OF folded_at ON folds
  FOR EACH ROW EXECUTE FUNCTION tell_failures();

CREATE FUNCTION tell_campaign() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE
  told text := CASE NEW.status WHEN 'queued' THEN 'campaign.sent' ELSE 'campaign.completed' END;
BEGIN
  IF is_asked_for(NEW.account_id, told) THEN
    INSERT INTO webhook_messages (account_id, type, at, campaign_id, facts)
      VALUES (NEW.account_id, told, now(), NEW.id,
              jsonb_build_object('name', NEW.name, 'audienceCount', NEW.audience_count));
  END IF;
  RETURN NULL;
END $$;
-- One that was paused before its start goes on with it; that is no second start.
CREATE TRIGGER campaigns_told AFTER UPDATE OF status ON campaigns FOR EACH ROW
  WHEN (NEW.status = 'queued' AND OLD.status IN ('draft', 'scheduled', 'failed')
        OR NEW.status = 'completed' AND OLD.status <> 'completed')
  EXECUTE FUNCTION tell_campaign();

CREATE FUNCTION tell_unsubscribed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF is_asked_for(NEW.account_id, 'contact.unsubscribed') THEN
    INSERT INTO webhook_messages (account_id, type, at, contact_id, facts)
      VALUES (NEW.account_id, 'contact.unsubscribed', now(), NEW.id, jsonb_build_object('email', NEW.email));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER contacts_unsubscribed AFTER UPDATE OF status ON contacts FOR EACH ROW
  WHEN (NEW.status = 'unsubscribed' AND OLD.status <> 'unsubscribed')
  EXECUTE FUNCTION tell_unsubscribed();

CREATE FUNCTION tell_left_list() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF is_asked_for(NEW.account_id, 'contact.unsubscribed') THEN
    INSERT INTO webhook_messages (account_id, type, at, contact_id, list_id, facts)
      SELECT NEW.account_id, 'contact.unsubscribed', now(), c.id, NEW.list_id, jsonb_build_object('email', c.email)
      FROM contacts c WHERE c.id = NEW.contact_id AND (TG_OP = 'UPDATE' OR c.status <> 'unsubscribed');
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER members_left AFTER UPDATE OF status ON list_members FOR EACH ROW
  WHEN (NEW.status = 'unsubscribed' AND OLD.status <> 'unsubscribed')
  EXECUTE FUNCTION tell_left_list();
-- The word of somebody who was taken off the list before; not of people whom an import brings as those who had left anyway.
CREATE TRIGGER members_declined AFTER INSERT ON list_members FOR EACH ROW
  WHEN (NEW.status = 'unsubscribed')
  EXECUTE FUNCTION tell_left_list();

-- —— messages become deliveries ————————————————————————————————————————————————————————————————————————————————————————

-- A test message has the one delivery that was asked for.
CREATE FUNCTION address_messages() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  INSERT INTO webhook_deliveries (account_id, endpoint_id, message_id, type, due_at)
    SELECT m.account_id, w.id, m.id, m.type, clock_timestamp()
    FROM new_messages m
    JOIN webhook_endpoints w ON w.account_id = m.account_id AND w.is_active AND w.events && ARRAY[m.type, '*']
    WHERE m.type <> 'webhook.test';
  RETURN NULL;
END $$;
CREATE TRIGGER messages_addressed AFTER INSERT ON webhook_messages REFERENCING NEW TABLE AS new_messages
  FOR EACH STATEMENT EXECUTE FUNCTION address_messages();

-- —— figures for operators —————————————————————————————————————————————————————————————————————————————————————————————

-- Deliveries that are due and not taken; those of endpoints that are off wait for their owners.
CREATE FUNCTION webhook_figures() RETURNS TABLE (name text, label text, value double precision)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  WITH due AS (
    SELECT count(*) AS n, min(d.due_at) AS oldest
    FROM webhook_endpoints e
    JOIN webhook_deliveries d ON d.endpoint_id = e.id AND d.due_at <= clock_timestamp()
    WHERE e.is_active
  )
  SELECT 'webhooks_due', NULL::text, n::double precision FROM due
  UNION ALL SELECT 'webhooks_oldest_seconds', NULL, coalesce(extract(epoch FROM clock_timestamp() - oldest), 0) FROM due
  UNION ALL SELECT 'webhook_endpoints_failing', NULL, count(*) FROM webhook_endpoints
    WHERE is_active AND failing_since IS NOT NULL
  UNION ALL SELECT 'webhook_endpoints_disabled', NULL, count(*) FROM webhook_endpoints WHERE disabled_at IS NOT NULL
$$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['webhook_messages', 'webhook_deliveries', 'webhook_attempts'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;

REVOKE ALL ON FUNCTION is_asked_for(bigint, text), mail_facts(text, boolean, text, text[]), clicked_link(bigint, integer, text),
  tell_events(), tell_failures(), tell_campaign(), tell_unsubscribed(), tell_left_list(), address_messages(),
  webhook_figures() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION webhook_figures() TO mailrail_api, mailrail_worker;
-- Tests and replays.
GRANT SELECT, INSERT ON webhook_messages, webhook_deliveries TO mailrail_api;
GRANT UPDATE (status, step, due_at, ended_at) ON webhook_deliveries TO mailrail_api;
GRANT SELECT ON webhook_attempts TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_messages, webhook_deliveries, webhook_attempts TO mailrail_worker;
