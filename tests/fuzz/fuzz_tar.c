/* A tar stream, as a layer or an image comes from somebody else: what is delivered are members with a name,
 * of a type that there is, and data in order, within the size. The first byte says how the source comes in
 * pieces, and how much of the data is asked for. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "overlay/tarread.h"
#include "tests/helpers/memory_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* So that every byte that is given is read, and looked at by the sanitizer. */
static volatile unsigned seen;

static void check(bool right)
{
	if (!right)
		abort();
}

static void check_entry(const struct pf_tar_entry *e)
{
	int64_t end = 0;

	check(e->type >= '0' && e->type <= '6' && e->path && *e->path && e->size >= 0);
	check((e->link != NULL) == (e->type == '1' || e->type == '2'));
	check(e->mode <= 07777 && e->mtime.tv_nsec >= 0 && e->mtime.tv_nsec < 1000000000);
	for (size_t i = 0; i < e->n_xattrs; i++)
		check(e->xattrs[i].name && *e->xattrs[i].name && e->xattrs[i].value);
	for (size_t i = 0; i < e->n_extents; i++) {
		check(e->extents[i].offset >= end && e->extents[i].len >= 0);
		check(e->extents[i].len <= e->size - e->extents[i].offset);
		end = e->extents[i].offset + e->extents[i].len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	const struct pf_tar_entry *e;
	int r = 0;

	if (len < 1)
		return 0;
	struct memory m = {data + 1, len - 1, 0, data[0] & 1 ? 1 + data[0] / 2 : len};
	struct pf_tar *t = pf_tar_new(give, &m);
	while ((r = pf_tar_next(t, &e, &err)) == 1) {
		const void *piece;
		int64_t offset, at = 0, size = e->size;
		ssize_t n = 0;
		check_entry(e);
		while (!(data[0] & 2) && (n = pf_tar_data(t, &piece, &offset, &err)) > 0) {
			check(offset >= at && n <= size - offset);
			at = offset + n;
			for (ssize_t i = 0; i < n; i++)
				seen += ((const uint8_t *)piece)[i];
		}
		if (n < 0)
			break;
	}
	if (r == 0 && !err.msg[0])
		check(pf_tar_drain(t, &err) == 0 && m.at == m.len);
	else
		check(err.msg[0] != '\0');
	pf_tar_free(t);
	return 0;
}
