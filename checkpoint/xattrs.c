/* Theory of operation: attributes are read by name through /proc/self/fd, because what is not a file or
 * directory cannot be opened for it. The kernel bounds a list and a value to 64 KiB each. */
#include "checkpoint/xattrs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/tree.h"

#define XATTR_MAX ((size_t)64 << 10)

void pf_xattrs_done(struct pf_xattrs *x)
{
	for (size_t i = 0; i < x->n; i++) {
		free(x->v[i].name);
		free(x->v[i].value);
	}
	free(x->v);
	*x = (struct pf_xattrs){0};
}

static int cmp_names(const void *a, const void *b)
{
	return strcmp(((const struct pf_xattr *)a)->name, ((const struct pf_xattr *)b)->name);
}

static int add(struct pf_xattrs *x, const char *file, const char *name, const char *path, struct pf_err *err)
{
	char small[256];
	PF_FREE char *big = NULL;
	char *value = small;
	ssize_t len = lgetxattr(file, name, small, sizeof(small));

	if (len < 0 && errno == ERANGE) {
		value = big = pf_calloc(1, XATTR_MAX);
		len = lgetxattr(file, name, big, XATTR_MAX);
	}
	if (len < 0 && errno == ENODATA)
		return 0; /* it went meanwhile */
	if (len < 0)
		return pf_fail(err, errno, "attribute %s of %s", name, path);
	struct pf_xattr *v = realloc(x->v, (x->n + 1) * sizeof(*v));
	if (!v)
		abort();
	x->v = v;
	v[x->n] = (struct pf_xattr){pf_strdup(name), pf_calloc(1, (size_t)len + 1), (size_t)len};
	memcpy(v[x->n++].value, value, (size_t)len);
	return 0;
}

int pf_xattrs_read(int dirfd, const char *name, const char *path, struct pf_xattrs *out, struct pf_err *err)
{
	char small[1024];
	PF_FREE char *big = NULL, *file = pf_asprintf("/proc/self/fd/%d/%s", dirfd, name);
	char *list = small;
	ssize_t len = llistxattr(file, small, sizeof(small));

	*out = (struct pf_xattrs){0};
	if (len < 0 && errno == ERANGE) {
		list = big = pf_calloc(1, XATTR_MAX);
		len = llistxattr(file, big, XATTR_MAX);
	}
	if (len < 0)
		return errno == EOPNOTSUPP ? 0 : pf_fail(err, errno, "attributes of %s", path);
	for (char *p = list; p < list + len; p += strlen(p) + 1)
		if (pf_tree_xattr_ok(p) && add(out, file, p, path, err) < 0) {
			pf_xattrs_done(out);
			return -1;
		}
	if (out->n > 1)
		qsort(out->v, out->n, sizeof(*out->v), cmp_names);
	return 0;
}

size_t pf_xattrs_compare(const struct pf_xattrs *a, const struct pf_xattrs *b,
	void (*fn)(void *ctx, const struct pf_xattr *a, const struct pf_xattr *b), void *ctx)
{
	size_t i = 0, k = 0, differ = 0;

	while (i < a->n || k < b->n) {
		const struct pf_xattr *va = i < a->n ? &a->v[i] : NULL, *vb = k < b->n ? &b->v[k] : NULL;
		int order = !va ? 1 : !vb ? -1 : strcmp(va->name, vb->name);
		va = order <= 0 ? va : NULL;
		vb = order >= 0 ? vb : NULL;
		i += va != NULL;
		k += vb != NULL;
		if (va && vb && va->len == vb->len && memcmp(va->value, vb->value, va->len) == 0)
			continue;
		differ++;
		if (fn)
			fn(ctx, va, vb);
	}
	return differ;
}
