-- Audiences by condition: several lists, fields of contacts, and who is left out.
-- Expand only: processes of the version before go on meanwhile. They do not know `audience`; where it is set, the columns
-- that they know name a tag that nobody can have, so that they reach nobody instead of everybody.

-- What list_id and tags cannot say, as {"tags": […], "lists": […], "where": [[field, op, value], …], "exclude": {…}};
-- NULL where they can.
ALTER TABLE campaigns ADD COLUMN audience jsonb,
  ADD CONSTRAINT campaigns_audience CHECK (audience IS NULL OR (jsonb_typeof(audience) = 'object' AND tags = '{""}'));

-- The lists of a send: who is on none of them any more is skipped. NULL where list_id says it, as the version before writes.
ALTER TABLE streams ADD COLUMN list_ids bigint[];

-- Tags alone are looked up here: `@>` is not leakproof, so under a row policy its index would not be used. The rest of an
-- audience is asked by the tenant itself. ROWS keeps the planner from joining what may be a million one by one.
CREATE FUNCTION contacts_tagged(account bigint, wanted text[]) RETURNS SETOF contacts
  LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100000 SET search_path = mailrail, pg_temp AS $$
BEGIN
  PERFORM require_tenant(account);
  RETURN QUERY SELECT c.* FROM contacts c WHERE c.account_id = account AND c.tags @> wanted;
END $$;
REVOKE ALL ON FUNCTION contacts_tagged(bigint, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION contacts_tagged(bigint, text[]) TO mailrail_api, mailrail_worker;

-- The tenant freezes its audience by an INSERT of its own, which the policy checks row by row.
GRANT INSERT ON audience TO mailrail_api;
