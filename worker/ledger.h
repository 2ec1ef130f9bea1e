/* What is known of a session's calls: which were seen, answered, allowed, held; and whether its turn is over.
 * Nothing but memory: events in, the next call to run out. */
#ifndef PF_WORKER_LEDGER_H
#define PF_WORKER_LEDGER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pf_call_state {
	PF_CALL_READY,    /* to be run, in its turn */
	PF_CALL_HELD,     /* waits for a person's confirmation */
	PF_CALL_FOREIGN,  /* of a tool that is not ours: somebody else answers it */
	PF_CALL_ANSWERED, /* a result is known, or it was denied */
};

struct pf_call {
	char *id, *name, *thread; /* thread: NULL when the event names none */
	cJSON *input;
	bool custom;
	enum pf_call_state state;
};

struct pf_ledger {
	struct pf_call *calls; /* in the order of the events */
	size_t n_calls, first_open;
	/* A person's verdicts on calls, and results of calls, that were seen before the call itself. */
	struct pf_note {
		char *id;
		bool allow;
	} * verdicts;
	size_t n_verdicts;
	char **answers, **dead_threads;
	size_t n_answers, n_dead_threads;
	int64_t idle_since_us; /* when the turn was seen to be over; 0: it is not */
	/* The events that said so, and when each was first seen: a list that is read again says it again. */
	struct pf_idle {
		char *id;
		int64_t seen_us;
	} * idles;
	size_t n_idles;
	bool ended, deleted; /* the session is */
};

void pf_ledger_done(struct pf_ledger *l);

/* Take in one event: its JSON text. Twice the same makes no difference. Returns -1
 * when it is no JSON object (it is passed over). */
int pf_ledger_event(struct pf_ledger *l, const char *text, size_t len, int64_t now_us);
int pf_ledger_event_json(struct pf_ledger *l, const cJSON *ev, int64_t now_us);

/* The history has been read: a turn that it says is over is over only if nothing is left to run. */
void pf_ledger_history_read(struct pf_ledger *l);

/* The first call that is ready, or NULL. Valid until the next event. */
struct pf_call *pf_ledger_next(struct pf_ledger *l);
/* It has been answered, by us or by somebody. */
void pf_ledger_answered(struct pf_ledger *l, const char *id);
bool pf_ledger_is_answered(const struct pf_ledger *l, const char *id);

/* Whether the turn is over and nothing is open, held calls included, and since when. 0: no. */
int64_t pf_ledger_idle_since(const struct pf_ledger *l);

#endif
