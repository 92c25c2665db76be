-- Stored templates, and audiences by condition.
SELECT;
