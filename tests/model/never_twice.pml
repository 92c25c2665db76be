/*
 * The send engine as a state machine, for the model checker spin: two workers send one shard of two recipients.
 *
 * Every transition is one commit of the database, one step of a worker, of SES or of time; between any two of them
 * anything else may happen. A frozen worker is one whose next step comes last. `test_model.py` runs this file.
 *
 * What is checked
 *   safety    SES accepts nobody twice. Where events may be lost (LOSSY) under policy `resend`: not more often than events
 *             of that recipient were lost, and once.
 *   liveness  wherever nothing can move any more, every recipient has a final state. The state graph has no cycle (this is
 *             checked too), so every run gets there, whatever the scheduler does.
 *
 * Time is abstract. A lease ends at some moment (LIVE, then OVER), the fence after it passes at some later one (FENCED).
 * The only facts about durations are these, and they are the design's:
 *   - a worker's deadline is never later than the lease's end in the database: its check passes only while the lease holds;
 *   - a signature that was made while the lease held is too old for SES once the fence has passed; one that is made later
 *     is good (signatures live 5 minutes, the fence lasts 60);
 *   - an event that is not lost has been applied by the time the watermark proves silence. That is what neighbours, canary
 *     and lag are evidence for; the model takes it as given.
 * What the network holds is no worker's any more: a request may reach SES after its worker gave it up, or died.
 *
 * Bounds: ATTEMPTS per recipient, CRASHES of workers in all, SLOW leases in all that end under a living worker, PAUSES.
 * A round is one recipient. Who would need one more attempt than the bound has, counts as done.
 *
 * Options: NEVER_RESEND (the policy; `resend` else), LOSSY, CLOCK_STOPS (a worker's machine is paused as a whole: its
 * monotonic clock stands, its wall clock is late until somebody corrects it). CLOCK_STOPS breaks the first fact above, so
 * BOTH_CLOCKS makes the check of the lease look at the wall clock as well.
 *
 * Mutants, each of which must fail: NO_CLAIM, CHECK_BEFORE_SIGN, NO_FENCE, NO_WATERMARK, SES_IGNORES_AGE,
 * RETRY_UNANSWERED, STALE_RELEASE, LATE_PERMIT.
 */

#define RECIPIENTS 2
#define WORKERS 2
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SLOW
#define SLOW 2
#endif
#ifndef PAUSES
#define PAUSES 1
#endif

/* shards.state */
#define SENDING 0
#define PAUSED 1
#define CANCELLED 2

/* a claim, by the end of its lease in the database */
#define NONE 0
#define LIVE 1
#define OVER 2
#define FENCED 3

/* permits.claim_id */
#define OPEN 1
#define USED 2
#define WITHDRAWN 3

/* results.outcome, as a set. An unknown outcome is no entry: it says no more than silence does. */
#define ACCEPTED 1
#define REFUSED 2
#define FAILED 4
#define UNRESOLVED 8

/* a call between worker and SES */
#define SIGNED_IN_TIME 1
#define SIGNED_LATE 2
#define ANSWERED_OK 3
#define ANSWERED_REFUSED 4
#define ANSWERED_FAILED 5

/* where a worker is */
#define OUT 0
#define HOLDING 1
#define READING 2
#define CHECKING 3
#define SIGNING 4			/* CHECK_BEFORE_SIGN alone has it as a step of its own */
#define WRITING 5
#define WAITING 6
#define TELLING 7
#define RELEASING 8

/* what a witness must be able to reach, or the model proves nothing about it */
#ifdef WITNESS_RESENT
#define witness (to[0].accepts == 1 && to[0].result[1] == 0 && (to[0].result[2] & ACCEPTED) && to[1].accepts == 1)
#elif defined(WITNESS_EVENT_SETTLES)
#define witness (to[0].accepts == 1 && to[0].result[1] == 0 && to[0].heard && to[0].attempt == 1)
#elif defined(WITNESS_UNRESOLVED)
#define witness (to[0].accepts == 1 && !to[0].heard && (to[0].result[1] & UNRESOLVED) && state == CANCELLED)
#elif defined(WITNESS_LOST_AND_RESENT)
#define witness (to[0].accepts == 2 && to[0].lost == 2)
#else
#define witness false
#endif

typedef Recipient {
	byte attempt;			/* the last one that was claimed */
	byte claim[ATTEMPTS + 1];
	byte permit[ATTEMPTS + 2];
	byte result[ATTEMPTS + 1];
	byte call[ATTEMPTS + 1];
	bit flying;			/* an event is on its way */
	bit heard;			/* an event was applied */
	byte accepts;			/* by SES; nobody here may look */
	byte lost			/* accepts without any event */
};

typedef Worker {
	byte at;
	byte seq;
	byte attempt;
	byte outcome;
	bit in_time;			/* the signature is of a moment when the lease held */
	bit seen			/* what STALE_RELEASE read before it had the lock */
};

Recipient to[RECIPIENTS];
Worker worker[WORKERS];

byte state;
/* The workers are alike, so the first lease may be worker 0's. */
byte holder = 1;			/* shards.lease_id: worker + 1 */
bit live = 1;				/* lease_until lies ahead */
bit awake = 1;				/* wake_at has come */
byte next;				/* next_seq */
byte crashes, slow, pauses;

/* scratch, without meaning between two steps */
hidden byte i, a;
hidden byte hears;

#define holds(w) (holder == (w) + 1 && live)
#define waits(w, r, n) (worker[w].at == WAITING && worker[w].seq == (r) && worker[w].attempt == (n))
#define proven(r) (to[r].heard || (to[r].result[1] & ACCEPTED) || (to[r].result[2] & ACCEPTED) || proven_late(r))
#if ATTEMPTS > 2
#define proven_late(r) (to[r].result[3] & ACCEPTED)
#define permitted_late(r) (to[r].permit[3] == OPEN)
#else
#define proven_late(r) false
#define permitted_late(r) false
#endif
#define permitted(r) (to[r].permit[2] == OPEN || permitted_late(r))
#define last(r) to[r].result[to[r].attempt]
#define unknown(r) (to[r].attempt > 0 && !proven(r) && last(r) == 0)
#define has_work (next < RECIPIENTS || permitted(0) || permitted(1))

#ifdef NO_FENCE
#define ripe(r) (unknown(r) && to[r].claim[to[r].attempt] >= OVER)
#else
#define ripe(r) (unknown(r) && to[r].claim[to[r].attempt] == FENCED)
#endif
#ifdef NO_WATERMARK
#define silence_proves(r) true
#else
#define silence_proves(r) (!to[r].flying)
#endif

#ifdef LATE_PERMIT
#define given_up(r, n) false
#else
#define given_up(r, n) (to[r].result[n] & UNRESOLVED)
#endif

/* A fold without an open state. Accepted mail ends by its events or after 72 hours. */
#define is_final(r) (proven(r) \
	|| state == CANCELLED && (to[r].attempt == 0 || last(r) != 0) \
	|| to[r].attempt > 0 && !permitted(r) && (last(r) & (FAILED | UNRESOLVED)) \
	|| to[r].attempt == ATTEMPTS && (last(r) & REFUSED))

inline end_leases() {
	for (i : 0 .. RECIPIENTS - 1) {
		for (a : 1 .. ATTEMPTS) {
			if
			:: to[i].claim[a] == LIVE -> to[i].claim[a] = OVER
			:: else
			fi
		}
	}
}

inline forget(w) {
	worker[w].at = OUT; worker[w].seq = 0; worker[w].attempt = 0; worker[w].outcome = 0;
	worker[w].in_time = 0; worker[w].seen = 0
}

/* Nobody waits for the answer any more; a request that SES has not seen yet stays on its way. */
inline hang_up(w) {
	if
	:: worker[w].at == WAITING && to[worker[w].seq].call[worker[w].attempt] >= ANSWERED_OK ->
		to[worker[w].seq].call[worker[w].attempt] = NONE
	:: else
	fi
}

inline release(w, wakes) {
	if
	:: holder == w + 1 ->
		awake = (state == SENDING && (wakes));
		holder = 0; live = 0; end_leases()
	:: else
	fi;
	forget(w)
}

inline allow(r, n) {
	if
	:: n <= ATTEMPTS && to[r].permit[n] == NONE -> to[r].permit[n] = OPEN; awake = 1
	:: else
	fi
}

inline begin(w, r, n) {
	assert(!(to[r].result[to[r].attempt] & UNRESOLVED));	/* nobody asked for a retry */
	to[r].attempt = n; to[r].claim[n] = LIVE;
	worker[w].at = READING; worker[w].seq = r; worker[w].attempt = n
}

inline claim_permit(w, r, n) {
	if
	:: proven(r) -> to[r].permit[n] = WITHDRAWN
	:: else -> to[r].permit[n] = USED; begin(w, r, n)
	fi
}

proctype Work(byte w) {
end:
	do
	:: atomic { worker[w].at == OUT && state == SENDING && awake && (holder == 0 || !live) ->
		holder = w + 1; live = 1; worker[w].at = HOLDING }

	/* a claim, by the state of the locked shard row alone */
	:: atomic { worker[w].at == HOLDING && holds(w) && state == SENDING && next < RECIPIENTS ->
#ifdef NO_CLAIM
		worker[w].at = READING; worker[w].seq = next; worker[w].attempt = 1
#else
		begin(w, next, 1); next++
#endif
		}
	:: atomic { worker[w].at == HOLDING && holds(w) && state == SENDING && next == RECIPIENTS && (permitted(0) || permitted(1)) ->
		if
		:: to[0].permit[2] == OPEN -> claim_permit(w, 0, 2)
		:: to[1].permit[2] == OPEN -> claim_permit(w, 1, 2)
#if ATTEMPTS > 2
		:: to[0].permit[3] == OPEN -> claim_permit(w, 0, 3)
		:: to[1].permit[3] == OPEN -> claim_permit(w, 1, 3)
#endif
		fi }

	/* lease lost, campaign stopped, or nothing due */
	:: atomic { worker[w].at == HOLDING && !(holds(w) && state == SENDING && has_work) ->
#ifdef STALE_RELEASE
		worker[w].seen = has_work; worker[w].at = RELEASING }
	:: atomic { worker[w].at == RELEASING -> release(w, worker[w].seen)
#else
		release(w, has_work)
#endif
		}

	/* the claim's commit went unanswered, and was looked up too late to be of use */
	:: atomic { worker[w].at == READING -> release(w, has_work) }
	/* the round could not be read: no call of it was begun */
	:: atomic { worker[w].at == READING && worker[w].attempt < ATTEMPTS ->
		worker[w].outcome = REFUSED; worker[w].at = TELLING }

#ifdef CHECK_BEFORE_SIGN
	:: atomic { worker[w].at == READING -> worker[w].at = CHECKING }
	:: atomic { worker[w].at == SIGNING -> worker[w].in_time = holds(w); worker[w].at = WRITING }
#else
	:: atomic { worker[w].at == READING -> worker[w].in_time = holds(w); worker[w].at = CHECKING }
#ifdef CLOCK_STOPS
	/* the wall clock still stands where the machine was paused, inside the lease, and so the signature's date */
	:: atomic { worker[w].at == READING -> worker[w].in_time = 1; worker[w].at = WRITING }
#ifndef BOTH_CLOCKS
	/* the wall clock was set right, but the deadline is in a clock that stood still */
	:: atomic { worker[w].at == CHECKING -> worker[w].at = WRITING }
#endif
#endif
#endif
	:: atomic { worker[w].at == CHECKING ->
		if
		:: !holds(w) -> worker[w].in_time = 0; worker[w].outcome = REFUSED; worker[w].at = TELLING
#ifdef CHECK_BEFORE_SIGN
		:: else -> worker[w].at = SIGNING
#else
		:: else -> worker[w].at = WRITING
#endif
		fi }

	:: atomic { worker[w].at == WRITING && to[worker[w].seq].call[worker[w].attempt] == NONE ->
		to[worker[w].seq].call[worker[w].attempt] = (worker[w].in_time -> SIGNED_IN_TIME : SIGNED_LATE);
		worker[w].in_time = 0; worker[w].at = WAITING }

	:: atomic { worker[w].at == WAITING && to[worker[w].seq].call[worker[w].attempt] >= ANSWERED_OK ->
		worker[w].outcome = 1 << (to[worker[w].seq].call[worker[w].attempt] - ANSWERED_OK);
		to[worker[w].seq].call[worker[w].attempt] = NONE;
		worker[w].at = TELLING }
	/* time-out, reset, 5xx, or a 200 that cannot be read; SES may have accepted, may yet accept, or never */
	:: atomic { worker[w].at == WAITING ->
		hang_up(w);
#ifdef RETRY_UNANSWERED
		worker[w].outcome = REFUSED;
#endif
		worker[w].at = TELLING }

	/* results: true however late. An ambiguous commit is looked up, so it is one step here. */
	:: atomic { worker[w].at == TELLING ->
#ifdef NO_CLAIM
		if
		:: to[worker[w].seq].attempt == 0 ->
			to[worker[w].seq].attempt = 1; to[worker[w].seq].claim[1] = OVER; next++
		:: else
		fi;
#endif
		to[worker[w].seq].result[worker[w].attempt] = to[worker[w].seq].result[worker[w].attempt] | worker[w].outcome;
		if	/* nobody waits for the end of a lease that has a result */
		:: worker[w].outcome != 0 && to[worker[w].seq].call[worker[w].attempt] == NONE ->
			to[worker[w].seq].claim[worker[w].attempt] = NONE
		:: else
		fi;
		if
		:: (worker[w].outcome & REFUSED) && !given_up(worker[w].seq, worker[w].attempt) -> allow(worker[w].seq, worker[w].attempt + 1)
		:: else
		fi;
		forget(w); worker[w].at = HOLDING }

	:: atomic { worker[w].at != OUT && crashes < CRASHES -> crashes++; hang_up(w); forget(w) }
	od
}

/* Amazon SES: it takes a signature unless it is too old, and answers, or not */
proctype Ses(byte r; byte n) {
end:
	do
	:: atomic { to[r].call[n] == SIGNED_IN_TIME || to[r].call[n] == SIGNED_LATE ->
		hears = (waits(0, r, n) || waits(1, r, n));
		if
#ifndef SES_IGNORES_AGE
		:: to[r].call[n] == SIGNED_IN_TIME && to[r].claim[n] == FENCED ->
#ifdef WITNESS_OLD_SIGNATURE
			assert(!hears);
#endif
			if
			:: to[r].call[n] = ANSWERED_REFUSED
			:: to[r].call[n] = NONE
			fi
		:: !(to[r].call[n] == SIGNED_IN_TIME && to[r].claim[n] == FENCED) ->
#else
		:: true ->
#endif
			if
			:: to[r].call[n] = NONE				/* never looked at, or 5xx before */
			:: n < ATTEMPTS -> to[r].call[n] = ANSWERED_REFUSED	/* 429 and the like */
			:: to[r].call[n] = ANSWERED_FAILED
			:: true ->
				to[r].accepts++;
				if
				:: to[r].flying = 1
#ifdef LOSSY
				:: to[r].lost++
#endif
				fi;
#if defined(LOSSY) && !defined(NEVER_RESEND)
				assert(to[r].accepts <= 1 + to[r].lost);
#else
				assert(to[r].accepts <= 1);
#endif
				if
				:: to[r].call[n] = ANSWERED_OK
				:: to[r].call[n] = NONE			/* no answer, or 5xx after */
				fi
			fi
		fi;
		if
		:: !hears -> to[r].call[n] = NONE
		:: else
		fi }
	od
}

/* what time and the other roles do to the shard */
proctype Time() {
end:
	do
	/* a lease ends: of the dead always, of the living a few times */
	:: atomic { holder != 0 && live && (worker[holder - 1].at == OUT || slow < SLOW) ->
		if
		:: worker[holder - 1].at == OUT
		:: else -> slow++
		fi;
		live = 0; end_leases() }
	od
}

/* … and to one recipient */
proctype Settle(byte r) {
end:
	do
	/* an event comes back and is applied, perhaps as the first of two copies */
	:: atomic { to[r].flying -> to[r].flying = 0; to[r].heard = 1 }
	:: atomic { to[r].flying && !to[r].heard -> to[r].heard = 1 }

	/* the fence passes; for whom it decides nothing it need not be noticed */
	:: atomic { unknown(r) && to[r].claim[to[r].attempt] == OVER -> to[r].claim[to[r].attempt] = FENCED }

	/* the reconciler, and at the bound the age at which it gives up */
#ifdef NEVER_RESEND
	:: atomic { ripe(r) && !permitted(r) ->
		last(r) = last(r) | UNRESOLVED }
#else
	:: atomic { ripe(r) && !permitted(r) && silence_proves(r) && state != CANCELLED && to[r].attempt < ATTEMPTS ->
		allow(r, to[r].attempt + 1) }
	:: atomic { ripe(r) && !permitted(r) && (state == CANCELLED || to[r].attempt == ATTEMPTS) ->
		last(r) = last(r) | UNRESOLVED }
#endif
	od
}

inline withdraw_permits(r) {
	for (a : 2 .. ATTEMPTS) {
		if
		:: to[r].permit[a] == OPEN -> to[r].permit[a] = WITHDRAWN
		:: else
		fi
	}
}

proctype User() {
end:
	do
	:: atomic { state == SENDING && pauses < PAUSES -> pauses++; state = PAUSED; awake = 0 }
	:: atomic { state == PAUSED -> state = SENDING; awake = has_work }
#ifdef CANCELS
	:: atomic { state != CANCELLED -> state = CANCELLED; awake = 0; withdraw_permits(0); withdraw_permits(1) }
#endif
	od
}

init {
	byte r, n;
	atomic {
		worker[0].at = HOLDING;
		run Work(0); run Work(1);
		for (r : 0 .. RECIPIENTS - 1) {
			for (n : 1 .. ATTEMPTS) { run Ses(r, n) }
			run Settle(r)
		}
		run Time(); run User();
		r = 0; n = 0
	}
	timeout;
	assert(is_final(0) && is_final(1));
	assert(!witness)
}
