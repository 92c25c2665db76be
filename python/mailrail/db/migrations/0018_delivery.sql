-- How a campaign's mail reaches Amazon SES, and why: campaigns/delivery.py. A campaign that started before this has no mode of its
-- own; its stream says it.
ALTER TABLE campaigns
  ADD COLUMN wire_mode text CHECK (wire_mode IN ('slots', 'simple')),
  ADD COLUMN wire_reason text,
  -- It goes by simple until its canary has come back.
  ADD COLUMN awaits_canary boolean NOT NULL DEFAULT false,
  ADD COLUMN rendering_failures integer NOT NULL DEFAULT 0;
CREATE INDEX campaigns_awaiting ON campaigns (id) WHERE awaits_canary;

-- —— canaries of campaigns: mails as their recipients would get them, with the hardest values there are ————————————————————

ALTER TABLE canaries
  ADD COLUMN stream_id bigint,
  -- Whom it pretends to be for: names and custom fields.
  ADD COLUMN contact jsonb,
  -- The worker that sends it has so long.
  ADD COLUMN taken_until timestamptz,
  -- What became of the call, and what SES told later.
  ADD COLUMN outcome smallint,
  ADD COLUMN error text,
  ADD COLUMN delivered_at timestamptz,
  ADD COLUMN failure text,
  ADD COLUMN event text;
CREATE INDEX canaries_of_stream ON canaries (stream_id) WHERE stream_id IS NOT NULL;

-- —— what `mailrail doctor --aws --probe` found out about an AWS account and region ——————————————————————————————————————

CREATE TABLE ses_answers (
  -- As in send_limits.
  name text NOT NULL,
  question text NOT NULL,
  answer text NOT NULL CHECK (answer IN ('yes', 'no', 'unknown')),
  value double precision,
  detail text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, question)
);

-- Campaigns are started by both.
GRANT SELECT ON ses_answers TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON ses_answers TO mailrail_worker;
