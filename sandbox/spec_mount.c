/* mounts of config.json: what each word among the options means. */
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/spec_internal.h"

/* Options that are attributes of the mount (mount_setattr(2)). With an "r" before it each of them reaches
 * what is mounted below, too: "rro". The access time's kinds exclude each other, so that naming one of them
 * clears the others. */
static const struct {
	const char *name;
	uint64_t set, clear;
} attr_options[] = {
	{"ro", MOUNT_ATTR_RDONLY, 0},
	{"rw", 0, MOUNT_ATTR_RDONLY},
	{"nosuid", MOUNT_ATTR_NOSUID, 0},
	{"suid", 0, MOUNT_ATTR_NOSUID},
	{"nodev", MOUNT_ATTR_NODEV, 0},
	{"dev", 0, MOUNT_ATTR_NODEV},
	{"noexec", MOUNT_ATTR_NOEXEC, 0},
	{"exec", 0, MOUNT_ATTR_NOEXEC},
	{"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
	{"atime", 0, MOUNT_ATTR__ATIME},
	{"relatime", 0, MOUNT_ATTR__ATIME},
	{"norelatime", 0, MOUNT_ATTR__ATIME},
	{"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
	{"nostrictatime", 0, MOUNT_ATTR__ATIME},
	{"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
	{"diratime", 0, MOUNT_ATTR_NODIRATIME},
	{"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
	{"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
};
#define N_ATTRS (sizeof(attr_options) / sizeof(attr_options[0]))

static const struct pf_spec_word propagation_options[] = {
	{"private", MS_PRIVATE},
	{"rprivate", MS_PRIVATE | MS_REC},
	{"slave", MS_SLAVE},
	{"rslave", MS_SLAVE | MS_REC},
	{"shared", MS_SHARED},
	{"rshared", MS_SHARED | MS_REC},
	{"unbindable", MS_UNBINDABLE},
	{"runbindable", MS_UNBINDABLE | MS_REC},
	{NULL, 0},
};

/* What is so in any case, and of which mount_setattr(2) and fsconfig(2) know nothing. */
static const char *const no_ops[] = {"defaults", "loud", "silent", "noiversion", NULL};
/* What a bind of something that is mounted already cannot change, but has by default. */
static const char *const bind_no_ops[] = {"async", "nomand", "nolazytime", NULL};
/* The rest of the words, for features. Other ones are for the file system itself. */
static const char *const other_options[] = {"bind", "rbind", "idmap", "ridmap", "tmpcopyup", "sync", "async",
	"dirsync", "lazytime", "nolazytime", "mand", "nomand", NULL};

unsigned long pf_spec_propagation(const char *word)
{
	for (const struct pf_spec_word *w = propagation_options; w->name; w++)
		if (strcmp(word, w->name) == 0)
			return (unsigned long)w->value;
	return 0;
}

cJSON *pf_mount_options_json(void)
{
	cJSON *a = cJSON_CreateArray();

	for (size_t i = 0; i < N_ATTRS; i++) {
		PF_FREE char *r = pf_asprintf("r%s", attr_options[i].name);
		cJSON_AddItemToArray(a, cJSON_CreateString(attr_options[i].name));
		cJSON_AddItemToArray(a, cJSON_CreateString(r));
	}
	for (const struct pf_spec_word *w = propagation_options; w->name; w++)
		cJSON_AddItemToArray(a, cJSON_CreateString(w->name));
	for (const char *const *o = other_options; *o; o++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*o));
	for (const char *const *o = no_ops; *o; o++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*o));
	return a;
}

static bool in_list(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (strcmp(*list, word) == 0)
			return true;
	return false;
}

/* The last word about a bit counts. */
static void turn(uint64_t *set, uint64_t *clr, uint64_t on, uint64_t off)
{
	*set = (*set & ~off) | on;
	*clr = ((*clr & ~on) | off) & ~on;
	/* The kinds of access times are values of one field, which is cleared as a whole. */
	if (off & MOUNT_ATTR__ATIME)
		*clr |= MOUNT_ATTR__ATIME;
}

static bool attr_option(struct pf_mount *m, const char *o)
{
	for (size_t i = 0; i < N_ATTRS; i++) {
		if (strcmp(o, attr_options[i].name) == 0) {
			turn(&m->attr_set, &m->attr_clr, attr_options[i].set, attr_options[i].clear);
			return true;
		}
		if (o[0] == 'r' && strcmp(o + 1, attr_options[i].name) == 0) {
			turn(&m->rec_attr_set, &m->rec_attr_clr, attr_options[i].set, attr_options[i].clear);
			return true;
		}
	}
	if (pf_spec_propagation(o)) {
		m->propagation = pf_spec_propagation(o);
		return true;
	}
	return in_list(no_ops, o);
}

struct words {
	bool bind, self;
	size_t n_data;
};

static void read_options(char *const *options, struct pf_mount *m, struct words *w)
{
	m->data = pf_calloc(pf_strv_len(options) + 1, sizeof(*m->data));
	for (; options && *options; options++) {
		const char *o = *options;
		if (strcmp(o, "bind") == 0) {
			w->bind = true;
		} else if (strcmp(o, "rbind") == 0) {
			w->bind = m->recursive = true;
		} else if (strcmp(o, "x-pinfold.self") == 0) {
			w->self = true;
		} else if (strcmp(o, "idmap") == 0 || strcmp(o, "ridmap") == 0) {
			m->idmap = true;
			m->idmap_recursive = *o == 'r';
		} else if (strcmp(o, "tmpcopyup") == 0) {
			m->copy_up = true;
		} else if (!attr_option(m, o)) {
			m->data[w->n_data++] = pf_strdup(o);
		}
	}
}

static int check_bind(const struct pf_mount *m, const char *source, struct pf_err *err)
{
	if (!source || !*source)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "mounts: %s: a bind needs a source", m->destination);
	for (char **o = m->data; *o; o++)
		if (!in_list(bind_no_ops, *o))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"mounts: %s: option '%s' is not one for a bind", m->destination, *o);
	return 0;
}

static int choose_kind(struct pf_mount *m, const struct words *w, const char *source, struct pf_err *err)
{
	bool tmpfs = strcmp(m->type, "tmpfs") == 0;

	if (in_list((const char *const *)m->data, "remount"))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"mounts: %s: option 'remount' is not supported (remedy: give the mount its options "
			"at "
			"once)",
			m->destination);
	if (m->copy_up && !tmpfs)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "mounts: %s: tmpcopyup is for a tmpfs", m->destination);
	if (w->self) {
		m->kind = PF_MOUNT_SELF;
	} else if (w->bind || strcmp(m->type, "bind") == 0) {
		m->kind = PF_MOUNT_BIND;
		return check_bind(m, source, err);
	} else if (strcmp(m->type, "cgroup") == 0) {
		m->kind = PF_MOUNT_CGROUP;
	} else if (strcmp(m->type, "sysfs") == 0 || (tmpfs && strcmp(m->destination, "/dev") == 0)) {
		m->kind = PF_MOUNT_HOST;
	} else {
		m->kind = PF_MOUNT_FS;
	}
	if (m->idmap && m->kind != PF_MOUNT_SELF)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "mounts: %s: only a bind can be id-mapped",
			m->destination);
	/* Other mounts, and the devices, find their places in it first. */
	if (tmpfs && (m->attr_set & MOUNT_ATTR_RDONLY)) {
		m->late_ro = true;
		m->attr_set &= ~(uint64_t)MOUNT_ATTR_RDONLY;
	}
	return 0;
}

int pf_spec_mount(const cJSON *j, size_t index, struct pf_mount *m, struct pf_err *err)
{
	const char *dest = NULL, *type = NULL, *source = NULL;
	char **options = NULL, where[32];
	struct words w = {0};

	snprintf(where, sizeof(where), "mounts[%zu]", index);
	if (!cJSON_IsObject(j))
		return pf_spec_invalid(err, where, "must be an object");
	if (pf_json_str(j, where, "destination", &dest, err) < 0 ||
		pf_json_str(j, where, "type", &type, err) < 0 ||
		pf_json_str(j, where, "source", &source, err) < 0)
		return -1;
	if (!dest || !*dest)
		return pf_spec_invalid(err, where, "needs a destination");
	/* Relative ones were allowed before 1.0.3 and mean the same below "/". */
	PF_FREE char *absolute = pf_asprintf("%s%s", dest[0] == '/' ? "" : "/", dest);
	m->destination = pf_path_clean(absolute, err);
	if (!m->destination)
		return pf_wrap(err, "%s.destination", where);
	if (pf_json_strv(j, where, "options", &options, err) < 0)
		return -1;
	read_options(options, m, &w);
	pf_strv_free(options);
	m->type = pf_strdup(type ? type : w.bind ? "bind" : "none");
	m->source = pf_strdup(source ? source : m->type);
	if (pf_spec_maps(j, where, "uidMappings", &m->uid_maps, &m->n_uid_maps, err) < 0 ||
		pf_spec_maps(j, where, "gidMappings", &m->gid_maps, &m->n_gid_maps, err) < 0)
		return -1;
	if ((m->n_uid_maps == 0) != (m->n_gid_maps == 0))
		return pf_spec_invalid(err, where, "uidMappings and gidMappings need each other");
	m->idmap = m->idmap || m->n_uid_maps > 0;
	return choose_kind(m, &w, source, err);
}

void pf_spec_mount_done(struct pf_mount *m)
{
	free(m->destination);
	free(m->type);
	free(m->source);
	pf_strv_free(m->data);
	free(m->uid_maps);
	free(m->gid_maps);
}
