-- Soft bounces over days, and what a suppression shows of where it came from. Expand only: processes of the version before go
-- on meanwhile.

-- —— suppressions ——————————————————————————————————————————————————————————————————————————————————————————————————————

-- soft_bounces: mail to it came back again and again. imported: a list that was brought along did not say why.
ALTER TABLE suppressions DROP CONSTRAINT suppressions_reason_check;
ALTER TABLE suppressions ADD CONSTRAINT suppressions_reason_check
  CHECK (reason IN ('bounce', 'soft_bounces', 'complaint', 'manual', 'imported', 'unsubscribe'));
ALTER TABLE suppression_hashes DROP CONSTRAINT suppression_hashes_reason_check;
ALTER TABLE suppression_hashes ADD CONSTRAINT suppression_hashes_reason_check
  CHECK (reason IN ('bounce', 'soft_bounces', 'complaint', 'manual', 'imported', 'unsubscribe'));

-- The mail that it came of, the key that entered it, and what the other server said, as a class.
ALTER TABLE suppressions ADD COLUMN stream_id bigint;
ALTER TABLE suppressions ADD COLUMN seq integer;
ALTER TABLE suppressions ADD COLUMN key_id bigint;
ALTER TABLE suppressions ADD COLUMN detail text;
ALTER TABLE suppressions ADD CONSTRAINT suppressions_mail CHECK ((stream_id IS NULL) = (seq IS NULL));

-- Of what a server answered, only the class: 'Permanent/General 5.1.1'. Its words may quote an address.
CREATE FUNCTION class_of(detail text) RETURNS text LANGUAGE sql IMMUTABLE
  RETURN nullif(concat_ws(' ',
    substring(detail FROM '^(?:Permanent|Transient|Undetermined|abuse|auth-failure|fraud|not-spam|other|virus)(?:/[A-Za-z]+)?'),
    substring(detail FROM '\m[245]\.\d{1,3}\.\d{1,3}\M')), '');

-- —— soft bounces: one row per address and day, kept until a delivery or the suppression ———————————————————————————————

CREATE TABLE soft_bounces (
  account_id bigint NOT NULL REFERENCES accounts,
  email_folded text NOT NULL CHECK (email_folded = lower(email_folded)),
  -- UTC.
  day date NOT NULL,
  bounces integer NOT NULL CHECK (bounces > 0),
  last_at timestamptz NOT NULL,
  PRIMARY KEY (account_id, email_folded, day)
);

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

ALTER TABLE soft_bounces ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON soft_bounces USING (account_id = mailrail.current_account())
  WITH CHECK (account_id = mailrail.current_account());
-- Whoever is suppressed or erased leaves it.
GRANT SELECT, DELETE ON soft_bounces TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON soft_bounces TO mailrail_worker;
REVOKE ALL ON FUNCTION class_of(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION class_of(text) TO mailrail_worker;
