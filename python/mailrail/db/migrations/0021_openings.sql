-- Which opening of a range of numbers came about: where the answer to its commit is lost, another process may have opened the same
-- range since. Drawn at random, because what a sequence gave to a transaction that a crash undid it gives again. NULL for a
-- campaign's shards, and those of the release before. Expand only.
ALTER TABLE shards ADD COLUMN opening_id uuid;
