"""One mail to one recipient, from claim to last word: the bookkeeping behind never twice, never missed.

Every recipient is (stream_id, seq). Facts are only ever added: claims before a call, results after it, events when SES
speaks. What they mean together is one pure function of their set (`model.fold`), so order and doubles cannot matter.
Owns streams' send tables: shards, claims, permits, results, result_batches, recipient_state, state_counts, folds,
settlements. Called by campaigns (which makes streams and sends their rounds) and events (which adds what SES says).

store.py holds the round's statements, fold.py those that compute states and settle money, reconcile.py what becomes of
sends without an answer; handlers.py runs that last part in a worker.
"""
