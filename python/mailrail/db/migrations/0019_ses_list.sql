-- What SES's own suppression list has, and what is to be taken off it. The list belongs to the installation and not to a tenant,
-- so the API's role sees neither table. Expand only.

-- A copy: SES accepts mail to these addresses, bills it and does not deliver it.
CREATE TABLE ses_suppressions (
  -- As SES spells it, which tells spellings apart where the list is managed.
  email text PRIMARY KEY,
  email_folded text NOT NULL GENERATED ALWAYS AS (lower(email)) STORED,
  reason text NOT NULL CHECK (reason IN ('bounce', 'complaint')),
  updated_at timestamptz NOT NULL,
  -- By the last walk through the whole list that met it.
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ses_suppressions_address ON ses_suppressions (email_folded);

-- How far the copy goes: entries up to `copied_until`, and the last walk through all of it.
CREATE TABLE ses_list_copies (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  copied_until timestamptz,
  walked_at timestamptz,
  error text
);

-- Addresses that a tenant lifted and that SES has to lift, too, or mail to them bounces on.
CREATE TABLE ses_lifts (
  email_folded text PRIMARY KEY,
  -- As it was mailed to.
  email text NOT NULL,
  account_id bigint NOT NULL REFERENCES accounts,
  asked_at timestamptz NOT NULL DEFAULT now(),
  due_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0,
  error text
);

-- Those of the addresses, in lower case, that SES would not deliver to.
CREATE FUNCTION listed_by_ses(folded text[]) RETURNS SETOF text
  LANGUAGE sql STABLE SECURITY DEFINER ROWS 1 SET search_path = mailrail, pg_temp AS $$
  SELECT DISTINCT email_folded FROM ses_suppressions WHERE email_folded = ANY (folded)
$$;

-- Asks for an address to be taken off SES's list: that of a mail of the tenant, if one is named. False where there is nothing to
-- take off, or where another tenant has the person's complaint, which outweighs the wish of this one.
CREATE FUNCTION ask_ses_lift(account bigint, folded text, stream bigint, recipient integer, is_sure boolean) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  PERFORM require_tenant(account);
  IF NOT is_sure AND NOT EXISTS (SELECT FROM ses_suppressions WHERE email_folded = folded) THEN
    RETURN false;
  END IF;
  IF EXISTS (SELECT FROM suppressions s
             WHERE s.email_folded = folded AND s.account_id <> account AND s.reason = 'complaint') THEN
    RETURN false;
  END IF;
  INSERT INTO ses_lifts AS l (email_folded, email, account_id)
    SELECT folded, coalesce((SELECT nullif(a.email, '') FROM audience a
                             WHERE a.stream_id = stream AND a.seq = recipient AND a.account_id = account), folded), account
    ON CONFLICT (email_folded) DO UPDATE SET due_at = now(), attempts = 0, error = NULL;
  RETURN true;
END $$;

-- Whom a lift has to look for among all tenants.
CREATE INDEX suppressions_complaints ON suppressions (email_folded) WHERE reason = 'complaint';

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

REVOKE ALL ON FUNCTION listed_by_ses(text[]), ask_ses_lift(bigint, text, bigint, integer, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION listed_by_ses(text[]), ask_ses_lift(bigint, text, bigint, integer, boolean) TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON ses_suppressions, ses_list_copies, ses_lifts TO mailrail_worker;
