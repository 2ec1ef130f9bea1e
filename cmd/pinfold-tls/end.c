#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"
#include "cmd/pinfold-tls/tls.h"

/* ---- fifo */

void fifo_done(struct fifo *f)
{
	if (f->p)
		OPENSSL_cleanse(f->p, f->cap);
	free(f->p);
	*f = (struct fifo){0};
}

size_t fifo_size(const struct fifo *f)
{
	return f->len - f->at;
}

const char *fifo_data(const struct fifo *f)
{
	return (const char *)f->p + f->at;
}

uint8_t *fifo_room(struct fifo *f, size_t want)
{
	if (f->at && f->cap - f->len < want) {
		memmove(f->p, f->p + f->at, f->len - f->at);
		f->len -= f->at;
		f->at = 0;
	}
	if (f->cap - f->len < want) {
		size_t cap = f->len + want;
		/* By half at least: a body that is all placeholders grows thousands of times. */
		if (cap < f->cap + f->cap / 2)
			cap = f->cap + f->cap / 2;
		/* Not realloc: it would leave a copy behind. */
		uint8_t *more = pf_calloc(1, cap);
		if (f->p) {
			memcpy(more, f->p, f->len);
			OPENSSL_cleanse(f->p, f->cap);
		}
		free(f->p);
		f->p = more;
		f->cap = cap;
	}
	return f->p + f->len;
}

void fifo_add(struct fifo *f, const void *data, size_t len)
{
	if (len)
		memcpy(fifo_room(f, len), data, len);
	f->len += len;
}

void fifo_skip(struct fifo *f, size_t n)
{
	f->at += n;
	if (f->at == f->len)
		fifo_done(f);
}

/* ---- ends */

/* What an SSL call's failure means. The bytes that the keeper had read come first, then the socket's. */
static ssize_t outcome(struct end *e, int r, bool *again)
{
	switch (SSL_get_error(e->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		if (e->first) {
			SSL_set0_rbio(e->ssl, e->sock); /* frees the other */
			e->first = NULL;
			*again = true;
			return END_AGAIN;
		}
		e->readable = false;
		return END_AGAIN;
	case SSL_ERROR_WANT_WRITE:
		e->writable = false;
		return END_AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return END_FAILED;
	}
}

ssize_t end_read(struct end *e, void *buf, size_t len)
{
	if (!e->ssl) {
		ssize_t n = recv(e->src.fd, buf, len, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			e->readable = false;
		return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? END_AGAIN : END_FAILED;
	}
	for (;;) {
		bool again = false;
		size_t n = 0;
		ERR_clear_error();
		int r = SSL_read_ex(e->ssl, buf, len, &n);
		if (r == 1)
			return (ssize_t)n;
		ssize_t o = outcome(e, r, &again);
		if (!again)
			return o;
	}
}

ssize_t end_write(struct end *e, const void *buf, size_t len)
{
	if (!e->ssl) {
		ssize_t n = send(e->src.fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			e->writable = false;
		return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? END_AGAIN : END_FAILED;
	}
	bool again = false;
	size_t n = 0;
	ERR_clear_error();
	int r = SSL_write_ex(e->ssl, buf, len, &n);
	if (r == 1)
		return (ssize_t)n;
	ssize_t o = outcome(e, r, &again);
	return o == 0 ? END_FAILED : o;
}

int end_handshake(struct end *e)
{
	bool again = true;
	ssize_t o = END_AGAIN;

	while (again) {
		again = false;
		ERR_clear_error();
		int r = SSL_do_handshake(e->ssl);
		if (r == 1)
			return 1;
		o = outcome(e, r, &again);
	}
	return o == END_AGAIN ? 0 : -1;
}

static int use(struct end *e, SSL_CTX *ctx)
{
	e->ssl = SSL_new(ctx);
	e->sock = e->ssl ? BIO_new_socket(e->src.fd, BIO_NOCLOSE) : NULL;
	if (!e->sock)
		return -1;
	SSL_set0_wbio(e->ssl, e->sock);
	return 0;
}

int end_accept(struct end *e, SSL_CTX *ctx, const void *first, size_t len)
{
	if (use(e, ctx) < 0)
		return -1;
	BIO *b = BIO_new(BIO_s_mem());
	if (!b || BIO_write(b, first, (int)len) != (int)len) {
		BIO_free(b);
		return -1;
	}
	BIO_set_mem_eof_return(b, -1);
	BIO_up_ref(e->sock);
	SSL_set0_rbio(e->ssl, b);
	e->first = b;
	SSL_set_accept_state(e->ssl);
	return 0;
}

int end_connect(struct end *e, SSL_CTX *ctx, const char *name, uint16_t port)
{
	if (use(e, ctx) < 0)
		return -1;
	BIO_up_ref(e->sock);
	SSL_set0_rbio(e->ssl, e->sock);
	SSL_set_hostflags(e->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (SSL_set_tlsext_host_name(e->ssl, name) != 1 || SSL_set1_host(e->ssl, name) != 1 ||
		resume_offer(e->ssl, name, port) < 0)
		return -1;
	SSL_set_connect_state(e->ssl);
	return 0;
}

void end_shut(struct end *e)
{
	if (e->shut || e->src.fd < 0)
		return;
	e->shut = true;
	ERR_clear_error();
	if (e->ssl && SSL_is_init_finished(e->ssl))
		(void)SSL_shutdown(e->ssl);
	(void)shutdown(e->src.fd, SHUT_WR);
}

void end_close(struct pf_loop *loop, struct end *e, bool reset)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};

	/* A reference of our own to the socket's BIO, while it was not the one being read. */
	if (e->first)
		BIO_free(e->sock);
	/* Unless it is said that the end was as it should be, the session is not used again. */
	if (e->ssl && !reset && SSL_is_init_finished(e->ssl))
		SSL_set_shutdown(e->ssl, SSL_SENT_SHUTDOWN);
	SSL_free(e->ssl);
	e->ssl = NULL;
	e->first = e->sock = NULL;
	if (e->src.fd >= 0 && reset)
		(void)setsockopt(e->src.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	pf_loop_close(loop, &e->src);
}

const char *end_error(const struct end *e, char *buf, size_t len)
{
	long v = e->ssl ? SSL_get_verify_result(e->ssl) : X509_V_OK;
	unsigned long code = ERR_peek_error();

	if (v != X509_V_OK)
		return X509_verify_cert_error_string(v);
	const char *text = code ? ERR_reason_error_string(code) : NULL;
	snprintf(buf, len, "%s", text ? text : errno ? strerror(errno) : "the connection ended");
	return buf;
}
