-- Transactional mail.
SELECT;
