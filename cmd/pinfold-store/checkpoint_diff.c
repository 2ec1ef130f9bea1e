/* diff [--unified N | --json | --stat | --name-only] A [B]
 *
 * A and B are checkpoints (as `checkpoint inspect` takes them), or sandbox:ID:FD, the live files of a sandbox
 * whose upper directory was inherited as descriptor FD, or image:REF. Without B: what A changed against its
 * image. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/diff.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/unsealed.h"
#include "checkpoint/write.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/diff_print.h"
#include "cmd/pinfold-store/verbs.h"
#include "overlay/image.h"

#define VERB "diff"

/* One operand, resolved: what lies above the image, and which image. */
struct side {
	int *fds; /* topmost first, all ours */
	size_t n;
	char *image; /* reference */
	int hold;    /* so that nobody takes away what is unpacked of sealed layers; -1: none of it */
};
#define SIDE_NONE ((struct side){.hold = -1})

static void side_done(struct side *s)
{
	for (size_t i = 0; i < s->n; i++)
		close(s->fds[i]);
	free(s->fds);
	free(s->image);
	if (s->hold >= 0)
		close(s->hold);
	*s = SIDE_NONE;
}

static void add_fd(struct side *s, int fd)
{
	int *fds = realloc(s->fds, (s->n + 1) * sizeof(*fds));

	if (!fds)
		abort();
	s->fds = fds;
	s->fds[s->n++] = fd;
}

static int add_dir(struct side *s, int dirfd, const char *path, struct pf_err *err)
{
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return pf_fail(err, errno, "layer %s", path);
	add_fd(s, fd);
	return 0;
}

static int add_checkpoint(struct side *s, const char *spec, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_heavy_open(pf_store.store, false, false, &h, err) < 0 ||
		pf_ckpt_resolve_at(h.storefd, spec, NULL, &c, err) < 0 ||
		(!s->image && pf_ckpt_check_foreign_base(&c, NULL, err) < 0))
		return -1;
	if (c.sealed && s->hold < 0 && !pf_ckpt_read_only(h.storefd) &&
		(s->hold = pf_ckpt_hold_unpacked(pf_store.store, err)) < 0)
		return -1;
	PF_FREE int *fds = pf_calloc(c.n_layers + 1, sizeof(*fds));
	if (pf_ckpt_open_layers(&h, &c, fds, err) < 0)
		return -1;
	for (size_t i = 0; i < c.n_layers; i++)
		add_fd(s, fds[i]);
	if (!s->image)
		s->image = pf_strdup(c.base_image_ref);
	return 0;
}

/* "sandbox:ID:FD" */
static int add_sandbox(struct side *s, const char *arg, struct pf_err *err)
{
	PF_FREE char *id = pf_strdup(arg + strlen("sandbox:"));
	PF_FREE char *text = NULL;
	char *colon = strchr(id, ':');
	const char *from = NULL, *image = NULL;
	size_t len;
	int64_t fd;

	if (colon)
		*colon++ = '\0';
	if (pf_check_id("sandbox id", id, err) < 0 ||
		pf_parse_int("sandbox:ID:FD", colon ? colon : "", 0, 1 << 20, &fd, err) < 0)
		return -1;
	PF_FREE char *path = pf_asprintf("%s/sandboxes/%s/sandbox.json", pf_store.store, id);
	if (pf_read_file_at(AT_FDCWD, path, PF_CKPT_MAX_DOC, &text, &len, err) < 0)
		return -1;
	PF_JSON cJSON *j = pf_json_parse(path, text, len, err);
	if (!j || pf_json_str(j, "", "checkpoint", &from, err) < 0 ||
		pf_json_str(j, "", "image", &image, err) < 0 || add_dir(s, (int)fd, ".", err) < 0)
		return -1;
	if (image)
		s->image = pf_strdup(image);
	return from && *from ? add_checkpoint(s, from, err) : 0;
}

static int read_side(const char *arg, struct side *s, struct pf_err *err)
{
	if (pf_starts_with(arg, "sandbox:"))
		return add_sandbox(s, arg, err);
	if (pf_starts_with(arg, "image:")) {
		s->image = pf_strdup(arg + strlen("image:"));
		return 0;
	}
	return add_checkpoint(s, arg, err);
}

/* Below everything the image's own layers, so that a change to its file is a change and not an addition. */
static int add_image(struct side *s, struct pf_err *err)
{
	struct pf_image img = {0};
	int r = pf_image_resolve(pf_store.store, s->image, &img, err);

	for (char **l = img.layers; r == 0 && l && *l; l++)
		r = add_dir(s, AT_FDCWD, *l, err);
	pf_image_done(&img);
	return r;
}

static int run(const char *arg_a, const char *arg_b, struct pf_diff_printer *p, struct pf_err *err)
{
	PF_CLEANUP(side_done) struct side a = SIDE_NONE, b = SIDE_NONE;
	struct pf_diff_sum sum;

	/* One operand is "after"; its image is "before". */
	if (read_side(arg_b ? arg_b : arg_a, &b, err) < 0 || (arg_b && read_side(arg_a, &a, err) < 0))
		return -1;
	if (!arg_b && b.image)
		a.image = pf_strdup(b.image);
	if (!a.image || !b.image)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "no base image is recorded");
	if (add_image(&a, err) < 0 || add_image(&b, err) < 0)
		return -1;
	struct pf_diff_side sa = {a.fds, a.n}, sb = {b.fds, b.n};
	if (pf_diff(&sa, &sb, pf_ckpt_default_exclude, pf_diff_print, p, &sum, err) < 0)
		return -1;
	pf_diff_print_sum(p, &sum);
	return 0;
}

int pf_cmd_diff(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
		{"stat", no_argument, NULL, 's'}, {"name-only", no_argument, NULL, 'n'},
		{"unified", required_argument, NULL, 'U'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	enum pf_diff_style style = PF_DIFF_UNIFIED;
	int64_t context = 3;
	int c;

	optind = 0;
	while ((c = pf_store_getopt(VERB, argc, argv, options)) != -1)
		if (c == '?')
			return 125;
		else if (c != 'U')
			style = c == 'j' ? PF_DIFF_JSON : c == 's' ? PF_DIFF_STAT : PF_DIFF_NAMES;
		else if (pf_parse_int("--unified", optarg, 0, 1000000, &context, &err) < 0)
			return pf_store_error(VERB, &err);
	if (argc - optind < 1 || argc - optind > 2) {
		pf_fail_kind(&err, PF_ERR_INVALID, 0,
			"usage: diff [--unified N | --json | --stat | --name-only] A [B]");
		return pf_store_error(VERB, &err);
	}
	pf_checkpoint_raise_nofile();
	struct pf_diff_printer *p = pf_diff_printer_new(style, (size_t)context);
	int r = run(argv[optind], argc - optind == 2 ? argv[optind + 1] : NULL, p, &err);
	pf_diff_printer_free(p);
	return r < 0 ? pf_store_error(VERB, &err) : 0;
}
