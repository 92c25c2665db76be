-- `email.sent` is told whoever publishes what: by Amazon's Send event where there is one, else by the fold that first finds the mail
-- accepted. Expand only.

-- Amazon's event (tell_events gives way to it) and the fold, whichever comes first. Events of one attempt are one, so no two messages
-- exist yet.
CREATE UNIQUE INDEX webhook_messages_sent_once ON webhook_messages (stream_id, seq, attempt) WHERE type = 'email.sent';

CREATE FUNCTION tell_accepted() RETURNS trigger
  -- Old and new states of a whole shard, of which the planner knows nothing.
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp SET enable_nestloop = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM webhook_endpoints WHERE is_active AND events && ARRAY['email.sent', '*']) THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'INSERT' THEN
    PERFORM tell_sent(array_agg(stream_id), array_agg(seq), array_agg(attempt), array_agg(at))
      FROM new_states WHERE state BETWEEN 5 AND 9 HAVING count(*) > 0;
  ELSE
    PERFORM tell_sent(array_agg(n.stream_id), array_agg(n.seq), array_agg(n.attempt), array_agg(n.at))
      FROM new_states n JOIN old_states o USING (stream_id, seq)
      WHERE n.state BETWEEN 5 AND 9 AND o.state NOT BETWEEN 5 AND 9 HAVING count(*) > 0;
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION tell_sent(stream_ids bigint[], seqs integer[], attempts smallint[], ats timestamptz[]) RETURNS void
  -- A few rows look others up.
  LANGUAGE sql SET search_path = mailrail, pg_temp SET enable_nestloop = on AS $$
  INSERT INTO webhook_messages (account_id, type, at, stream_id, seq, attempt, campaign_id, contact_id, facts)
    SELECT s.account_id, 'email.sent', coalesce(r.at, t.at, now()), t.stream_id, t.seq, t.attempt, s.campaign_id, a.contact_id,
      mail_facts(a.email, s.is_test, f.subject, f.tags)
    FROM unnest(stream_ids, seqs, attempts, ats) AS t(stream_id, seq, attempt, at)
    JOIN streams s ON s.stream_id = t.stream_id
    JOIN audience a ON a.stream_id = t.stream_id AND a.seq = t.seq
    LEFT JOIN mails m ON m.stream_id = t.stream_id AND m.seq = t.seq AND s.campaign_id IS NULL
    LEFT JOIN mails f ON f.stream_id = m.stream_id AND f.seq = m.first_seq
    -- When SES said so, as far as it did.
    LEFT JOIN results r ON r.stream_id = t.stream_id AND r.seq = t.seq AND r.attempt = t.attempt AND r.outcome = 1
    WHERE is_asked_for(s.account_id, 'email.sent')
    ON CONFLICT DO NOTHING
$$;

CREATE TRIGGER accepted_told AFTER INSERT ON recipient_state REFERENCING NEW TABLE AS new_states
  FOR EACH STATEMENT EXECUTE FUNCTION tell_accepted();
CREATE TRIGGER accepted_later_told AFTER UPDATE ON recipient_state
  REFERENCING OLD TABLE AS old_states NEW TABLE AS new_states
  FOR EACH STATEMENT EXECUTE FUNCTION tell_accepted();

REVOKE ALL ON FUNCTION tell_accepted(), tell_sent(bigint[], integer[], smallint[], timestamptz[]) FROM PUBLIC;
