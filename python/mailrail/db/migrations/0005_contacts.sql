-- Consent, double opt-in, erasure.
SELECT;
