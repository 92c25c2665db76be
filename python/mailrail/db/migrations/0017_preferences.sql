-- What readers choose: lists that they may join by themselves, and messages about those who come back.
-- Expand only.

ALTER TABLE lists ADD COLUMN is_public boolean NOT NULL DEFAULT false;

-- A person who said no, or was only asked so far, says yes; one whom a customer brings as subscribed is no news to him.
CREATE FUNCTION tell_subscribed() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF is_asked_for(NEW.account_id, 'contact.subscribed') THEN
    INSERT INTO webhook_messages (account_id, type, at, contact_id, facts)
      VALUES (NEW.account_id, 'contact.subscribed', now(), NEW.id, jsonb_build_object('email', NEW.email));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER contacts_subscribed AFTER UPDATE OF status ON contacts FOR EACH ROW
  WHEN (NEW.status = 'subscribed' AND OLD.status IN ('unsubscribed', 'pending'))
  EXECUTE FUNCTION tell_subscribed();

CREATE FUNCTION tell_joined_list() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
BEGIN
  IF is_asked_for(NEW.account_id, 'contact.subscribed') THEN
    INSERT INTO webhook_messages (account_id, type, at, contact_id, list_id, facts)
      SELECT NEW.account_id, 'contact.subscribed', now(), c.id, NEW.list_id, jsonb_build_object('email', c.email)
      FROM contacts c WHERE c.id = NEW.contact_id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER members_joined AFTER UPDATE OF status ON list_members FOR EACH ROW
  WHEN (NEW.status = 'subscribed' AND OLD.status <> 'subscribed')
  EXECUTE FUNCTION tell_joined_list();

REVOKE ALL ON FUNCTION tell_subscribed(), tell_joined_list() FROM PUBLIC;
