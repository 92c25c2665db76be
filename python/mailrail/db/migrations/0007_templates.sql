-- Stored templates: a name that stays, and contents of which none is ever changed.

CREATE TABLE templates (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts,
  -- A mail may name its template by this instead of by its id, so it must not look like one.
  name text NOT NULL CHECK (name <> '' AND name NOT LIKE 'tpl\_%'),
  version integer NOT NULL DEFAULT 1 CHECK (version > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT templates_name UNIQUE (account_id, name)
);
CREATE INDEX templates_page ON templates (account_id, id DESC);

CREATE TABLE template_versions (
  template_id bigint NOT NULL REFERENCES templates ON DELETE CASCADE,
  version integer NOT NULL CHECK (version > 0),
  account_id bigint NOT NULL,
  subject text,
  preheader text,
  html text,
  text text,
  -- Names that the content asks for.
  variables text[] NOT NULL,
  warnings text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (template_id, version),
  CHECK (html IS NOT NULL OR text IS NOT NULL)
);

-- Where a campaign's content was copied from. No foreign key: the campaign stays what it is when the template is deleted.
ALTER TABLE campaigns ADD COLUMN template_id bigint, ADD COLUMN template_version integer,
  ADD CONSTRAINT campaigns_template CHECK ((template_id IS NULL) = (template_version IS NULL));

-- —— rights ————————————————————————————————————————————————————————————————————————————————————————————————————————————

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['templates', 'template_versions'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = mailrail.current_account()) '
                   'WITH CHECK (account_id = mailrail.current_account())', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON templates TO mailrail_api, mailrail_worker;
-- Nobody may change a version; it goes with its template alone.
GRANT SELECT, INSERT ON template_versions TO mailrail_api, mailrail_worker;
