-- Sending domains are looked at: what was last seen of each, when to look again, and whose they are. Expand only.

ALTER TABLE domains
  -- Whose name stands in MAIL FROM, as the owner wishes; NULL is Amazon's.
  ADD COLUMN mail_from text CHECK (mail_from = lower(mail_from)),
  -- An identity at SES belongs to the installation. Where SES, or another account, knew the domain or one above or below it before
  -- it was verified for this account, its DKIM records say nothing of this account, and a record of its own has to.
  ADD COLUMN needs_proof boolean NOT NULL DEFAULT false,
  -- From when on the pauses between checks grow.
  ADD COLUMN watched_since timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN checked_at timestamptz,
  -- When a worker looks next. While one has it, when others may take it over.
  ADD COLUMN next_check_at timestamptz NOT NULL DEFAULT now(),
  -- What SES and DNS said last, as domains/model.py: Report.
  ADD COLUMN report jsonb;
CREATE INDEX domains_due ON domains (next_check_at);

-- —— whose it is ———————————————————————————————————————————————————————————————————————————————————————————————————————

-- Whoever adds a domain that another account has has to prove that it is theirs, and so has the other, unless it is verified: who
-- publishes the DKIM records from now on may be either. Two who add it at the same time wait for each other.
CREATE FUNCTION claim_domain() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('domain ' || substring(NEW.domain FROM '[^.]*\.?[^.]*$'), 0));
  UPDATE domains SET needs_proof = true
    WHERE account_id <> NEW.account_id AND NOT needs_proof
      AND (domain = NEW.domain OR domain LIKE '%.' || NEW.domain OR NEW.domain LIKE '%.' || domain);
  NEW.needs_proof := NEW.needs_proof OR EXISTS (
    SELECT FROM domains WHERE account_id <> NEW.account_id
      AND (domain = NEW.domain OR domain LIKE '%.' || NEW.domain OR NEW.domain LIKE '%.' || domain));
  RETURN NEW;
END $$;
CREATE TRIGGER domains_claimed BEFORE INSERT ON domains FOR EACH ROW EXECUTE FUNCTION claim_domain();
UPDATE domains d SET needs_proof = true
  WHERE EXISTS (SELECT FROM domains o WHERE o.account_id <> d.account_id
                AND (o.domain = d.domain OR o.domain LIKE '%.' || d.domain OR d.domain LIKE '%.' || o.domain));

-- —— webhooks ——————————————————————————————————————————————————————————————————————————————————————————————————————————

ALTER TABLE webhook_messages ADD COLUMN domain_id bigint;

CREATE FUNCTION tell_domain() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF is_asked_for(NEW.account_id, 'domain.' || NEW.status) THEN
    INSERT INTO webhook_messages (account_id, type, at, domain_id, facts)
      VALUES (NEW.account_id, 'domain.' || NEW.status, now(), NEW.id, jsonb_build_object('domain', NEW.domain));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER domains_told AFTER UPDATE OF status ON domains FOR EACH ROW
  WHEN (NEW.status IN ('verified', 'failed') AND NEW.status <> OLD.status)
  EXECUTE FUNCTION tell_domain();

REVOKE ALL ON FUNCTION claim_domain(), tell_domain() FROM PUBLIC;
