/* Theory of operation: memory stores.
 *
 * A store is a flat list of documents with paths, on the platform; the agent sees a directory of files. For
 * each path we know three contents by their SHA-256: what both sides had when they were last in step (base),
 * what the file has now, what the platform has now. From these follows what is to be done, by the platform's
 * own rules (its SDK's): one side changed, and the other follows; both changed, and the platform's counts; a
 * file that is gone removes its document only after a while, when it still is, and not too many at once, for
 * a directory that was wiped is no wish to forget. A marker file tells a directory that is still ours from
 * one that somebody put in its place.
 *
 * The files are read and written by the helper inside (cmd/pinfold-tool/memory.c): what it says is content
 * for the store, whose owner let this agent write to it, and nothing more. Read-only stores are never written
 * to, whatever is in the directory. */

#include "worker/memory.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/api.h"
#include "worker/call.h"
#include "worker/http.h"
#include "worker/log.h"
#include "worker/work.h"

#define MARKER ".anthropic-memory-store"
#define SYNC_MS 15000
#define DELETE_AFTER_MS 30000
#define DELETES_MIN 8
#define DELETES_MAX 50
#define REQUEST_MS 15000
#define HELPER_LATE_MS 2000
#define DROP_MS 28000
#define PAGES_MAX 1000
#define ENTRIES_MAX 10000
#define SHA_LEN 64
#define NO_ANSWER (-2)

struct entry {
	char *rel;
	char base[SHA_LEN + 1], sent[SHA_LEN + 1];
	char *refused; /* what the platform refused, or cannot be sent: the file's sha, or its mark */
	int64_t gone_us;
	/* as of the last scan and listing */
	bool local, remote, pull;
	char *mark;      /* of the file, changes with it */
	char *local_sha; /* of the file, or its mark where it cannot be sent */
	char remote_sha[SHA_LEN + 1], *remote_id;
};

struct store {
	struct pf_memory *m;
	char *id, *root;
	bool read_only, marked, full;
	struct entry *entries;
	size_t n, cap;
};

struct pf_memory {
	struct pf_http *http;
	char *token;
	struct store *stores;
	size_t n_stores;
	const char **args;
	int64_t synced_us, deadline_us;
	int64_t over_us; /* when this pass was seen to be over; 0: it is not */
	bool last;       /* after this pass the agent needs the helper no more */
	struct pf_http_over ends;
};

static const char *member(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	return s ? s : "";
}

static void sha256(const char *data, size_t len, char out[SHA_LEN + 1])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (EVP_Digest(data, len, md, &n, EVP_sha256(), NULL) != 1)
		abort();
	for (unsigned i = 0; i < SHA_LEN / 2; i++)
		(void)snprintf(out + (size_t)i * 2, 3, "%02x", md[i]);
}

static struct entry *known(const struct store *s, const char *rel)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->entries[i].rel, rel) == 0)
			return &s->entries[i];
	return NULL;
}

static struct entry *find(struct store *s, const char *rel)
{
	struct entry *e = known(s, rel);

	if (e)
		return e;
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16;
		s->entries = reallocarray(s->entries, s->cap, sizeof(*s->entries));
		if (!s->entries)
			abort();
	}
	s->entries[s->n] = (struct entry){.rel = pf_strdup(rel)};
	return &s->entries[s->n++];
}

static void set_sha(char to[SHA_LEN + 1], const char *from)
{
	(void)snprintf(to, SHA_LEN + 1, "%s", from);
}

static bool told(const struct pf_memory *m)
{
	return m->ends.is && m->ends.is(m->ends.arg);
}

static bool over(struct pf_memory *m)
{
	if (!m->over_us && (pf_now_us() > m->deadline_us || told(m)))
		m->over_us = pf_now_us();
	return m->over_us != 0;
}

static bool requests_over(void *arg)
{
	return over(arg);
}

/* For what the helper is at: one that does not answer then is ended, and the agent's shell with it. */
static bool helper_over(void *arg)
{
	struct pf_memory *m = arg;

	return over(m) && pf_now_us() - m->over_us > HELPER_LATE_MS * 1000 && (m->last || told(m));
}

static void warn(const struct store *s, const struct entry *e, const char *what)
{
	pf_wlog("warning", "memory %s: %.200s: %s", s->id, e->rel, what);
}

/* ---- the platform ---- */

/* *out (may be NULL) is the answer's document. Returns the status, -1 when there was none. */
static long ask(struct pf_memory *m, const char *method, const char *path, const char *body, cJSON **out)
{
	static const char *const headers[] = {"Accept: application/json", "anthropic-version: 2023-06-01",
		"anthropic-beta: agent-memory-2026-07-22", "Content-Type: application/json", NULL};
	struct pf_http_req req = {.method = method,
		.path = path,
		.bearer = m->token,
		.body = body,
		.extra = headers,
		.bare = true,
		.timeout_ms = REQUEST_MS};
	struct pf_http_resp resp;
	struct pf_err err = PF_ERR_INIT;
	long status = pf_http_retry(m->http, &req, &resp, &err) < 0 ? -1 : resp.status;

	if (status < 0)
		pf_wlog("warning", "memory: %s", err.msg);
	if (out)
		*out = status >= 200 && status < 300 ? pf_json_lenient(resp.body.data, resp.body.len) : NULL;
	pf_http_resp_done(&resp);
	return status;
}

/* All documents of a store, each given to take; full: with their content. */
static int list(struct pf_memory *m, struct store *s, bool full,
	void (*take)(struct pf_memory *m, struct store *s, const char *rel, const cJSON *item, void *arg),
	void *arg)
{
	PF_FREE char *page = pf_strdup("");

	for (int pages = 0; pages < PAGES_MAX && !over(m); pages++) {
		PF_FREE char *path = pf_asprintf("/v1/memory_stores/%s/memories?view=%s&limit=%d%s%s", s->id,
			full ? "full" : "basic", full ? 20 : 100, *page ? "&page=" : "", page);
		cJSON *j;
		const cJSON *item;
		if (ask(m, "GET", path, NULL, &j) != 200 ||
			!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(j, "data"))) {
			cJSON_Delete(j);
			return -1;
		}
		cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(j, "data"))
		{
			const char *rel = member(item, "path") + strspn(member(item, "path"), "/");
			if (strcmp(member(item, "type"), "memory") == 0 && *rel && strcmp(rel, MARKER) != 0 &&
				strlen(member(item, "content_sha256")) == SHA_LEN)
				take(m, s, rel, item, arg);
		}
		free(page);
		page = pf_url_word(member(j, "next_page"));
		cJSON_Delete(j);
		if (!*page)
			return 0;
	}
	return -1;
}

/* ---- the directory ---- */

static int ask_helper(const struct pf_tool *t, const struct store *s, const char *op, const char *rel,
	const char *content, size_t len, struct pf_buf *answer, struct pf_err *err)
{
	struct pf_http_over ends = {.is = helper_over, .arg = s->m};

	return pf_tool_ask(t, op, s->root, rel, content, len, ends, answer, err);
}

static int inside(const struct pf_tool *t, const struct store *s, const char *op, const char *rel,
	const char *content, size_t len, struct pf_buf *answer)
{
	struct pf_err err = PF_ERR_INIT;
	int r = ask_helper(t, s, op, rel, content, len, answer, &err);

	if (r < 0)
		pf_wlog("warning", "memory %s: %s: %s", s->id, op + sizeof("_memory_") - 1, err.msg);
	return r < 0 && err.errnum ? NO_ANSWER : r;
}

/* 1: it has been written. */
static bool write_file(const struct pf_tool *t, struct store *s, const char *rel, const cJSON *item)
{
	PF_BUF struct pf_buf answer = {0};
	size_t len;
	PF_FREE char *content = pf_json_nul(member(item, "content"), &len);

	return inside(t, s, "_memory_put", rel, content, len, &answer) == 0;
}

/* The file's content, if it can be sent. */
static bool read_file(const struct pf_tool *t, const struct store *s, const char *rel, struct pf_buf *content)
{
	pf_buf_str(content, "");
	return inside(t, s, "_memory_get", rel, NULL, 0, content) == 0 &&
	       pf_utf8_valid(content->data, content->len);
}

/* false: the helper is gone, and nothing is known of the file. */
static bool note_file(const struct pf_tool *t, struct store *s, const char *rel, const char *mark)
{
	PF_BUF struct pf_buf content = {0};
	char sha[SHA_LEN + 1];

	if (strcmp(rel, MARKER) == 0) {
		PF_FREE char *ours = pf_asprintf("version 1\n%s", s->id);
		s->marked = read_file(t, s, rel, &content) && content.len == strlen(ours) &&
			    memcmp(content.data, ours, content.len) == 0;
		return true;
	}
	/* Far more than a store takes: those that are not known yet stay here. */
	if (!known(s, rel) && s->n >= ENTRIES_MAX) {
		if (!s->full)
			pf_wlog("warning", "memory %s: more than %d files: the others are not synchronized",
				s->id, ENTRIES_MAX);
		s->full = true;
		return true;
	}
	struct entry *e = find(s, rel);
	e->local = true;
	if (e->mark && e->local_sha && strcmp(e->mark, mark) == 0)
		return true;
	free(e->mark);
	free(e->local_sha);
	e->mark = e->local_sha = NULL;
	pf_buf_str(&content, "");
	int r = pf_utf8_valid(rel, strlen(rel)) ? inside(t, s, "_memory_get", rel, NULL, 0, &content) : -1;
	if (r == NO_ANSWER)
		return false;
	e->mark = pf_strdup(mark);
	if (r == 0 && pf_utf8_valid(content.data, content.len)) {
		sha256(content.data, content.len, sha);
		e->local_sha = pf_strdup(sha);
		return true;
	}
	warn(s, e, "no text, or longer than a store takes: not synchronized until it changes");
	e->local_sha = pf_strdup(mark);
	free(e->refused);
	e->refused = pf_strdup(mark);
	return true;
}

static size_t n_local(const struct store *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += s->entries[i].local;
	return n;
}

static int scan(const struct pf_tool *t, struct store *s)
{
	PF_BUF struct pf_buf answer = {0};

	s->marked = false;
	for (size_t i = 0; i < s->n; i++)
		s->entries[i].local = false;
	pf_buf_str(&answer, "");
	if (inside(t, s, "_memory_list", NULL, NULL, 0, &answer) < 0)
		return -1;
	for (const char *p = answer.data, *end = p + answer.len; p < end;) {
		const char *mark = memchr(p, '\0', (size_t)(end - p));
		const char *next = mark ? memchr(mark + 1, '\0', (size_t)(end - mark - 1)) : NULL;
		if (!next)
			break;
		if (over(s->m) || !note_file(t, s, p, mark + 1))
			return -1;
		p = next + 1;
	}
	return 0;
}

/* ---- filling ---- */

static void take_full(struct pf_memory *m, struct store *s, const char *rel, const cJSON *item, void *arg)
{
	(void)m;
	if (write_file(arg, s, rel, item))
		set_sha(find(s, rel)->base, member(item, "content_sha256"));
}

static int stamp_and_pull(struct pf_memory *m, const struct pf_tool *t, struct store *s)
{
	PF_FREE char *mark = pf_asprintf("version 1\n%s", s->id);
	PF_BUF struct pf_buf answer = {0};

	for (size_t i = 0; i < s->n; i++) {
		s->entries[i].base[0] = s->entries[i].sent[0] = '\0';
		s->entries[i].gone_us = 0;
	}
	if (inside(t, s, "_memory_put", MARKER, mark, strlen(mark), &answer) < 0)
		return -1;
	return list(m, s, true, take_full, (void *)(uintptr_t)t);
}

static void recover(struct pf_memory *m, const struct pf_tool *t, struct store *s, const char *why)
{
	PF_BUF struct pf_buf answer = {0};
	struct pf_err err = PF_ERR_INIT;

	pf_wlog("warning", "memory %s: %s: fetched again", s->id, why);
	(void)ask_helper(t, s, "_memory_make", NULL, NULL, 0, &answer, &err);
	(void)stamp_and_pull(m, t, s);
}

/* ---- reconciling ---- */

static void take_basic(struct pf_memory *m, struct store *s, const char *rel, const cJSON *item, void *arg)
{
	struct entry *e = find(s, rel);

	(void)m;
	(void)arg;
	e->remote = true;
	set_sha(e->remote_sha, member(item, "content_sha256"));
	free(e->remote_id);
	e->remote_id = pf_url_word(member(item, "id"));
}

/* What the platform has now; a document that has exactly what was sent without an answer is ours. */
static int look_there(struct pf_memory *m, struct store *s)
{
	for (size_t i = 0; i < s->n; i++)
		s->entries[i].remote = s->entries[i].pull = false;
	if (list(m, s, false, take_basic, NULL) < 0)
		return -1;
	for (size_t i = 0; i < s->n; i++) {
		struct entry *e = &s->entries[i];
		if (*e->sent && e->remote && strcmp(e->sent, e->remote_sha) == 0)
			set_sha(e->base, e->sent);
		e->sent[0] = '\0';
	}
	return 0;
}

static char *update_body(const struct entry *e, bool update, const struct pf_buf *content)
{
	PF_FREE char *path = pf_asprintf("/%s", e->rel);
	struct pf_buf b = {0};

	pf_buf_str(&b, "{");
	if (!update) {
		pf_buf_str(&b, "\"path\":");
		pf_json_quote(&b, path, strlen(path));
		pf_buf_str(&b, ",");
	}
	pf_buf_str(&b, "\"content\":");
	pf_json_quote(&b, content->data, content->len);
	if (update)
		pf_buf_printf(&b, ",\"precondition\":{\"type\":\"content_sha256\",\"content_sha256\":\"%s\"}",
			e->remote_sha);
	pf_buf_str(&b, "}");
	return b.data;
}

/* Whether base is now what the platform has of it. */
static bool upload(
	struct pf_memory *m, const struct pf_tool *t, struct store *s, struct entry *e, bool update)
{
	PF_BUF struct pf_buf content = {0};
	cJSON *j;

	if (!read_file(t, s, e->rel, &content))
		return false;
	sha256(content.data, content.len, e->sent);
	PF_FREE char *body = update_body(e, update, &content);
	PF_FREE char *path = pf_asprintf(
		"/v1/memory_stores/%s/memories%s%s", s->id, update ? "/" : "", update ? e->remote_id : "");
	long status = ask(m, "POST", path, body, &j);
	bool done = status >= 200 && status < 300;
	if (done) {
		set_sha(e->base, *member(j, "content_sha256") ? member(j, "content_sha256") : e->sent);
		e->sent[0] = '\0';
		free(e->refused);
		e->refused = NULL;
	} else if (status == 404 && update) {
		/* Removed there meanwhile: this is the only copy. */
		return upload(m, t, s, e, false);
	} else if (status == 409 && update) {
		warn(s, e, "changed on both sides; the platform's counts");
	} else if (status == 400 || status == 413) {
		free(e->refused);
		e->refused = pf_strdup(e->local_sha);
		warn(s, e, "refused by the platform: not synchronized until it changes");
	} else {
		warn(s, e, "could not be sent");
	}
	cJSON_Delete(j);
	return done;
}

static bool refused(const struct entry *e)
{
	return e->refused && e->local_sha && strcmp(e->refused, e->local_sha) == 0;
}

/* The file of a document that is gone there, unless it has been changed this moment. */
static void remove_here(const struct pf_tool *t, struct store *s, struct entry *e)
{
	PF_BUF struct pf_buf content = {0}, answer = {0};
	char sha[SHA_LEN + 1] = "";

	if (read_file(t, s, e->rel, &content))
		sha256(content.data, content.len, sha);
	if (strcmp(sha, e->base) == 0 && inside(t, s, "_memory_remove", e->rel, NULL, 0, &answer) == 0)
		e->base[0] = '\0';
}

static void remove_there(
	struct pf_memory *m, const struct pf_tool *t, struct store *s, struct entry *e, bool last, int *left)
{
	PF_BUF struct pf_buf content = {0};
	int64_t now = pf_now_us();

	if (!e->gone_us)
		e->gone_us = now;
	if (!last && now - e->gone_us < DELETE_AFTER_MS * 1000)
		return;
	/* Is the directory still ours, and the file still gone? */
	struct pf_err ignored = PF_ERR_INIT;
	bool back = ask_helper(t, s, "_memory_get", e->rel, NULL, 0, &content, &ignored) == 0;
	pf_buf_done(&content);
	content = (struct pf_buf){0};
	PF_FREE char *ours = pf_asprintf("version 1\n%s", s->id);
	bool marked = ask_helper(t, s, "_memory_get", MARKER, NULL, 0, &content, &ignored) == 0 &&
		      content.len == strlen(ours) && memcmp(content.data, ours, content.len) == 0;
	if (back)
		e->gone_us = 0;
	if (back || !marked || *left <= 0)
		return;
	--*left;
	PF_FREE char *path = pf_asprintf(
		"/v1/memory_stores/%s/memories/%s?expected_content_sha256=%s", s->id, e->remote_id, e->base);
	long status = ask(m, "DELETE", path, NULL, NULL);
	if ((status >= 200 && status < 300) || status == 404) {
		e->base[0] = '\0';
		e->gone_us = 0;
	} else {
		warn(s, e,
			status == 409 || status == 412 ? "removed here, changed there: kept"
						       : "could not be removed");
	}
}

/* One path; what is to be fetched is only noted. */
static void reconcile(struct pf_memory *m, const struct pf_tool *t, struct store *s, struct entry *e)
{
	bool changed_there = e->remote && strcmp(e->remote_sha, e->base) != 0;
	bool edited = e->local && strcmp(e->local_sha, e->base) != 0 &&
		      (!e->remote || strcmp(e->local_sha, e->remote_sha) != 0);

	if (e->local)
		e->gone_us = 0;
	if (!e->remote) {
		if (e->local && *e->base && !edited) {
			remove_here(t, s, e);
		} else if (e->local && !s->read_only && !refused(e)) {
			if (!upload(m, t, s, e, false))
				e->base[0] = '\0';
		} else {
			e->base[0] = '\0';
		}
		return;
	}
	if (!e->local && *e->base) {
		if (changed_there)
			warn(s, e, "removed here, changed there: fetched again");
		e->pull = changed_there;
		return;
	}
	if (changed_there) {
		if (e->local && strcmp(e->local_sha, e->remote_sha) == 0) {
			set_sha(e->base, e->remote_sha);
			return;
		}
		if (edited)
			warn(s, e, "changed on both sides; the platform's counts");
		e->pull = true;
	} else if (edited && !s->read_only && !refused(e)) {
		(void)upload(m, t, s, e, true);
	}
}

static void pull(struct pf_memory *m, const struct pf_tool *t, struct store *s)
{
	for (size_t i = 0; i < s->n && !over(m); i++) {
		struct entry *e = &s->entries[i];
		if (!e->pull)
			continue;
		PF_FREE char *path =
			pf_asprintf("/v1/memory_stores/%s/memories/%s?view=full", s->id, e->remote_id);
		cJSON *j;
		long status = ask(m, "GET", path, NULL, &j);
		if (status == 200 && strlen(member(j, "content_sha256")) == SHA_LEN &&
			write_file(t, s, e->rel, j))
			set_sha(e->base, member(j, "content_sha256"));
		else if (status != 404)
			warn(s, e, "could not be fetched");
		cJSON_Delete(j);
	}
}

static void sync_store(struct pf_memory *m, const struct pf_tool *t, struct store *s, bool last)
{
	size_t known = 0;

	if (scan(t, s) < 0)
		return;
	if (!s->marked) {
		if (n_local(s))
			pf_wlog("warning", "memory %s: %s has no mark of ours: left as it is", s->id,
				s->root);
		else
			recover(m, t, s, "the directory or its mark is gone");
		return;
	}
	if (look_there(m, s) < 0) {
		pf_wlog("warning", "memory %s: the store cannot be listed", s->id);
		return;
	}
	for (size_t i = 0; i < s->n; i++)
		known += *s->entries[i].base != '\0';
	if (n_local(s) == 0 && known > 1) {
		recover(m, t, s, "every file is gone at once");
		return;
	}
	int left = (int)(known / 4) < DELETES_MIN ? DELETES_MIN : (int)(known / 4);
	left = left > DELETES_MAX ? DELETES_MAX : left;
	for (size_t i = 0; i < s->n && !over(m); i++) {
		struct entry *e = &s->entries[i];
		if (!e->local && *e->base && e->remote && strcmp(e->remote_sha, e->base) == 0 &&
			!s->read_only)
			remove_there(m, t, s, e, last, &left);
		else
			reconcile(m, t, s, e);
	}
	pull(m, t, s);
}

static void flush_store(struct pf_memory *m, const struct pf_tool *t, struct store *s)
{
	bool dirty = false;

	if (s->read_only || scan(t, s) < 0 || !s->marked)
		return;
	for (size_t i = 0; i < s->n; i++) {
		const struct entry *e = &s->entries[i];
		dirty = dirty || (e->local && strcmp(e->local_sha, e->base) != 0 && !refused(e));
	}
	if (!dirty || look_there(m, s) < 0)
		return;
	for (size_t i = 0; i < s->n; i++) {
		struct entry *e = &s->entries[i];
		if (!e->local || strcmp(e->local_sha, e->base) == 0 || refused(e) ||
			(e->remote && strcmp(e->remote_sha, e->local_sha) == 0))
			continue;
		if (over(m))
			warn(s, e, "not sent: the time is over");
		else if (e->remote && strcmp(e->remote_sha, e->base) != 0)
			warn(s, e, "changed on both sides; the platform's counts");
		else
			(void)upload(m, t, s, e, e->remote);
	}
}

void pf_memory_sync(struct pf_memory *m, const struct pf_tool *t, enum pf_memory_pass pass, int64_t ms)
{
	if (pass == PF_MEMORY_DUE && pf_now_us() - m->synced_us < SYNC_MS * 1000)
		return;
	m->deadline_us = pf_now_us() + ms * 1000;
	m->over_us = 0;
	m->last = pass != PF_MEMORY_DUE;
	for (size_t i = 0; i < m->n_stores; i++)
		if (over(m))
			pf_wlog("warning", "memory %s: not looked at: the time is over", m->stores[i].id);
		else if (pass == PF_MEMORY_FLUSH)
			flush_store(m, t, &m->stores[i]);
		else
			sync_store(m, t, &m->stores[i], pass == PF_MEMORY_LAST);
	m->synced_us = pf_now_us();
}

/* ---- begin and end ---- */

bool pf_memory_wanted(const cJSON *session)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(session, "resources"))
	{
		if (strcmp(member(item, "type"), "memory_store") == 0)
			return true;
	}
	return false;
}

/* Where a store's files are: its mount path as it is, or below the working directory. malloc'ed, or NULL. */
static char *root_of(const cJSON *item)
{
	const char *mount = member(item, "mount_path"), *name = member(item, "name");

	if (*mount) {
		PF_FREE char *ends = pf_asprintf("%s/", mount);
		return *mount == '/' && mount[1] && !strstr(ends, "/../") ? pf_strdup(mount) : NULL;
	}
	if (!*name || strchr(name, '/') || *name == '.')
		name = member(item, "memory_store_id");
	return pf_asprintf("memory/%s", name);
}

struct pf_memory *pf_memory_new(const char *base_url, const char *agent, const char *token,
	const cJSON *session, struct pf_http_over ends, struct pf_err *err)
{
	const cJSON *resources = cJSON_GetObjectItemCaseSensitive(session, "resources"), *item;
	struct pf_memory *m = pf_calloc(1, sizeof(*m));
	size_t n = (size_t)cJSON_GetArraySize(resources);

	m->stores = pf_calloc(n + 1, sizeof(*m->stores));
	m->args = pf_calloc(2 * n + 1, sizeof(*m->args));
	if (!token) {
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the session has a memory store, and the work item no token to reach it with");
		goto failed;
	}
	m->token = pf_strdup(token);
	cJSON_ArrayForEach(item, resources)
	{
		struct store *s = &m->stores[m->n_stores];
		if (strcmp(member(item, "type"), "memory_store") != 0)
			continue;
		if (pf_check_id("memory store", member(item, "memory_store_id"), err) < 0)
			goto failed;
		s->root = root_of(item);
		if (!s->root) {
			pf_fail_kind(err, PF_ERR_INVALID, 0,
				"memory store %s: its mount_path is no clean absolute path",
				member(item, "memory_store_id"));
			goto failed;
		}
		s->m = m;
		s->id = pf_strdup(member(item, "memory_store_id"));
		s->read_only = strcmp(member(item, "access"), "read_only") == 0;
		m->args[2 * m->n_stores] = s->read_only ? "--read-only-root" : "--root";
		m->args[2 * m->n_stores + 1] = s->root;
		m->n_stores++;
	}
	m->ends = ends;
	m->http = pf_http_new(base_url, agent, err);
	if (m->http) {
		pf_http_ends_with(m->http, (struct pf_http_over){.is = requests_over, .arg = m});
		return m;
	}
failed:
	pf_memory_free(m);
	return NULL;
}

const char *const *pf_memory_roots(const struct pf_memory *m)
{
	return m->args;
}

int pf_memory_download(struct pf_memory *m, const struct pf_tool *t, struct pf_err *err)
{
	m->deadline_us = INT64_MAX;
	for (size_t i = 0; i < m->n_stores; i++) {
		struct store *s = &m->stores[i];
		PF_BUF struct pf_buf answer = {0};
		if (ask_helper(t, s, "_memory_make", NULL, NULL, 0, &answer, err) < 0)
			return pf_wrap(err,
				"memory store %s: make its directory, which must not be there and must "
				"be writable",
				s->id);
		if (stamp_and_pull(m, t, s) < 0)
			return pf_fail(err, 0, "memory store %s cannot be fetched", s->id);
		pf_wlog("info", "memory %s: %zu documents in %s%s", s->id, s->n, s->root,
			s->read_only ? ", read-only" : "");
	}
	m->synced_us = pf_now_us();
	return 0;
}

void pf_memory_drop(struct pf_memory *m, const struct pf_tool *t)
{
	m->deadline_us = pf_now_us() + DROP_MS * 1000;
	m->over_us = 0;
	m->last = true;
	for (size_t i = 0; i < m->n_stores; i++) {
		PF_BUF struct pf_buf answer = {0};
		(void)inside(t, &m->stores[i], "_memory_drop", NULL, NULL, 0, &answer);
	}
}

void pf_memory_free(struct pf_memory *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_stores; i++) {
		struct store *s = &m->stores[i];
		for (size_t k = 0; k < s->n; k++) {
			struct entry *e = &s->entries[k];
			free(e->rel);
			free(e->refused);
			free(e->mark);
			free(e->local_sha);
			free(e->remote_id);
		}
		free(s->entries);
		free(s->id);
		free(s->root);
	}
	if (m->token)
		explicit_bzero(m->token, strlen(m->token));
	free(m->token);
	free(m->stores);
	free(m->args);
	pf_http_free(m->http);
	free(m);
}
