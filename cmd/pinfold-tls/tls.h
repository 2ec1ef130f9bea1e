/* pinfold-tls: ends TLS for the hosts of one sandbox whose requests are to be seen. Shared by its parts. */
#ifndef PF_TLS_TLS_H
#define PF_TLS_TLS_H

#include <cjson/cJSON.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "netpolicy/creds.h"
#include "netpolicy/http.h"
#include "netpolicy/loop.h"
#include "netpolicy/policy.h"

struct conn;

/* Bodies that are collected, and what secrets have made longer, of all connections, until they are sent. */
#define HELD_ALL_MAX ((uint64_t)64 << 20)

struct tls {
	struct pf_loop loop;
	struct pf_src link;
	struct pf_policy *policy;
	struct pf_creds creds;
	struct pf_quota *rule_quotas; /* one per rule of the policy */
	SSL_CTX *server, *upstream;   /* upstream is made with the first connection that needs it */
	int host_store;               /* the host's authorities, open for reading; -1: there are none */
	struct conn *conns;
	uint64_t held;      /* bytes of bodies that are collected: promised, here, or not yet taken */
	struct pf_buf told; /* messages to the gate that are still to be sent, each with its NUL */
	struct pf_timer retry;
};

/* ---- ca.c: the sandbox's authority, and the certificates it makes */

/* Take the authority from the vault, or make it; *pem is its certificate, malloc'ed. names (NULL: any) are
 * what one that is made may speak for. */
int tls_ca_make(char *const *names, int64_t lifetime_s, char **pem, struct pf_err *err);
/* Give a server-side connection the certificate for a name, from the cache or fresh. */
int tls_ca_leaf(SSL *ssl, const char *name);

/* ---- vault.c: what is there again after a start; without a vault nothing is kept */

/* Before confinement. One that was given and cannot be had is an error. */
int vault_open(struct pf_err *err);
bool vault_is_there(void);
/* By the credential's number. */
void vault_put_secret(size_t i, const char *secret, size_t len);
const char *vault_secret(size_t i, size_t *len);
int vault_put_authority(EVP_PKEY *key, X509 *cert, int64_t not_after, struct pf_err *err);
/* *key NULL: there is none yet. */
int vault_authority(EVP_PKEY **key, X509 **cert, int64_t *not_after, struct pf_err *err);

/* ---- end.c: one end of a connection, with TLS or without */

struct end {
	struct pf_src src;
	SSL *ssl;
	BIO *first, *sock; /* what was read before, and the socket after it */
	bool readable, writable, eof, shut;
};

#define END_AGAIN (-1)
#define END_FAILED (-2)
/* > 0 bytes; 0 the end; END_AGAIN, END_FAILED. */
ssize_t end_read(struct end *e, void *buf, size_t len);
ssize_t end_write(struct end *e, const void *buf, size_t len);
/* 1 done, 0 not yet, -1 failed. */
int end_handshake(struct end *e);
/* As a server; first are bytes that were read already. */
int end_accept(struct end *e, SSL_CTX *ctx, const void *first, size_t len);
/* As a client that asks for name and verifies it. */
int end_connect(struct end *e, SSL_CTX *ctx, const char *name, uint16_t port);
/* Tell the peer that no more will come. */
void end_shut(struct end *e);
void end_close(struct pf_loop *loop, struct end *e, bool reset);
/* What went wrong, for people; buf is used or not. */
const char *end_error(const struct end *e, char *buf, size_t len);

/* ---- resume.c: sessions with servers */

/* Have those of this context kept. */
void resume_enable(SSL_CTX *ctx);
/* Use the one with this server if there is one, and let what comes be kept for it. -1: OpenSSL failed. */
int resume_offer(SSL *ssl, const char *name, uint16_t port);
void resume_forget(void);

/* ---- fifo: bytes under way. What leaves it is wiped: a secret may have been among it */

struct fifo {
	uint8_t *p;
	size_t at, len, cap;
};
void fifo_done(struct fifo *f);
size_t fifo_size(const struct fifo *f);
const char *fifo_data(const struct fifo *f);
void fifo_add(struct fifo *f, const void *data, size_t len);
void fifo_skip(struct fifo *f, size_t n);
/* Room for at least want more bytes behind what is there. */
uint8_t *fifo_room(struct fifo *f, size_t want);

/* ---- inject.c: secrets */

/* Take a secret from a descriptor (which is closed). */
int secret_take(struct tls *t, const char *name, int fd, struct pf_err *err);
/* Those that are in the vault. */
int secret_recall(struct tls *t, struct pf_err *err);

struct request {
	const char *name; /* of the host, as its certificate proves it */
	uint16_t port;
	bool secure; /* the upstream is TLS */
	const char *method, *target;
	size_t method_len, target_len;
	bool *counted;    /* per credential: this request was counted already */
	const char *used; /* the credential whose secret went in, NULL: none */
	/* when it is refused: */
	int status;
	const char *reason;
	int64_t retry_s;
	char text[400];
};

/* ---- request.c */

/* What a head's first line says. */
void request_read(struct request *r, const char *head, size_t len);
/* It is refused, because what waits for hosts with secrets in it is as much as it may be. */
void request_no_room(struct request *r);
/* Whether the policy has it; false: r says why not. Counts it. */
bool request_judge(struct tls *t, struct request *r);
/* Tell the gate, for the log, under this connection's id. */
void request_report(
	struct tls *t, int64_t id, const struct request *r, const char *verdict, const char *reason);

/* ---- inject.c, with requests */

/* Whether some credential may stand in bodies to this host. */
bool inject_wants_body(const struct tls *t, const struct request *r);
/* Write the head to out with the placeholders of this host's credentials replaced; all others go as they are.
 * length >= 0: the body has that length now, and is here. false: refused, and r says why. */
bool inject_head(
	struct tls *t, struct request *r, const char *head, size_t len, int64_t length, struct fifo *out);
/* Write the whole body to out, likewise. */
bool inject_body(struct tls *t, struct request *r, const char *body, size_t len, struct fifo *out);
/* The same of a body that comes bit by bit; *took bytes of it are done with: not those at the end that a
 * placeholder may begin with, unless last. */
bool inject_part(struct tls *t, struct request *r, const char *body, size_t len, bool last, struct fifo *out,
	size_t *took);
/* The head of an answer of this host, with placeholders for the secrets that are bound to it: headers such as
 * X-Request-Id come back as they were sent. */
void hide_secrets(
	struct tls *t, const char *name, uint16_t port, const char *head, size_t len, struct fifo *out);

/* ---- proxy.c */

/* Take over a connection from the keeper; descriptors are taken in any case. up -1: to be denied. */
void conn_open(struct tls *t, const cJSON *msg, const char *first, size_t first_len, int client, int up);
void conn_drop(struct tls *t, int64_t id);
/* main.c: to the gate, in this order, soon: with tls_flush, or when there is nothing else to do. */
void tls_send(struct tls *t, const cJSON *msg);
void tls_send_text(struct tls *t, const char *text);
void tls_flush(struct tls *t);
SSL_CTX *tls_upstream(struct tls *t);

#endif
