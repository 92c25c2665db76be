-- The way of events from SES to here: what could not be read outlives the raw rows, and silence is noticed.

-- —— parked notifications keep their body ——————————————————————————————————————————————————————————————————————————————

-- A later version reads them again; NULL where an erased person was named in it.
ALTER TABLE parked_notifications ADD COLUMN topic_arn text;
ALTER TABLE parked_notifications ADD COLUMN body text;
UPDATE parked_notifications p SET topic_arn = n.topic_arn, body = n.body
  FROM notifications n WHERE n.day = p.day AND n.message_id = p.message_id;

-- —— queues of Amazon SQS that we read ——————————————————————————————————————————————————————————————————————————————————

-- As SQS told them last; `dead` is NULL where there is no dead-letter queue.
CREATE TABLE event_queues (
  name text PRIMARY KEY,
  waiting bigint NOT NULL,
  in_flight bigint NOT NULL,
  dead bigint,
  read_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- —— whether events come at all —————————————————————————————————————————————————————————————————————————————————————————

-- One row: when the applier last had an event, and since when there should have been one. Not in installation, which whoever
-- holds back all sending locks before shards and folds.
CREATE TABLE event_pipeline (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  heard_at timestamptz,
  looked_at timestamptz,
  silent_since timestamptz
);
INSERT INTO event_pipeline DEFAULT VALUES;

-- —— figures —————————————————————————————————————————————————————————————————————————————————————————————————————————————

CREATE FUNCTION event_figures() RETURNS TABLE (name text, label text, value double precision)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
  WITH reasons AS (
    SELECT reason, count(*) AS n FROM parked_notifications GROUP BY reason ORDER BY n DESC, reason LIMIT 20
  ), queues AS (
    SELECT * FROM event_queues q WHERE q.read_at > clock_timestamp() - interval '10 minutes'
  )
  SELECT 'notifications_parked_by_reason', reason, n FROM reasons
  UNION ALL SELECT 'events_silent_seconds', NULL,
    coalesce(greatest(extract(epoch FROM clock_timestamp() - silent_since), 0), 0) FROM event_pipeline
  UNION ALL SELECT 'events_heard_age_seconds', NULL, greatest(extract(epoch FROM clock_timestamp() - heard_at), 0)
    FROM event_pipeline WHERE heard_at IS NOT NULL
  UNION ALL SELECT 'event_queue_waiting', q.name, waiting FROM queues q
  UNION ALL SELECT 'event_queue_in_flight', q.name, in_flight FROM queues q
  UNION ALL SELECT 'event_queue_dead', q.name, dead FROM queues q WHERE dead IS NOT NULL
$$;

-- —— rights —————————————————————————————————————————————————————————————————————————————————————————————————————————————

GRANT SELECT, INSERT, UPDATE, DELETE ON event_queues TO mailrail_worker;
GRANT SELECT, UPDATE ON event_pipeline TO mailrail_worker;
REVOKE ALL ON FUNCTION event_figures() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION event_figures() TO mailrail_api, mailrail_worker;
