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
GRANT UPDATE (held_at, held_reason) ON installation TO mailrail_worker;
-- Metrics of the API process show the installation's pace, and transactional mail takes its tokens here.
GRANT SELECT, UPDATE ON send_limits TO mailrail_api;
GRANT SELECT, INSERT ON parked_messages TO mailrail_api;
