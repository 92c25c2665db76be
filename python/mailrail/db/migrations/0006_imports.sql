-- Imports of contacts.
SELECT;
