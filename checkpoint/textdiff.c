/* Theory of operation.
 *
 * Lines become numbers: equal lines, line end included, have the same one, found by a hash table whose hash
 * is keyed, because what a sandbox wrote must not be able to make it slow. Lines whose number the other side
 * does not have are changed for certain and are taken out; what remains is compared by Myers' O(ND) algorithm
 * in linear space: from both corners of the edit graph the furthest reaching paths are followed until they
 * meet, and what lies before and behind the meeting point is done in the same way. Two texts that have little
 * in common would cost the square of their length: after some hundred steps the best point so far is taken
 * as the meeting point. The result then is a correct diff that may not be the shortest. */
#include "checkpoint/textdiff.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/str.h"

#define MAX_STEPS 300

struct text {
	const char *data;
	uint32_t *start; /* n + 1 of them: where each line begins, and the end */
	uint32_t *id;
	uint8_t *changed;
	uint32_t n;
	/* The lines that the other side has too. */
	uint32_t *kept; /* numbers of lines */
	uint32_t *kept_id;
	uint32_t n_kept;
};

struct graph {
	struct text *a, *b;
	int32_t *fwd, *bwd; /* by diagonal x - y: how far a path has come; both point into the middle */
};

struct point {
	int32_t x, y;
};

bool pf_textdiff_binary(const char *data, size_t len)
{
	return memchr(data, '\0', len < 8000 ? len : 8000) != NULL;
}

/* ---- lines to numbers ---- */

static void split(struct text *t, size_t len)
{
	uint32_t n = 0;

	for (const char *p = t->data, *end = t->data + len; p < end; n++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		p = nl ? nl + 1 : end;
	}
	t->n = n;
	t->start = pf_calloc(n + 1, sizeof(*t->start));
	t->id = pf_calloc(n + 1, sizeof(*t->id));
	t->changed = pf_calloc(n + 1, 1);
	n = 0;
	for (const char *p = t->data, *end = t->data + len; p < end; n++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		t->start[n] = (uint32_t)(p - t->data);
		p = nl ? nl + 1 : end;
	}
	t->start[n] = (uint32_t)len;
}

static void text_done(struct text *t)
{
	free(t->start);
	free(t->id);
	free(t->changed);
	free(t->kept);
	free(t->kept_id);
}

static uint64_t hash(uint64_t key, const char *p, size_t len)
{
	uint64_t h = key;

	/* -ftrapv is about signed numbers; these wrap as they should. */
	for (size_t i = 0; i < len; i++) {
		h ^= (unsigned char)p[i];
		h *= 0x9e3779b97f4a7c15U;
		h ^= h >> 29;
	}
	return h ^ (h >> 32);
}

struct table {
	uint32_t *slot; /* 1 + index into lines; 0: free */
	struct {
		const char *p;
		uint32_t len;
		uint8_t sides; /* 1: in a, 2: in b */
	} * lines;
	uint32_t n, mask;
	uint64_t key;
};

static void number_lines(struct table *h, struct text *t, uint8_t side)
{
	for (uint32_t i = 0; i < t->n; i++) {
		const char *p = t->data + t->start[i];
		uint32_t len = t->start[i + 1] - t->start[i], at = (uint32_t)hash(h->key, p, len) & h->mask;
		while (h->slot[at] && (h->lines[h->slot[at] - 1].len != len ||
					      memcmp(h->lines[h->slot[at] - 1].p, p, len) != 0))
			at = (at + 1) & h->mask;
		if (!h->slot[at]) {
			h->lines[h->n].p = p;
			h->lines[h->n].len = len;
			h->slot[at] = ++h->n;
		}
		t->id[i] = h->slot[at] - 1;
		h->lines[t->id[i]].sides |= side;
	}
}

static void take_out(const struct table *h, struct text *t)
{
	t->kept = pf_calloc(t->n + 1, sizeof(*t->kept));
	t->kept_id = pf_calloc(t->n + 1, sizeof(*t->kept_id));
	for (uint32_t i = 0; i < t->n; i++) {
		if (h->lines[t->id[i]].sides != 3) {
			t->changed[i] = 1;
			continue;
		}
		t->kept[t->n_kept] = i;
		t->kept_id[t->n_kept++] = t->id[i];
	}
}

static void number(struct text *a, struct text *b)
{
	struct table h = {0};
	size_t size = 16;

	while (size < 2 * ((size_t)a->n + b->n))
		size *= 2;
	h.mask = (uint32_t)(size - 1);
	h.slot = pf_calloc(size, sizeof(*h.slot));
	h.lines = pf_calloc((size_t)a->n + b->n + 1, sizeof(*h.lines));
	/* Without random bytes the diff is as right, only not safe from being slow. */
	if (getrandom(&h.key, sizeof(h.key), GRND_NONBLOCK) != (ssize_t)sizeof(h.key))
		h.key = (uintptr_t)h.slot;
	number_lines(&h, a, 1);
	number_lines(&h, b, 2);
	take_out(&h, a);
	take_out(&h, b);
	free(h.slot);
	free(h.lines);
}

/* ---- Myers ---- */

struct box {
	int32_t x0, x1, y0, y1; /* of the kept lines */
};

/* The best of what was reached when it takes too long: the end of the path that has come furthest, seen from
 * its own corner. */
static struct point best_so_far(
	const struct graph *g, const struct box *o, const int32_t f[2], const int32_t r[2])
{
	struct point from = {o->x0, o->y0}, to = {o->x1, o->y1};

	for (int32_t d = f[0]; d <= f[1]; d += 2) {
		int32_t x = g->fwd[d] < o->x1 ? g->fwd[d] : o->x1, y = x - d;
		if (y > o->y1) {
			y = o->y1;
			x = d + y;
		}
		if (x >= o->x0 && y >= o->y0 && x + y > from.x + from.y)
			from = (struct point){x, y};
	}
	for (int32_t d = r[0]; d <= r[1]; d += 2) {
		int32_t x = g->bwd[d] > o->x0 ? g->bwd[d] : o->x0, y = x - d;
		if (y < o->y0) {
			y = o->y0;
			x = d + y;
		}
		if (x <= o->x1 && y <= o->y1 && x + y < to.x + to.y)
			to = (struct point){x, y};
	}
	return from.x + from.y - o->x0 - o->y0 >= o->x1 + o->y1 - to.x - to.y ? from : to;
}

/* Where an edit path through the box can be cut in two. */
static struct point meet(const struct graph *g, const struct box *o)
{
	const uint32_t *a = g->a->kept_id, *b = g->b->kept_id;
	const int32_t low = o->x0 - o->y1, high = o->x1 - o->y0;
	const int32_t fmid = o->x0 - o->y0, rmid = o->x1 - o->y1;
	const bool odd = ((fmid - rmid) & 1) != 0;
	int32_t f[2] = {fmid, fmid}, r[2] = {rmid, rmid};

	g->fwd[fmid] = o->x0;
	g->bwd[rmid] = o->x1;
	for (int32_t step = 1;; step++) {
		/* One diagonal more on each side, or one less where the box ends. */
		if (f[0] > low)
			g->fwd[--f[0] - 1] = -1;
		else
			f[0]++;
		if (f[1] < high)
			g->fwd[++f[1] + 1] = -1;
		else
			f[1]--;
		for (int32_t d = f[1]; d >= f[0]; d -= 2) {
			int32_t x = g->fwd[d - 1] < g->fwd[d + 1] ? g->fwd[d + 1] : g->fwd[d - 1] + 1;
			int32_t y = x - d;
			for (; x < o->x1 && y < o->y1 && a[x] == b[y]; y++)
				x++;
			g->fwd[d] = x;
			if (odd && d >= r[0] && d <= r[1] && g->bwd[d] <= x)
				return (struct point){x, y};
		}
		if (r[0] > low)
			g->bwd[--r[0] - 1] = INT32_MAX;
		else
			r[0]++;
		if (r[1] < high)
			g->bwd[++r[1] + 1] = INT32_MAX;
		else
			r[1]--;
		for (int32_t d = r[1]; d >= r[0]; d -= 2) {
			int32_t x = g->bwd[d - 1] < g->bwd[d + 1] ? g->bwd[d - 1] : g->bwd[d + 1] - 1;
			int32_t y = x - d;
			for (; x > o->x0 && y > o->y0 && a[x - 1] == b[y - 1]; y--)
				x--;
			g->bwd[d] = x;
			if (!odd && d >= f[0] && d <= f[1] && x <= g->fwd[d])
				return (struct point){x, y};
		}
		if (step >= MAX_STEPS)
			return best_so_far(g, o, f, r);
	}
}

/* The smaller half by recursion, the larger by going round: no deeper than log2 of the number of lines. */
static void compare(const struct graph *g, struct box o)
{
	const uint32_t *a = g->a->kept_id, *b = g->b->kept_id;

	for (;;) {
		for (; o.x0 < o.x1 && o.y0 < o.y1 && a[o.x0] == b[o.y0]; o.y0++)
			o.x0++;
		for (; o.x0 < o.x1 && o.y0 < o.y1 && a[o.x1 - 1] == b[o.y1 - 1]; o.y1--)
			o.x1--;
		if (o.x0 == o.x1 || o.y0 == o.y1)
			break;
		struct point p = meet(g, &o);
		struct box first = {o.x0, p.x, o.y0, p.y}, second = {p.x, o.x1, p.y, o.y1};
		if (p.x - o.x0 + p.y - o.y0 < o.x1 - p.x + o.y1 - p.y) {
			compare(g, first);
			o = second;
		} else {
			compare(g, second);
			o = first;
		}
	}
	for (; o.x0 < o.x1; o.x0++)
		g->a->changed[g->a->kept[o.x0]] = 1;
	for (; o.y0 < o.y1; o.y0++)
		g->b->changed[g->b->kept[o.y0]] = 1;
}

static void mark_changes(struct text *a, struct text *b)
{
	size_t span = (size_t)a->n_kept + b->n_kept + 3;
	PF_FREE int32_t *room = pf_calloc(2 * span, sizeof(*room));
	struct graph g = {a, b, room + b->n_kept + 1, room + span + b->n_kept + 1};

	compare(&g, (struct box){0, (int32_t)a->n_kept, 0, (int32_t)b->n_kept});
}

/* Where a run of changed lines could as well stand lower, because the line behind it is like its first one,
 * it does: as in other diffs, an inserted function then begins with its head and not with the brace before
 * it. */
static void slide(struct text *t, const struct text *other)
{
	uint32_t i = 0, k = 0; /* k: the line of other that belongs to line i */

	while (i < t->n) {
		if (!t->changed[i]) {
			while (k < other->n && other->changed[k])
				k++;
			i++;
			k++;
			continue;
		}
		uint32_t end = i;
		while (end < t->n && t->changed[end])
			end++;
		/* A replacement stays what it is, and no run goes past a change on the other side. */
		while (end < t->n && t->id[i] == t->id[end] && !(k < other->n && other->changed[k])) {
			t->changed[i++] = 0;
			t->changed[end++] = 1;
			k++;
			while (end < t->n && t->changed[end])
				end++;
		}
		i = end;
	}
}

/* ---- hunks ---- */

static int put_line(
	const struct pf_textdiff_sink *s, char mark, const struct text *t, uint32_t i, struct pf_err *err)
{
	const char *p = t->data + t->start[i];
	size_t len = t->start[i + 1] - t->start[i];
	bool ended = len > 0 && p[len - 1] == '\n';

	if (s->fn(s->ctx, mark, p, len - ended, err) < 0)
		return -1;
	return ended ? 0 : s->fn(s->ctx, '\\', " No newline at end of file", 26, err);
}

/* A range as it is written: the count is left out when it is one, and an empty one begins a line earlier. */
static void put_range(char *out, size_t size, uint32_t first, uint32_t n)
{
	if (n == 1)
		snprintf(out, size, "%u", first + 1);
	else
		snprintf(out, size, "%u,%u", n ? first + 1 : first, n);
}

struct hunk {
	uint32_t a0, a1, b0, b1;
};

static int put_hunk(const struct pf_textdiff_sink *s, const struct text *a, const struct text *b,
	struct hunk h, struct pf_err *err)
{
	char left[32], right[32], head[80];

	put_range(left, sizeof(left), h.a0, h.a1 - h.a0);
	put_range(right, sizeof(right), h.b0, h.b1 - h.b0);
	int n = snprintf(head, sizeof(head), "@@ -%s +%s @@", left, right);
	if (s->fn(s->ctx, '@', head, (size_t)n, err) < 0)
		return -1;
	while (h.a0 < h.a1 || h.b0 < h.b1) {
		int r;
		if (h.a0 < h.a1 && a->changed[h.a0]) {
			r = put_line(s, '-', a, h.a0++, err);
		} else if (h.b0 < h.b1 && b->changed[h.b0]) {
			r = put_line(s, '+', b, h.b0++, err);
		} else {
			r = put_line(s, ' ', a, h.a0++, err);
			h.b0++;
		}
		if (r < 0)
			return -1;
	}
	return 0;
}

static int put_hunks(const struct pf_textdiff_sink *s, const struct text *a, const struct text *b,
	size_t context, struct pf_err *err)
{
	uint32_t around = context > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)context, i = 0, k = 0;
	struct hunk h = {0};
	uint32_t same = 0; /* equal lines since the last change of the open hunk */
	bool open = false;

	while (i < a->n || k < b->n) {
		bool ca = i < a->n && a->changed[i], cb = k < b->n && b->changed[k];
		if (ca || cb) {
			if (!open) {
				uint32_t before = i < around ? i : around;
				h = (struct hunk){.a0 = i - before, .b0 = k - before};
			}
			open = true;
			same = 0;
			i += ca;
			k += !ca;
			h.a1 = i;
			h.b1 = k;
			continue;
		}
		i++;
		k++;
		/* Closer than twice the context, two changes are one hunk. */
		if (open && ++same > 2 * around) {
			h.a1 += around;
			h.b1 += around;
			if (put_hunk(s, a, b, h, err) < 0)
				return -1;
			open = false;
		}
	}
	if (!open)
		return 0;
	h.a1 += same < around ? same : around;
	h.b1 += same < around ? same : around;
	return put_hunk(s, a, b, h, err);
}

int pf_textdiff(const char *a, size_t a_len, const char *b, size_t b_len, size_t context,
	const struct pf_textdiff_sink *sink, struct pf_err *err)
{
	PF_CLEANUP(text_done) struct text ta = {.data = a}, tb = {.data = b};

	if (a_len > PF_TEXTDIFF_MAX || b_len > PF_TEXTDIFF_MAX)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "too large to be compared by lines");
	split(&ta, a_len);
	split(&tb, b_len);
	number(&ta, &tb);
	mark_changes(&ta, &tb);
	slide(&ta, &tb);
	slide(&tb, &ta);
	return put_hunks(sink, &ta, &tb, context, err);
}
