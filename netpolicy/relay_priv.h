/* One relayed connection; shared by accept.c (listening), relay.c (admission), dial.c (connecting),
 * web.c (HTTP requests) and pump.c (moving bytes). */
#ifndef PF_NETPOLICY_RELAY_PRIV_H
#define PF_NETPOLICY_RELAY_PRIV_H

#include <stdbool.h>

#include "netpolicy/gate_priv.h"
#include "netpolicy/http.h"
#include "netpolicy/sniff.h"

#define PF_DIAL_PARALLEL 3

struct pf_end {
	struct pf_src src;
	bool readable, writable; /* as far as the edge-triggered events told */
	bool unsure;             /* a short read was not all: an end, an error or urgent data was told of */
};

/* One direction of the flow. */
struct pf_flow {
	int pipe[2]; /* borrowed while bytes are in it; -1 */
	size_t in_pipe;
	uint8_t *held; /* what was read and is still to be sent; NULL */
	uint32_t held_len, held_at;
	bool bulk; /* it comes in quantities for which a pipe is worth while */
	uint64_t bytes;
	bool eof, shut; /* the source has ended; the destination was told so */
};

/* The requests of a plain HTTP connection. */
struct pf_web {
	struct pf_http request; /* the one that is going on */
	bool in_body;           /* of it, or after it if it asked for another protocol */
	bool waiting;           /* it did, as the first of this connection; its answer decides */
	uint64_t n_requests;
	size_t judged; /* bytes of the connection's head buffer that may go on */
};

/* One beside the first, which has the connection's own place (up) from the beginning. */
struct pf_attempt {
	struct pf_src src;
	struct pf_conn *conn;
	union pf_sa addr;
};

enum pf_conn_state {
	PF_CONN_RESOLVING,
	PF_CONN_DIALLING,
	PF_CONN_CONNECTED, /* upstream is there; its bytes flow, the client's as far as they were judged */
	PF_CONN_REFUSED,   /* denied; waiting for a request that can be answered with 403 */
	PF_CONN_HANDED,    /* pinfold-tls has it; its end is told */
	PF_CONN_GOODBYE,   /* the 403 was sent; waiting for the client to read it */
	PF_CONN_DEAD,
};

struct pf_conn {
	struct pf_gate *gate;
	struct pf_conn *next, **prev;
	enum pf_conn_state state;
	bool judged;    /* the client's first bytes were looked at, or there are none */
	bool line_open; /* not judged, and may go on as they come (sniff.h) */
	bool reported;  /* as allowed */
	bool http;      /* they were an HTTP request */
	bool tls;       /* they were a ClientHello */
	bool ends_tls;  /* pinfold-tls is to have it */
	bool handed_denied;
	bool waits_tls;    /* pinfold-tls is being started */
	bool client_ended; /* the client sent its end before it was judged */
	struct pf_end client, up;
	struct pf_flow out, in; /* client → up, up → client */
	struct pf_timer timer;  /* sniffing, dialling, idling: one at a time */
	struct pf_timer pump;   /* more to move right now */
	int64_t began;          /* pf_now_us */
	int64_t sniff_by;       /* until when the client must finish what is held; 0: nothing is held */
	union pf_sa orig, real;
	struct pf_synth_name *name; /* held; NULL for a literal address */
	const struct pf_rule *rule; /* of the gate's policy */
	char *rule_text;            /* survives a change of policy */
	char *other_name;           /* SNI or Host when it is not the name that was dialled */
	struct pf_query *query;
	uint8_t *head;      /* the first bytes, until they went upstream; with web, all that is under way */
	struct pf_web *web; /* NULL: not HTTP, or not any more */
	size_t head_len, head_cap, head_sent;
	size_t sniff_need;
	const char *refusal; /* reason, when REFUSED */
	/* dialling */
	union pf_sa *addrs;
	size_t n_addrs, next_addr;
	int64_t dial_by, next_try;
	struct pf_attempt *more; /* PF_DIAL_PARALLEL - 1, or NULL: none but the first was needed */
	union pf_sa first;       /* what the first one dials */
	int dial_errno;
	int64_t tls_id; /* HANDED */
	struct pf_conn *tls_next;
	const union pf_sa *peer; /* while nobody has asked who connected */
	char *exec, *process;    /* who did, as far as it is known */
	uint64_t idle_mark;      /* bytes moved at the last idle check */
};

/* relay.c */
/* A client is there, and wants to go to orig; fd is taken, peer is looked at before this round is over. */
void pf_conn_begin(struct pf_gate *g, int fd, const union pf_sa *peer, const union pf_sa *orig);
void pf_reset_on_close(int fd);
/* End with a reset to both sides and one line in the log. verdict "deny" or "error". */
void pf_conn_abort(struct pf_conn *c, const char *verdict, const char *reason, const char *detail);
/* End with a reset to both sides and no line in the log. */
void pf_conn_reset(struct pf_conn *c);
/* head.c: room for first bytes, or for more of them; let go of it. */
void pf_conn_grow_head(struct pf_conn *c);
void pf_conn_drop_head(struct pf_conn *c);
/* Keep no more room than what is there needs, if that is little. */
void pf_conn_fit_head(struct pf_conn *c);
void pf_heads_close(struct pf_gate *g);

/* Whether the rule that admitted the connection also has this other name. */
bool pf_conn_same_rule(const struct pf_conn *c, const char *name);
/* End after both sides have ended. */
void pf_conn_finish(struct pf_conn *c);
/* Denied: 403 if the client speaks plain HTTP, else a reset. */
void pf_conn_deny(struct pf_conn *c, const char *reason, const char *detail);
/* The upstream connection is there (c->up, c->real). */
void pf_conn_connected(struct pf_conn *c);
void pf_conn_arm(struct pf_conn *c);

/* dial.c: filter the addresses and connect to the first that answers. */
void pf_dial_start(struct pf_conn *c, const union pf_sa *addrs, size_t n);
/* An event of the first attempt. */
void pf_dial_event(struct pf_conn *c, uint32_t events);
/* The dialling part of the connection's timer. */
void pf_dial_tick(struct pf_conn *c, int64_t now);
void pf_dial_stop(struct pf_conn *c);

/* web.c: the connection began with an HTTP request, judged, in head. From here on every request of it is. */
void pf_web_begin(struct pf_conn *c, size_t head_len);
/* Read and judge what the client sends. May end the connection. */
void pf_web_read(struct pf_conn *c);
/* The server has said something: does the connection go over to another protocol? false: not known yet. */
bool pf_web_answered(struct pf_conn *c);

/* relay.c: what an event says of an end. */
void pf_end_note(struct pf_end *e, uint32_t events);

/* relay.c: may this request go on? NULL: it may; else the reason, and c->other_name is set. */
const char *pf_conn_judge(struct pf_conn *c, const struct pf_sniff *s);
/* relay.c: send on what is judged, and move. May end the connection. */
void pf_conn_flow(struct pf_conn *c);

/* relay.c: pinfold-tls has ended it; error NULL: as it should. */
void pf_conn_handed_end(struct pf_conn *c, const char *error);

/* handover.c: give it to pinfold-tls, to be answered with 403 if deny is given; or have it wait until that is
 * there. false: that is not possible. */
bool pf_handover(struct pf_conn *c, const char *deny);
/* It has waited in vain. */
void pf_handover_gave_up(struct pf_conn *c);
/* Have pinfold-tls end it. */
void pf_handover_drop(struct pf_conn *c);
void pf_handover_forget(struct pf_conn *c);

/* pump.c: move what can be moved. May end the connection. */
void pf_pump(struct pf_conn *c);
void pf_pump_release(struct pf_gate *g, struct pf_flow *f);
void pf_pump_drop_spares(struct pf_gate *g);

#endif
