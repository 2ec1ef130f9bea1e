/* Theory of operation: see cmd/pinfold-tool/main.c for the frames. The answer comes from inside: its length
 * is bounded here, and nothing else of it is believed but that it is text for the agent, whose it is. */

#include "worker/call.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "worker/work.h"

#define ASK_MS 30000
#define ASK_LOOK_MS 500
#define ANSWER_MAX ((size_t)4 << 20)

static void put_number(struct pf_buf *b, size_t n)
{
	unsigned char be[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
		(unsigned char)n};

	pf_buf_add(b, be, 4);
}

static void put(struct pf_buf *b, const char *name, const char *value, size_t len)
{
	pf_buf_add(b, name, strlen(name) + 1);
	put_number(b, len);
	pf_buf_add(b, value, len);
}

/* Truth as JavaScript has it, since that is what the models' inputs were made for. */
static bool truthy(const cJSON *v)
{
	return v && !cJSON_IsFalse(v) && !cJSON_IsNull(v) && !(cJSON_IsNumber(v) && v->valuedouble == 0) &&
	       !(cJSON_IsString(v) && !*v->valuestring);
}

static void put_integer(struct pf_buf *b, const char *name, const cJSON *v)
{
	double d = cJSON_IsNumber(v) ? v->valuedouble : 0;
	PF_FREE char *s = pf_asprintf("%lld", d > 1e15    ? 1000000000000000LL
					      : d < -1e15 ? -1LL
							  : (long long)d);

	put(b, name, s, strlen(s));
}

void pf_exchange_begin(struct pf_exchange *x, const struct pf_call *c)
{
	static const struct {
		const char *member, *field;
	} strings[] = {{"command", "command"}, {"file_path", "path"}, {"path", "path"},
		{"content", "content"}, {"old_string", "old_string"}, {"new_string", "new_string"},
		{"pattern", "pattern"}};
	static const char *const flags[] = {"restart", "replace_all"};
	bool search = strcmp(c->name, "glob") == 0 || strcmp(c->name, "grep") == 0;
	PF_BUF struct pf_buf b = {0};
	const cJSON *v, *n;

	put(&b, "tool", c->name, strlen(c->name));
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		v = cJSON_GetObjectItemCaseSensitive(c->input, strings[i].member);
		/* Two members go by the name of path, each in its own tools. */
		if (!cJSON_IsString(v) || (strcmp(strings[i].member, "path") == 0 && !search) ||
			(strcmp(strings[i].member, "file_path") == 0 && search))
			continue;
		size_t len;
		PF_FREE char *s = pf_json_nul(v->valuestring, &len);
		put(&b, strings[i].field, s, len);
	}
	for (size_t i = 0; i < 2; i++)
		if (truthy(cJSON_GetObjectItemCaseSensitive(c->input, flags[i])))
			put(&b, flags[i], "1", 1);
	v = cJSON_GetObjectItemCaseSensitive(c->input, "timeout_ms");
	if (cJSON_IsNumber(v))
		put_integer(&b, "timeout_ms", v);
	v = cJSON_GetObjectItemCaseSensitive(c->input, "view_range");
	if (!cJSON_IsArray(v))
		v = NULL;
	cJSON_ArrayForEach(n, v)
	{
		put_integer(&b, "range", n);
	}
	put_number(&x->request, b.len);
	pf_buf_add(&x->request, b.data, b.len);
}

enum pf_exchange_state pf_exchange_step(
	struct pf_exchange *x, const struct pf_tool *t, bool *is_error, struct pf_buf *text)
{
	char buf[65536];

	while (x->sent < x->request.len) {
		ssize_t n = write(t->in, x->request.data + x->sent, x->request.len - x->sent);
		if (n < 0 && errno == EAGAIN)
			return PF_EXCHANGE_WRITING;
		if (n < 0 && errno != EINTR)
			return PF_EXCHANGE_BROKEN;
		x->sent += n > 0 ? (size_t)n : 0;
	}
	for (;;) {
		const unsigned char *a = (const unsigned char *)x->answer.data;
		if (x->answer.len >= 4) {
			size_t len = (size_t)a[0] << 24 | (size_t)a[1] << 16 | (size_t)a[2] << 8 | a[3];
			if (len == 0 || len > ANSWER_MAX || x->answer.len > len + 4)
				return PF_EXCHANGE_BROKEN;
			if (x->answer.len == len + 4) {
				*is_error = a[4] != 0;
				pf_buf_add(text, a + 5, len - 1);
				return PF_EXCHANGE_DONE;
			}
		}
		ssize_t n = read(t->out, buf, sizeof(buf));
		if (n < 0 && errno == EAGAIN)
			return PF_EXCHANGE_READING;
		if (n == 0 || (n < 0 && errno != EINTR))
			return PF_EXCHANGE_BROKEN;
		if (n > 0)
			pf_buf_add(&x->answer, buf, (size_t)n);
	}
}

void pf_exchange_end(struct pf_exchange *x)
{
	pf_buf_done(&x->request);
	pf_buf_done(&x->answer);
}

int pf_tool_ask(const struct pf_tool *t, const char *op, const char *path, const char *rel,
	const char *content, size_t len, struct pf_http_over over, struct pf_buf *answer, struct pf_err *err)
{
	struct pf_exchange x = PF_EXCHANGE_INIT;
	int64_t end = pf_now_us() + ASK_MS * 1000, left;
	PF_BUF struct pf_buf b = {0};
	enum pf_exchange_state s;
	bool bad = false;

	put(&b, "tool", op, strlen(op));
	put(&b, "path", path, strlen(path));
	if (rel)
		put(&b, "pattern", rel, strlen(rel));
	if (content)
		put(&b, "content", content, len);
	put_number(&x.request, b.len);
	pf_buf_add(&x.request, b.data, b.len);
	while ((s = pf_exchange_step(&x, t, &bad, answer)) == PF_EXCHANGE_WRITING ||
		s == PF_EXCHANGE_READING) {
		struct pollfd p = {.fd = s == PF_EXCHANGE_WRITING ? t->in : t->out,
			.events = s == PF_EXCHANGE_WRITING ? POLLOUT : POLLIN};
		left = (end - pf_now_us()) / 1000;
		if (left <= 0 || (over.is && over.is(over.arg)))
			break;
		(void)poll(&p, 1, left > ASK_LOOK_MS ? ASK_LOOK_MS : (int)left);
	}
	pf_exchange_end(&x);
	/* An answer that comes after all would be taken for that to the next question. */
	if (s != PF_EXCHANGE_DONE)
		(void)kill(t->pid, SIGKILL);
	if (s != PF_EXCHANGE_DONE)
		return pf_fail(err, s == PF_EXCHANGE_BROKEN ? EPIPE : ETIMEDOUT, "the helper in the sandbox");
	if (!bad)
		return 0;
	pf_buf_str(answer, "");
	return pf_fail(err, 0, "%.200s", answer->data);
}
