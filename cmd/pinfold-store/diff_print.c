/* Theory of operation: names, attributes and texts come from a sandbox and may hold anything. Names are
 * quoted as git quotes them; the lines of a text are written as they are into a file or pipe, where a patch
 * needs them so, but to a terminal with every control character made visible, which it would obey otherwise.
 * What patch(1) and git do not know (owners, attributes, directories) stands in lines of words between the
 * patches, which both of them skip. */
#include "cmd/pinfold-store/diff_print.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/textdiff.h"
#include "checkpoint/xattrs.h"

struct pf_diff_printer {
	enum pf_diff_style style;
	size_t context;
	bool terminal, colour;
	cJSON *list;
};

struct content {
	char *data;
	size_t len;
	bool whole; /* else it is too long, and data its beginning */
};

struct pf_diff_printer *pf_diff_printer_new(enum pf_diff_style style, size_t context)
{
	struct pf_diff_printer *p = pf_calloc(1, sizeof(*p));
	const char *no = getenv("NO_COLOR");

	p->style = style;
	p->context = context;
	p->terminal = isatty(STDOUT_FILENO) == 1;
	p->colour = p->terminal && !(no && *no);
	if (style == PF_DIFF_JSON)
		p->list = cJSON_CreateArray();
	return p;
}

void pf_diff_printer_free(struct pf_diff_printer *p)
{
	cJSON_Delete(p->list);
	free(p);
}

/* ---- pieces ---- */

static void print_quoted(const char *prefix, const char *s, size_t len)
{
	PF_BUF struct pf_buf b = {0};

	pf_quote_name(&b, prefix, s, len);
	(void)fwrite(b.data ? b.data : "", 1, b.len, stdout);
}

static void print_name(const char *prefix, const char *path)
{
	print_quoted(prefix, path, strlen(path));
}

static void colour(const struct pf_diff_printer *p, char mark)
{
	const char *code = mark == 'h'   ? "1"
			   : mark == '@' ? "36"
			   : mark == '-' ? "31"
			   : mark == '+' ? "32"
					 : NULL;

	if (p->colour && code)
		printf("\033[%sm", code);
}

static void end_line(const struct pf_diff_printer *p)
{
	fputs(p->colour ? "\033[m\n" : "\n", stdout);
}

/* The lines of a text. What a terminal would obey is shown as an octal number. */
static int print_line(void *ctx, char mark, const char *text, size_t len, struct pf_err *err)
{
	const struct pf_diff_printer *p = ctx;
	bool valid = pf_utf8_valid(text, len);

	(void)err;
	colour(p, mark);
	if (mark != '@')
		putchar(mark);
	if (!p->terminal)
		fwrite(text, 1, len, stdout);
	for (size_t i = 0; p->terminal && i < len; i++)
		if ((pf_is_control(text, len, i) && text[i] != '\t') ||
			((unsigned char)text[i] >= 0x80 && !valid))
			printf("\\%03o", (unsigned char)text[i]);
		else
			putchar(text[i]);
	end_line(p);
	return 0;
}

static void head(const struct pf_diff_printer *p, const char *text)
{
	colour(p, 'h');
	fputs(text, stdout);
}

/* ---- what is not text ---- */

static const char *type_name(char t)
{
	return t == 'f' ? "file" : t == 'd' ? "dir" : t == 'l' ? "symlink" : "other";
}

static const char *type_words(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "Directory";
	case S_IFIFO:
		return "FIFO";
	case S_IFSOCK:
		return "Socket";
	case S_IFCHR:
	case S_IFBLK:
		return "Device";
	case S_IFLNK:
		return "Symbolic link";
	default:
		return "File";
	}
}

static void print_value(const struct pf_xattr *x)
{
	if (!x)
		fputs("nothing", stdout);
	else if (x->len > 200)
		printf("%zu bytes", x->len);
	else
		print_quoted("", x->value, x->len);
}

struct about {
	const struct pf_diff_printer *p;
	const char *path;
	cJSON *names;
};

static void print_xattr(void *ctx, const struct pf_xattr *a, const struct pf_xattr *b)
{
	const struct about *at = ctx;

	head(at->p, "Attribute ");
	print_name("", a ? a->name : b->name);
	fputs(" of ", stdout);
	print_name("", at->path);
	fputs(" changed: ", stdout);
	print_value(a);
	fputs(" to ", stdout);
	print_value(b);
	end_line(at->p);
}

static void list_xattr(void *ctx, const struct pf_xattr *a, const struct pf_xattr *b)
{
	const char *name = a ? a->name : b->name;
	PF_JSON cJSON *j = cJSON_CreateObject();

	pf_json_add_bytes(j, "name", name, strlen(name));
	cJSON_AddItemToArray(((struct about *)ctx)->names, cJSON_DetachItemFromObject(j, "name"));
}

/* Attributes of both sides, where there are any. */
static int compare_xattrs(const struct pf_diff_entry *e,
	void (*fn)(void *ctx, const struct pf_xattr *a, const struct pf_xattr *b), void *ctx,
	struct pf_err *err)
{
	PF_CLEANUP(pf_xattrs_done) struct pf_xattrs a = {0}, b = {0};

	if ((e->from && pf_xattrs_read(e->from->dirfd, e->from->name, e->path, &a, err) < 0) ||
		(e->to && pf_xattrs_read(e->to->dirfd, e->to->name, e->path, &b, err) < 0))
		return -1;
	(void)pf_xattrs_compare(&a, &b, fn, ctx);
	return 0;
}

/* What a patch has no words for. */
static int print_meta(const struct pf_diff_printer *p, const struct pf_diff_entry *e, struct pf_err *err)
{
	const struct stat *a = e->from ? &e->from->st : NULL, *b = e->to ? &e->to->st : NULL;
	const struct stat *one = b ? b : a;
	struct about at = {p, e->path, NULL};

	if (!one)
		return 0;
	bool patch = S_ISREG(one->st_mode) || S_ISLNK(one->st_mode);
	if (!a != !b && !patch) {
		head(p, type_words(one->st_mode));
		putchar(' ');
		print_name("", e->path);
		printf(" %s", b ? "added" : "deleted");
		if (b)
			printf(": mode %04o", one->st_mode & 07777U);
		end_line(p);
	}
	if (b && !a && (b->st_uid || b->st_gid)) {
		head(p, "Owner of ");
		print_name("", e->path);
		printf(": %u:%u", b->st_uid, b->st_gid);
		end_line(p);
	}
	if (a && b && e->what & PF_DIFF_OWNER) {
		head(p, "Owner of ");
		print_name("", e->path);
		printf(" changed: %u:%u to %u:%u", a->st_uid, a->st_gid, b->st_uid, b->st_gid);
		end_line(p);
	}
	if (a && b && e->what & PF_DIFF_MODE && !patch) {
		head(p, "Mode of ");
		print_name("", e->path);
		printf(" changed: %04o to %04o", a->st_mode & 07777U, b->st_mode & 07777U);
		end_line(p);
	}
	if (e->what & PF_DIFF_CONTENT && !patch) {
		head(p, type_words(one->st_mode));
		putchar(' ');
		print_name("", e->path);
		fputs(" changed", stdout);
		end_line(p);
	}
	return b ? compare_xattrs(e, print_xattr, &at, err) : 0;
}

/* ---- texts ---- */

static int read_content(const struct pf_diff_at *at, const char *path, struct content *c, struct pf_err *err)
{
	struct stat st;

	c->whole = true;
	if (!at)
		return 0;
	if (S_ISLNK(at->st.st_mode)) {
		c->data = pf_calloc(1, 4097);
		ssize_t n = readlinkat(at->dirfd, at->name, c->data, 4096);
		if (n < 0)
			return pf_fail(err, errno, "readlink %s", path);
		c->len = (size_t)n;
		return 0;
	}
	PF_CLOSE int fd = openat(at->dirfd, at->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return pf_fail(err, 0, "%s became another thing while it was compared", path);
	c->whole = (uint64_t)st.st_size <= PF_TEXTDIFF_MAX;
	size_t want = c->whole ? (size_t)st.st_size : 8000;
	c->data = malloc(want + 1);
	if (!c->data)
		return pf_fail(err, ENOMEM, "%s", path);
	ssize_t n = pf_read_full(fd, c->data, want);
	if (n < 0)
		return pf_fail(err, errno, "read %s", path);
	c->len = (size_t)n;
	return 0;
}

static void content_done(struct content *c)
{
	free(c->data);
}

static void print_side(const char *prefix, bool there, const char *path)
{
	if (there)
		print_name(prefix, path);
	else
		fputs("/dev/null", stdout);
}

static void print_no_text(const struct pf_diff_printer *p, const struct pf_diff_entry *e, const char *words)
{
	char old[16], new[16];

	head(p, words);
	print_side("a", e->from, e->path);
	fputs(" and ", stdout);
	print_side("b", e->to, e->path);
	printf(" differ (%s to %s)", pf_format_size(e->from ? e->from->st.st_size : 0, old, sizeof(old)),
		pf_format_size(e->to ? e->to->st.st_size : 0, new, sizeof(new)));
	end_line(p);
}

struct hunks {
	const struct pf_diff_printer *p;
	const struct pf_diff_entry *e;
	bool begun;
};

/* The names stand before the first hunk, and not at all before none: an empty file has no hunk. */
static int print_hunk_line(void *ctx, char mark, const char *text, size_t len, struct pf_err *err)
{
	struct hunks *h = ctx;

	/* As diff and git do it: a name with a blank ends with a tab, or patch takes half of it. */
	const char *tab = strchr(h->e->path, ' ') ? "\t" : "";

	if (!h->begun) {
		h->begun = true;
		head(h->p, "--- ");
		print_side("a", h->e->from, h->e->path);
		fputs(h->e->from ? tab : "", stdout);
		end_line(h->p);
		head(h->p, "+++ ");
		print_side("b", h->e->to, h->e->path);
		fputs(h->e->to ? tab : "", stdout);
		end_line(h->p);
	}
	return print_line((void *)h->p, mark, text, len, err);
}

/* As git writes it; a link has no mode. */
static unsigned patch_mode(const struct pf_diff_at *at)
{
	return !at ? 0 : S_ISLNK(at->st.st_mode) ? S_IFLNK : at->st.st_mode;
}

/* A patch of one name whose type is the same on both sides, or that is on one alone. */
static int print_patch(const struct pf_diff_printer *p, const struct pf_diff_entry *e, struct pf_err *err)
{
	PF_CLEANUP(content_done) struct content a = {0}, b = {0};
	struct hunks h = {p, e, false};
	const struct pf_textdiff_sink sink = {print_hunk_line, &h};
	unsigned old = patch_mode(e->from), new = patch_mode(e->to);

	if (old && new && !(e->what & (PF_DIFF_CONTENT | PF_DIFF_MODE)))
		return 0;
	head(p, "diff --git ");
	print_name("a", e->path);
	putchar(' ');
	print_name("b", e->path);
	end_line(p);
	if (old != new) {
		colour(p, 'h');
		if (!old || !new)
			printf("%s file mode %06o", old ? "deleted" : "new", old ? old : new);
		else
			printf("old mode %06o\nnew mode %06o", old, new);
		end_line(p);
	}
	if (old && new && !(e->what & PF_DIFF_CONTENT))
		return 0;
	if (read_content(e->from, e->path, &a, err) < 0 || read_content(e->to, e->path, &b, err) < 0)
		return -1;
	if (pf_textdiff_binary(a.data ? a.data : "", a.len) ||
		pf_textdiff_binary(b.data ? b.data : "", b.len))
		print_no_text(p, e, "Binary files ");
	else if (!a.whole || !b.whole)
		print_no_text(p, e, "Files too large to be compared by lines, ");
	else
		return pf_textdiff(
			a.data ? a.data : "", a.len, b.data ? b.data : "", b.len, p->context, &sink, err);
	return 0;
}

static bool in_patch(const struct pf_diff_at *at)
{
	return at && (S_ISREG(at->st.st_mode) || S_ISLNK(at->st.st_mode));
}

static int print_unified(const struct pf_diff_printer *p, const struct pf_diff_entry *e, struct pf_err *err)
{
	/* Another type: the one goes, the other comes. */
	if (e->what & PF_DIFF_TYPE) {
		struct pf_diff_entry gone = *e, come = *e;
		gone.to = come.from = NULL;
		gone.what = come.what = 0;
		return print_unified(p, &gone, err) < 0 ? -1 : print_unified(p, &come, err);
	}
	if (print_meta(p, e, err) < 0)
		return -1;
	return in_patch(e->to ? e->to : e->from) ? print_patch(p, e, err) : 0;
}

/* ---- JSON ---- */

static void add_what(cJSON *j, unsigned what)
{
	static const char *const names[] = {"type", "content", "mode", "owner", "xattrs"};
	cJSON *list = cJSON_AddArrayToObject(j, "what");

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (what & 1U << i)
			cJSON_AddItemToArray(list, cJSON_CreateString(names[i]));
}

static void add_stat(cJSON *j, const char *prefix, const struct stat *st)
{
	char text[32], key[32];

	snprintf(text, sizeof(text), "%04o", st->st_mode & 07777U);
	snprintf(key, sizeof(key), "%smode", prefix);
	cJSON_AddStringToObject(j, key, text);
	snprintf(text, sizeof(text), "%u:%u", st->st_uid, st->st_gid);
	snprintf(key, sizeof(key), "%sowner", prefix);
	cJSON_AddStringToObject(j, key, text);
}

static int add_json(struct pf_diff_printer *p, const struct pf_diff_entry *e, struct pf_err *err)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddItemToArray(p->list, j);
	cJSON_AddStringToObject(j, "change",
		e->change == 'A'   ? "added"
		: e->change == 'D' ? "deleted"
				   : "changed");
	pf_json_add_bytes(j, "path", e->path, strlen(e->path));
	cJSON_AddStringToObject(j, "type", type_name(e->new ? e->new : e->old));
	if (e->old && e->new && e->old != e->new)
		cJSON_AddStringToObject(j, "old_type", type_name(e->old));
	if (e->old == 'f')
		pf_json_add_int(j, "old_size", e->old_size);
	if (e->new == 'f')
		pf_json_add_int(j, "size", e->new_size);
	if (e->change == 'C')
		add_what(j, e->what);
	if (e->from && e->what & (PF_DIFF_MODE | PF_DIFF_OWNER))
		add_stat(j, "old_", &e->from->st);
	if (e->to)
		add_stat(j, "", &e->to->st);
	if (!(e->what & PF_DIFF_XATTRS))
		return 0;
	struct about at = {p, e->path, cJSON_AddArrayToObject(j, "xattrs")};
	return compare_xattrs(e, list_xattr, &at, err);
}

static void print_json_sum(struct pf_diff_printer *p, const struct pf_diff_sum *s)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddItemToObject(j, "entries", pf_take(p->list));
	cJSON *sum = cJSON_AddObjectToObject(j, "summary");
	pf_json_add_int(sum, "added", s->added);
	pf_json_add_int(sum, "changed", s->changed);
	pf_json_add_int(sum, "deleted", s->deleted);
	pf_json_add_int(sum, "added_bytes", s->added_bytes);
	pf_json_add_int(sum, "deleted_bytes", s->deleted_bytes);
	pf_json_add_int(sum, "changed_old_bytes", s->changed_old_bytes);
	pf_json_add_int(sum, "changed_new_bytes", s->changed_new_bytes);
	PF_FREE char *text = pf_json_text(j);
	puts(text);
}

/* ---- all ---- */

int pf_diff_print(void *ctx, const struct pf_diff_entry *e, struct pf_err *err)
{
	struct pf_diff_printer *p = ctx;

	if (p->style == PF_DIFF_UNIFIED)
		return print_unified(p, e, err);
	if (p->style == PF_DIFF_JSON)
		return add_json(p, e, err);
	if (p->style == PF_DIFF_STAT) {
		int64_t by = e->new_size - e->old_size;
		printf("%c %+12" PRId64 "  ", e->change, by);
	}
	print_name("", e->path);
	if (p->style == PF_DIFF_STAT && (e->new ? e->new : e->old) == 'd')
		putchar('/');
	putchar('\n');
	return 0;
}

void pf_diff_print_sum(struct pf_diff_printer *p, const struct pf_diff_sum *s)
{
	char a[16], d[16], c0[16], c1[16];

	if (p->style == PF_DIFF_JSON)
		print_json_sum(p, s);
	if (p->style != PF_DIFF_STAT)
		return;
	printf("%" PRId64 " added (%s), %" PRId64 " changed (%s to %s), %" PRId64 " deleted (%s)\n", s->added,
		pf_format_size(s->added_bytes, a, sizeof(a)), s->changed,
		pf_format_size(s->changed_old_bytes, c0, sizeof(c0)),
		pf_format_size(s->changed_new_bytes, c1, sizeof(c1)), s->deleted,
		pf_format_size(s->deleted_bytes, d, sizeof(d)));
}
