#include "jail/message.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

#define MAX_MESSAGE ((uint32_t)64 << 20)
#define MAX_REQUEST ((uint32_t)8 << 20) /* to a running jail: a policy, at most */
#define MAX_WAITING ((size_t)1 << 20)

cJSON *pf_message_read(int fd, struct pf_err *err)
{
	uint32_t len = 0;
	ssize_t n = pf_read_full(fd, &len, sizeof(len));

	if (n != (ssize_t)sizeof(len)) {
		pf_fail(err, n < 0 ? errno : ECONNRESET, "read a message");
		return NULL;
	}
	if (len == 0 || len > MAX_MESSAGE) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "a message of %u bytes", (unsigned)len);
		return NULL;
	}
	PF_FREE char *text = pf_calloc((size_t)len + 1, 1);
	if (pf_read_full(fd, text, len) != (ssize_t)len) {
		pf_fail(err, ECONNRESET, "read a message");
		return NULL;
	}
	return pf_json_parse("message", text, len, err);
}

static int send_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pf_message_write(int fd, cJSON *message, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(message);
	size_t all = strlen(text);
	uint32_t len = (uint32_t)all;

	cJSON_Delete(message);
	if (all > MAX_MESSAGE)
		return pf_fail(err, EMSGSIZE, "write a message of %zu bytes", all);
	return send_all(fd, &len, sizeof(len)) < 0 || send_all(fd, text, len) < 0
		       ? pf_fail(err, errno, "write a message")
		       : 0;
}

/* ---- without waiting ---- */

short pf_channel_events(const struct pf_channel *c)
{
	size_t waiting = c->out.len - c->sent;

	return (short)((waiting ? POLLOUT : 0) | (!c->over && waiting < MAX_WAITING ? POLLIN : 0));
}

static int write_some(struct pf_channel *c, int flags, struct pf_err *err)
{
	while (c->sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, flags | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return pf_fail(err, ECONNRESET, "write a message");
		c->sent += (size_t)n;
	}
	c->out.len = c->sent = 0;
	return 0;
}

/* 1: len bytes of data are there, from *got on; 0: not yet. */
static int read_some(int fd, void *data, size_t len, size_t *got, struct pf_err *err)
{
	while (*got < len) {
		ssize_t n = recv(fd, (char *)data + *got, len - *got, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return pf_fail(err, ECONNRESET, "read a message");
		*got += (size_t)n;
	}
	return 1;
}

/* The text of a message, into c->in: memory is taken for what has come, not for what is announced. */
static int read_text(struct pf_channel *c, struct pf_err *err)
{
	char chunk[16384];

	while (c->in.len < c->len) {
		size_t left = c->len - c->in.len, n = 0;
		int r = read_some(c->fd, chunk, left < sizeof(chunk) ? left : sizeof(chunk), &n, err);
		pf_buf_add(&c->in, chunk, n);
		if (r <= 0)
			return r;
	}
	return 1;
}

int pf_channel_serve(struct pf_channel *c, cJSON **message, struct pf_err *err)
{
	int r = write_some(c, MSG_DONTWAIT, err);

	if (r < 0 || !(pf_channel_events(c) & POLLIN))
		return r;
	r = read_some(c->fd, &c->len, sizeof(c->len), &c->got, err);
	if (r > 0 && (c->len == 0 || c->len > MAX_REQUEST)) {
		c->over = true;
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "a message of %u bytes", (unsigned)c->len);
	}
	if (r > 0)
		r = read_text(c, err);
	if (r <= 0)
		return r;
	*message = pf_json_parse("message", c->in.data, c->in.len, err);
	c->in.len = c->got = 0;
	c->over = !*message;
	return *message ? 1 : -1;
}

void pf_channel_send(struct pf_channel *c, cJSON *message)
{
	PF_FREE char *text = pf_json_text(message);
	uint32_t len = (uint32_t)strlen(text);

	cJSON_Delete(message);
	pf_buf_add(&c->out, &len, sizeof(len));
	pf_buf_add(&c->out, text, len);
}

void pf_channel_flush(struct pf_channel *c)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (c->fd >= 0)
		(void)write_some(c, 0, &ignored);
}

void pf_channel_done(struct pf_channel *c)
{
	pf_buf_done(&c->in);
	pf_buf_done(&c->out);
	*c = (struct pf_channel){.fd = -1};
}
