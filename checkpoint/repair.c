/* Theory of operation: the index of checkpoints says nothing that their manifests do not say, but for two
 * things: which were imported, and names that import gave. So it can be made again from them. Whose word a
 * manifest is cannot be told any more, hence all count as imported, which costs an option of create; and of
 * two with one name the older has it. One that cannot be read is listed by its digest alone, so that gc goes
 * on keeping what it may need until somebody removes it. */
#include "checkpoint/repair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/heavy.h"

struct found {
	struct pf_ckpt c;
	struct pf_digest digest;
	bool damaged;
};

struct list {
	struct found *v;
	size_t n;
};

static void list_done(struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		pf_ckpt_done(&l->v[i].c);
	free(l->v);
}

static const char *created(const struct found *f)
{
	return f->c.created ? f->c.created : "";
}

static int by_time(const void *a, const void *b)
{
	int d = strcmp(created(a), created(b));

	return d ? d : strcmp(((const struct found *)a)->digest.s, ((const struct found *)b)->digest.s);
}

static int add(struct list *l, int storefd, const char *hex, struct pf_err *err)
{
	struct pf_err why = PF_ERR_INIT;
	struct found f = {0};

	if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
		return 0;
	(void)snprintf(f.digest.s, sizeof(f.digest.s), "sha256:%s", hex);
	f.damaged = pf_ckpt_load(storefd, f.digest.s, NULL, &f.c, &why) < 0;
	if (f.damaged && why.kind != PF_ERR_CORRUPT) {
		pf_ckpt_done(&f.c);
		*err = why;
		return -1;
	}
	struct found *more = reallocarray(l->v, l->n + 1, sizeof(*more));
	if (!more) {
		pf_ckpt_done(&f.c);
		return pf_fail(err, errno, "manifests");
	}
	l->v = more;
	l->v[l->n++] = f;
	return 0;
}

static int read_manifests(int storefd, struct list *l, struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, "manifests", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	struct dirent *e;

	if (!d)
		return pf_fail(err, errno, "manifests");
	while ((errno = 0, e = readdir(d)))
		if (add(l, storefd, e->d_name, err) < 0)
			return -1;
	if (errno)
		return pf_fail(err, errno, "manifests");
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_time);
	return 0;
}

static int write_index(int storefd, struct pf_ckpt_repaired *out, struct pf_err *err)
{
	static const char empty[] = "{\"version\":2,\"checkpoints\":[]}";
	PF_CLEANUP(list_done) struct list l = {0};
	PF_JSON cJSON *index = cJSON_Parse(empty);

	if (read_manifests(storefd, &l, err) < 0)
		return pf_wrap(err, "index.json cannot be made again");
	for (size_t i = 0; i < l.n; i++) {
		const struct pf_ckpt *c = &l.v[i].c;
		const char *name = pf_ckpt_index_str(c->record, "name");
		if (pf_ckpt_index_find(index, NULL, name))
			name = "";
		pf_ckpt_index_add(index, &l.v[i].digest, name, c->sandbox_id ? c->sandbox_id : "",
			created(&l.v[i]), c->sealed, true);
		out->damaged += l.v[i].damaged;
	}
	out->checkpoints = (int64_t)l.n;
	out->index = true;
	return pf_ckpt_index_write(storefd, index, err);
}

static int repair_index(const char *store, struct pf_ckpt_repaired *out, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	struct pf_err why = PF_ERR_INIT;

	if (pf_ckpt_heavy_open(store, false, true, &h, err) < 0)
		return -1;
	PF_CLOSE int lock = pf_ckpt_lock(h.storefd, err);
	if (lock < 0)
		return -1;
	PF_JSON cJSON *index = pf_ckpt_index_read(h.storefd, &why);
	if (index)
		return 0;
	if (why.kind != PF_ERR_CORRUPT) {
		*err = why;
		return -1;
	}
	return write_index(h.storefd, out, err);
}

int pf_ckpt_repair(
	const char *store, pf_packs_found *found, void *ctx, struct pf_ckpt_repaired *out, struct pf_err *err)
{
	*out = (struct pf_ckpt_repaired){0};
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CLOSE int lock = storefd < 0 ? -1 : pf_packs_lock(storefd, true, err);

	if (lock < 0 || pf_packs_repair(storefd, found, ctx, &out->packs, err) < 0)
		return -1;
	close(pf_take_fd(&lock));
	return repair_index(store, out, err);
}
