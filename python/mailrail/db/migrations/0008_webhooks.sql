-- Webhook endpoints, spend caps.
SELECT;
