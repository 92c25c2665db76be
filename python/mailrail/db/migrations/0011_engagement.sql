-- Opens and clicks ask for their folds in two statements: in one that locks and writes, the locking SELECT may lock a row and not
-- return it, if it waited for a writer who was rolled back (emails/fold.py: make_due).
CREATE OR REPLACE FUNCTION record_engagement(
    stream_ids bigint[], seqs integer[], kinds smallint[], dedupes bigint[], details text[]) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = mailrail, pg_temp AS $$
DECLARE
  recorded integer;
  touched_streams bigint[];
  touched_shards integer[];
BEGIN
  WITH seen AS (
    SELECT e.*, s.account_id, s.shard_size
    FROM unnest(stream_ids, seqs, kinds, dedupes, details) AS e(stream_id, seq, kind, dedupe, detail)
    JOIN streams s USING (stream_id)
    WHERE e.kind IN (9, 10, 11)
  ), added AS (
    INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, detail)
    SELECT stream_id, seq, kind, dedupe, account_id, 0, now(), detail FROM seen
    ON CONFLICT DO NOTHING RETURNING stream_id, seq
  ), touched AS (
    SELECT a.stream_id, (a.seq - 1) / s.shard_size AS shard, count(*) AS events
    FROM added a JOIN streams s USING (stream_id) GROUP BY 1, 2
  )
  SELECT coalesce(sum(events), 0), array_agg(stream_id), array_agg(shard)
  INTO recorded, touched_streams, touched_shards FROM touched;

  PERFORM FROM folds f JOIN unnest(touched_streams, touched_shards) AS t(stream_id, shard) USING (stream_id, shard)
    ORDER BY f.stream_id, f.shard FOR UPDATE OF f;
  UPDATE folds f SET due_at = least(f.due_at, now() + interval '1 second')
    FROM unnest(touched_streams, touched_shards) AS t(stream_id, shard)
    WHERE f.stream_id = t.stream_id AND f.shard = t.shard;
  RETURN recorded;
END $$;
