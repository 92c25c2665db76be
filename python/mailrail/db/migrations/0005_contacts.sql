-- Consent, double opt-in, suppressions by hand, erasure. Expand only: processes of the version before go on meanwhile.

-- —— contacts and lists ————————————————————————————————————————————————————————————————————————————————————————————————

-- pending: signed up, and not confirmed yet by the person. No campaign reaches it.
ALTER TABLE contacts DROP CONSTRAINT contacts_status_check;
ALTER TABLE contacts ADD CONSTRAINT contacts_status_check
  CHECK (status IN ('subscribed', 'pending', 'unsubscribed', 'bounced', 'complained'));

ALTER TABLE lists ADD COLUMN double_opt_in boolean NOT NULL DEFAULT false;
-- Of the mail that asks; NULL takes what mailrail or the account has.
ALTER TABLE lists ADD COLUMN confirmation_subject text;
ALTER TABLE lists ADD COLUMN confirmation_wording text;
ALTER TABLE lists ADD COLUMN confirmation_name text;
ALTER TABLE lists ADD COLUMN confirmation_email text;
-- A list that is deleted stays as a name for the campaigns that went to it, with nobody on it: a campaign without a list
-- would go to everybody.
ALTER TABLE lists ADD COLUMN deleted_at timestamptz;
ALTER TABLE lists DROP CONSTRAINT lists_account_id_name_key;
CREATE UNIQUE INDEX lists_name ON lists (account_id, name) WHERE deleted_at IS NULL;

ALTER TABLE list_members DROP CONSTRAINT list_members_status_check;
ALTER TABLE list_members ADD CONSTRAINT list_members_status_check
  CHECK (status IN ('subscribed', 'pending', 'unsubscribed'));
-- When the person is to be asked next, how often that was done, and when last.
ALTER TABLE list_members ADD COLUMN confirm_due_at timestamptz;
ALTER TABLE list_members ADD COLUMN confirm_sends smallint NOT NULL DEFAULT 0;
ALTER TABLE list_members ADD COLUMN confirm_sent_at timestamptz;
CREATE INDEX list_members_to_ask ON list_members (confirm_due_at) WHERE confirm_due_at IS NOT NULL;

-- —— consent: what a person said, when and where; never changed ————————————————————————————————————————————————————————

-- What was agreed to, once per account however many agreed.
CREATE TABLE consent_wordings (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  wording text NOT NULL
);
CREATE UNIQUE INDEX consent_wordings_text ON consent_wordings (account_id, md5(wording));

-- Of one contact, or of all whom a piece of an import signed up, in their order: a row for each of a million costs half as much as
-- the contacts. What one contact said goes when it goes; its number among others then names nobody.
CREATE TABLE consents (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL,
  contact_id bigint,
  contact_ids bigint[],
  -- NULL is the contact's own status.
  list_id bigint,
  status text NOT NULL CHECK (status IN ('subscribed', 'pending', 'unsubscribed')),
  source text NOT NULL CHECK (source <> ''),
  ip text,
  wording_id bigint,
  import_id bigint,
  -- When the person said so, and when we heard of it.
  at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  CHECK (num_nonnulls(contact_id, contact_ids) = 1)
);
CREATE INDEX consents_contact ON consents (account_id, contact_id) WHERE contact_id IS NOT NULL;
CREATE INDEX consents_contacts ON consents (account_id, (contact_ids[cardinality(contact_ids)]), (contact_ids[1]))
  WHERE contact_ids IS NOT NULL;
-- All that a contact said, alone and among others.
CREATE FUNCTION consents_of(account bigint, contact bigint) RETURNS SETOF consents LANGUAGE sql STABLE AS $$
  SELECT * FROM mailrail.consents WHERE account_id = account AND contact_id = contact
  UNION ALL
  SELECT * FROM mailrail.consents
  WHERE account_id = account AND contact_ids IS NOT NULL AND contact_ids[cardinality(contact_ids)] >= contact
    AND contact_ids[1] <= contact AND contact = ANY (contact_ids)
$$;
CREATE TRIGGER consents_append_only BEFORE UPDATE ON consents FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- —— suppressions ——————————————————————————————————————————————————————————————————————————————————————————————————————

-- unsubscribe: of a person whose contact was deleted. It stops campaigns and imports, not transactional mail.
ALTER TABLE suppressions DROP CONSTRAINT suppressions_reason_check;
ALTER TABLE suppressions ADD CONSTRAINT suppressions_reason_check
  CHECK (reason IN ('bounce', 'complaint', 'manual', 'unsubscribe'));
ALTER TABLE suppressions ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY;
CREATE UNIQUE INDEX suppressions_page ON suppressions (account_id, id);

-- Of erased persons: a keyed hash of the address. Where the address comes back, it becomes an ordinary row again.
CREATE TABLE suppression_hashes (
  account_id bigint NOT NULL REFERENCES accounts,
  email_hash bytea NOT NULL CHECK (length(email_hash) = 32),
  reason text NOT NULL CHECK (reason IN ('bounce', 'complaint', 'manual', 'unsubscribe')),
  created_at timestamptz NOT NULL,
  PRIMARY KEY (account_id, email_hash)
);

-- —— erasure ———————————————————————————————————————————————————————————————————————————————————————————————————————————

-- The contact goes with the request; workers go through the mail that the account ever sent, stream by stream.
CREATE TABLE erasures (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  contact_id bigint NOT NULL,
  -- Blank once it is done.
  email_folded text NOT NULL,
  email_hash bytea NOT NULL CHECK (length(email_hash) = 32),
  -- Streams up to here are done.
  stream_id bigint NOT NULL DEFAULT 0,
  requested_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz,
  CONSTRAINT erasures_end_blank CHECK ((completed_at IS NULL) = (email_folded <> ''))
);
CREATE INDEX erasures_open ON erasures (id) WHERE completed_at IS NULL;

-- Whose mail it was: a campaign numbers its audience in the order of contacts, so a few bytes per range find one among millions.
CREATE INDEX audience_contact ON audience USING brin (contact_id) WITH (pages_per_range = 32, autosummarize = on);

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['consent_wordings', 'consents', 'suppression_hashes', 'erasures'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT ON consent_wordings, erasures TO mailrail_api;
REVOKE ALL ON FUNCTION consents_of(bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consents_of(bigint, bigint) TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT, DELETE ON consents TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON suppression_hashes TO mailrail_api, mailrail_worker;
GRANT SELECT, INSERT ON consent_wordings TO mailrail_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON erasures TO mailrail_worker;
-- Facts stay facts; the words in them may hold an address.
GRANT UPDATE (error) ON results TO mailrail_worker;
GRANT UPDATE (detail) ON events TO mailrail_worker;
