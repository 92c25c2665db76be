-- What the send engine needs to settle unknown outcomes, share one rate between workers and notice a restored backup.
-- Expand only: new tables, new columns with defaults, wider checks. Workers of the version before go on meanwhile.

-- —— claims: until when a call of the claim may still be written ————————————————————————————————————————————————————————

-- Unknown to workers of the version before, which leave it NULL; their leases end within the hour that is assumed then.
ALTER TABLE claims ADD COLUMN lease_until timestamptz;
-- Which rounds were under way at a time: the watermark compares an unknown send with its neighbours of all streams.
CREATE INDEX claims_at ON claims (claimed_at);

-- permits.claim_id 0 marks a permit that was withdrawn: by cancel, or because its recipient turned out to be accepted.

-- —— folds: what time alone will decide ————————————————————————————————————————————————————————————————————————————————

-- The earliest lease end among the claims that decide the shard's unknown recipients; NULL without any.
ALTER TABLE folds ADD COLUMN unknown_since timestamptz;
-- When the reconciler looks next after it could not decide, and why it could not.
ALTER TABLE folds ADD COLUMN reconcile_at timestamptz;
ALTER TABLE folds ADD COLUMN waiting_for text;
-- Recipients of whom SES accepted more than one attempt.
ALTER TABLE folds ADD COLUMN duplicates integer NOT NULL DEFAULT 0;
CREATE INDEX folds_unknown ON folds (unknown_since) WHERE unknown_since IS NOT NULL;

-- —— campaigns: schedules, and pauses before the start —————————————————————————————————————————————————————————————————

ALTER TABLE campaigns DROP CONSTRAINT campaigns_started;
ALTER TABLE campaigns ADD CONSTRAINT campaigns_started CHECK (
  CASE WHEN status IN ('draft', 'scheduled') THEN stream_id IS NULL
       WHEN status IN ('queued', 'sending', 'completed') THEN stream_id IS NOT NULL
       ELSE true END);
CREATE INDEX campaigns_scheduled ON campaigns (scheduled_at) WHERE status = 'scheduled';

-- —— canaries: mails to SES's mailbox simulator that prove the way back of events ——————————————————————————————————————

CREATE TABLE canaries (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  configuration_set text NOT NULL,
  sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at timestamptz
);
CREATE INDEX canaries_sent ON canaries (configuration_set, sent_at);

-- How long the oldest notification waits for the applier.
ALTER TABLE notification_queue ADD COLUMN queued_at timestamptz NOT NULL DEFAULT now();

-- —— the one limiter: a row per AWS account and region ——————————————————————————————————————————————————————————————————

CREATE TABLE send_limits (
  name text PRIMARY KEY,
  -- What SES grants, as GetAccount said it last; recipients, and a daily quota of -1 is none.
  max_send_rate double precision NOT NULL DEFAULT 0,
  max_24_hour_send double precision NOT NULL DEFAULT 0,
  sent_last_24_hours double precision NOT NULL DEFAULT 0,
  sending_enabled boolean NOT NULL DEFAULT false,
  -- NULL until SES has answered once; nothing is granted before.
  polled_at timestamptz,
  -- When the next poll is due: whoever moves it makes it.
  poll_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Recipients let through, ever, and how many it were when the last poll began: GetAccount may not know those since.
  granted bigint NOT NULL DEFAULT 0,
  granted_at_poll bigint NOT NULL DEFAULT 0,
  -- The token bucket; below zero it holds the debt of mail that may not wait.
  tokens double precision NOT NULL DEFAULT 0,
  refilled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Additive increase, multiplicative decrease: the part of the rate that was left when SES last throttled.
  factor double precision NOT NULL DEFAULT 1 CHECK (factor > 0 AND factor <= 1),
  throttled_at timestamptz,
  throttles bigint NOT NULL DEFAULT 0
-- Updated many times a second: its versions stay on its page.
) WITH (fillfactor = 10);

-- —— outbox: which messages belong together on the bus ——————————————————————————————————————————————————————————————————

ALTER TABLE outbox ADD COLUMN key text NOT NULL DEFAULT '';

-- —— bus messages that no release here can read —————————————————————————————————————————————————————————————————————————

CREATE TABLE parked_messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL,
  -- Where a broker has it; NULL on the embedded bus.
  partition integer,
  "offset" bigint,
  -- The first 64 KiB.
  payload bytea NOT NULL,
  reason text NOT NULL,
  parked_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE NULLS DISTINCT (topic, partition, "offset")
);

-- —— a restored backup stops all sending until a person has looked ——————————————————————————————————————————————————————

ALTER TABLE installation ADD COLUMN held_at timestamptz;
ALTER TABLE installation ADD COLUMN held_reason text;
-- The last release by a person; the log of accepted mail ends with the same mark, or this is not the database it belongs to.
ALTER TABLE installation ADD COLUMN release_mark text;

-- What was numbered after a backup keeps its numbers: mail that carries them is out there, and its events and clicks
-- will come. Every sequence of the schema leaps ahead.
CREATE FUNCTION skip_numbers(gap bigint DEFAULT 1000000) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE s record;
BEGIN
  IF gap NOT BETWEEN 1 AND 1000000000 THEN
    RAISE EXCEPTION 'a leap of % is none', gap USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR s IN SELECT sequencename, least(coalesce(last_value, 0) + gap, max_value) AS target
           FROM pg_sequences WHERE schemaname = 'mailrail' LOOP
    PERFORM setval(format('mailrail.%I', s.sequencename)::regclass, s.target);
  END LOOP;
END $$;

-- —— the ledger is watched: a tenant whose books do not balance starts nothing new ——————————————————————————————————————

ALTER TABLE ledger_accounts ADD COLUMN frozen_at timestamptz;
ALTER TABLE installation ADD COLUMN audited_at timestamptz;
ALTER TABLE installation ADD COLUMN ledger_violations integer NOT NULL DEFAULT 0;

-- —— figures for operators —————————————————————————————————————————————————————————————————————————————————————————————

-- What /metrics shows of the whole installation: sums over all tenants, which the API's role cannot see by itself. A few
-- scans of tables with a row per shard or less, and of queues; never of a table with a row per recipient.
CREATE FUNCTION installation_figures() RETURNS TABLE (name text, label text, value double precision)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  WITH waiting_messages AS (
    SELECT count(*) AS n, min(created_at) AS oldest FROM outbox
  ), waiting_notifications AS (
    SELECT count(*) AS n, min(queued_at) AS oldest FROM notification_queue
  ), awake AS (
    SELECT count(*) FILTER (WHERE lease_until > clock_timestamp()) AS leased,
      count(*) FILTER (WHERE wake_at <= clock_timestamp() AND state = 'sending'
                       AND (lease_until IS NULL OR lease_until <= clock_timestamp())) AS waiting
    FROM shards WHERE wake_at IS NOT NULL
  ), folding AS (
    SELECT count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due, min(unknown_since) AS unknown_since,
      coalesce(sum(duplicates), 0) AS duplicates
    FROM folds
  ), undecided AS (
    SELECT coalesce(sum(recipients) FILTER (WHERE state = 2), 0) AS unknown,
      coalesce(sum(recipients) FILTER (WHERE state = 4), 0) AS unresolved
    FROM state_counts
  ), old_holds AS (
    SELECT count(*) AS n, coalesce(sum(amount_micros - captured_micros - released_micros), 0) AS micros
    FROM holds WHERE closed_at IS NULL AND created_at < now() - interval '72 hours'
  )
  SELECT 'outbox_messages', NULL, n FROM waiting_messages
  UNION ALL SELECT 'outbox_oldest_seconds', NULL, coalesce(extract(epoch FROM clock_timestamp() - oldest), 0) FROM waiting_messages
  UNION ALL SELECT 'notifications_waiting', NULL, n FROM waiting_notifications
  UNION ALL SELECT 'notifications_lag_seconds', NULL, coalesce(extract(epoch FROM clock_timestamp() - oldest), 0) FROM waiting_notifications
  UNION ALL SELECT 'shards_waiting', NULL, waiting FROM awake
  UNION ALL SELECT 'shards_leased', NULL, leased FROM awake
  UNION ALL SELECT 'folds_due', NULL, due FROM folding
  UNION ALL SELECT 'recipients_unknown', NULL, unknown FROM undecided
  UNION ALL SELECT 'recipients_unresolved', NULL, unresolved FROM undecided
  UNION ALL SELECT 'unknown_oldest_seconds', NULL,
    coalesce(greatest(extract(epoch FROM clock_timestamp() - unknown_since), 0), 0) FROM folding
  UNION ALL SELECT 'duplicates_detected', NULL, duplicates FROM folding
  UNION ALL SELECT 'messages_parked', NULL, count(*) FROM parked_messages
  UNION ALL SELECT 'notifications_parked', NULL, count(*) FROM parked_notifications
  UNION ALL SELECT 'holds_overdue', NULL, n FROM old_holds
  UNION ALL SELECT 'holds_overdue_micros', NULL, micros FROM old_holds
  UNION ALL SELECT 'installation_held', NULL, (held_at IS NOT NULL)::integer FROM installation
  UNION ALL SELECT 'ledger_violations', NULL, ledger_violations FROM installation
  UNION ALL SELECT 'ledger_audit_age_seconds', NULL, extract(epoch FROM clock_timestamp() - audited_at)
    FROM installation WHERE audited_at IS NOT NULL
  UNION ALL SELECT 'wallets_frozen', NULL, count(*) FROM ledger_accounts WHERE frozen_at IS NOT NULL
  -- Those that are over are as many as there ever were, and nothing to watch.
  UNION ALL SELECT 'campaigns', status, count(*) FROM campaigns WHERE status IN ('queued', 'sending', 'paused') GROUP BY status
  UNION ALL SELECT 'campaigns', 'scheduled', count(*) FROM campaigns WHERE status = 'scheduled'
  UNION ALL SELECT 'send_rate_max', l.name, max_send_rate FROM send_limits l
  UNION ALL SELECT 'send_rate_factor', l.name, factor FROM send_limits l
  UNION ALL SELECT 'send_throttles', l.name, throttles FROM send_limits l
  UNION ALL SELECT 'send_granted', l.name, granted FROM send_limits l
  UNION ALL SELECT 'send_quota_max', l.name, max_24_hour_send FROM send_limits l
  UNION ALL SELECT 'send_quota_used', l.name, sent_last_24_hours + (granted - granted_at_poll) FROM send_limits l
$$;

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

-- A scheduled campaign is started by a worker, in its tenant's name.
GRANT EXECUTE ON FUNCTION audience_of(bigint, bigint, text[]), count_audience(bigint, bigint, text[]),
  freeze_audience(bigint, bigint, bigint, text[]) TO mailrail_worker;
GRANT USAGE ON stream_numbers TO mailrail_worker;
-- Retry writes permits, cancel withdraws them.
GRANT INSERT, UPDATE ON permits TO mailrail_api;
-- Retry opens a completed stream again.
GRANT UPDATE (closed_at) ON streams TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON canaries, send_limits, parked_messages TO mailrail_worker;
GRANT UPDATE (held_at, held_reason, release_mark, audited_at, ledger_violations) ON installation TO mailrail_worker;
REVOKE ALL ON FUNCTION skip_numbers(bigint), installation_figures() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION skip_numbers(bigint) TO mailrail_worker;
GRANT EXECUTE ON FUNCTION installation_figures() TO mailrail_api, mailrail_worker;
-- Metrics of the API process show the installation's pace, and transactional mail takes its tokens here.
GRANT SELECT, UPDATE ON send_limits TO mailrail_api;
