-- What SES would think of each tenant. Expand only: new tables, which processes of the version before neither read nor write.

-- What came of an account's mail, by the hour in which SES told it.
CREATE TABLE reputation_hours (
  account_id bigint NOT NULL REFERENCES accounts,
  hour timestamptz NOT NULL,
  delivered integer NOT NULL DEFAULT 0,
  -- For good, as SES counts it: not those that its own suppression list brought about.
  bounced integer NOT NULL DEFAULT 0,
  soft_bounced integer NOT NULL DEFAULT 0,
  complained integer NOT NULL DEFAULT 0,
  PRIMARY KEY (account_id, hour)
);
CREATE INDEX reputation_hours_old ON reputation_hours (hour);

-- How the account stood when it was last judged; without a row it is good.
CREATE TABLE reputations (
  account_id bigint PRIMARY KEY REFERENCES accounts,
  level text NOT NULL CHECK (level IN ('good', 'warning', 'campaigns_stopped', 'mail_stopped')),
  reason text,
  since timestamptz NOT NULL DEFAULT now(),
  CHECK ((level = 'good') = (reason IS NULL))
);

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['reputation_hours', 'reputations'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;
GRANT SELECT ON reputation_hours, reputations TO mailrail_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON reputation_hours, reputations TO mailrail_worker;
