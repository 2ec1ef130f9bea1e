/* Theory of operation: creating a container.
 *
 * Everything that can be found wrong by looking is found before anything is made. Then, in this order: the
 * state directory's files, the cgroup with its limits, the box (box.c), which runs hooks on its way and in
 * the end waits to be started; while it puts its mounts together the cgroup gets its device filter. Whatever
 * fails takes back what was made before it, in reverse; hooks that were run have their poststop ones run. */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/sys.h"
#include "sandbox/box.h"
#include "sandbox/bpf_device.h"
#include "sandbox/console.h"
#include "sandbox/container.h"
#include "sandbox/hooks.h"
#include "sandbox/mounts.h"
#include "sandbox/systemd.h"

struct making {
	const struct pf_container_opts *o;
	struct pf_spec *spec;
	struct pf_container *c;
	struct pf_buf *warnings;
	struct pf_cgroup_host host;
	struct pf_cgroup *cgroup;
	struct pf_cgroup_view view;
	struct pf_bpf filter;
	unsigned filter_flags;
	int *join_fds;
	struct pf_box_oci box;
	char *head, *tail, *start_tail, *keyring;
	bool hooks_ran;
	struct pf_systemd_hold hold;
	struct pf_device_rules rules;
};

/* ---- looking ---- */

static int check_version(const cJSON *document, struct pf_err *err)
{
	const char *version = NULL;

	if (pf_json_str(document, "", "ociVersion", &version, err) < 0)
		return -1;
	if (!version)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "ociVersion: is missing");
	if (strncmp(version, "1.", 2) != 0 || version[2] < '0' || version[2] > '9')
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"ociVersion: '%.40s' is no version 1 of the specification", version);
	return 0;
}

int pf_container_config(const char *bundle, struct pf_spec *spec, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/config.json", bundle);
	cJSON *document = pf_json_load(path, err);

	if (!document)
		return -1;
	if (check_version(document, err) < 0) {
		cJSON_Delete(document);
		return -1;
	}
	if (pf_spec_parse(document, spec, err) < 0)
		return -1;
	int r = 0;
	if (!spec->process.args || !spec->process.args[0])
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "process.args: needs a program to run");
	else if (!spec->root_path || !*spec->root_path)
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "root.path: is missing");
	if (r < 0)
		pf_spec_done(spec);
	return r;
}

/* Open the namespaces to join, and believe each only when the kernel says it is of that kind. One that we are
 * in is not joined: for a user namespace the kernel refuses that, for others it is work for nothing. */
static int open_joins(struct making *m, struct pf_err *err)
{
	static const struct {
		uint64_t flag;
		const char *own;
	} own[] = {{CLONE_NEWPID, "pid"}, {CLONE_NEWNET, "net"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"},
		{CLONE_NEWUSER, "user"}, {CLONE_NEWCGROUP, "cgroup"}, {CLONE_NEWTIME, "time"}};
	struct pf_spec *spec = m->spec;

	m->join_fds = pf_calloc(spec->n_joins, sizeof(*m->join_fds));
	for (size_t i = 0; i < spec->n_joins; i++)
		m->join_fds[i] = -1;
	for (size_t i = 0; i < spec->n_joins; i++) {
		struct pf_ns_join *j = &spec->joins[i];
		char path[32] = "";
		struct stat st, mine;
		PF_CLOSE int fd = open(j->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			return pf_fail_kind(err, PF_ERR_INVALID, errno, "linux.namespaces: path %s", j->path);
		int type = ioctl(fd, NS_GET_NSTYPE);
		if (type < 0 || (uint64_t)(unsigned)type != j->flag)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.namespaces: path %s is no namespace of the type that it stands for",
				j->path);
		for (size_t k = 0; k < sizeof(own) / sizeof(own[0]); k++)
			if (own[k].flag == j->flag)
				snprintf(path, sizeof(path), "/proc/self/ns/%s", own[k].own);
		if (stat(path, &mine) == 0 && mine.st_ino == st.st_ino && mine.st_dev == st.st_dev)
			continue;
		m->join_fds[i] = pf_take_fd(&fd);
	}
	return 0;
}

static int parse_map(const char *text, struct pf_id_map **out, size_t *n)
{
	size_t cap = 0;

	free(*out);
	*out = NULL;
	*n = 0;
	for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		struct pf_id_map m;
		if (sscanf(p, "%u %u %u", &m.container, &m.host, &m.size) != 3)
			continue;
		if (*n == cap) {
			cap = cap ? 2 * cap : 8;
			struct pf_id_map *more = realloc(*out, cap * sizeof(*more));
			if (!more)
				abort();
			*out = more;
		}
		(*out)[(*n)++] = m;
	}
	return 0;
}

/* A user namespace that is joined has its maps already; owners of devices are counted by them. The kernel
 * shows them of a process, as seen from the reader's namespace: so somebody goes in and we read. */
static int read_maps(int userns, struct pf_spec *spec, struct pf_err *err)
{
	PF_FREE char *uids = NULL, *gids = NULL;
	int in[2], out[2], r = -1;
	char path[48], byte = 0;

	if (pf_two_pipes(in, out) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(in[1]);
		if (setns(userns, CLONE_NEWUSER) < 0 || write(out[1], "", 1) != 1)
			_exit(1);
		_exit(read(in[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(in[0]);
	close(out[1]);
	if (pid > 0 && pf_read_full(out[0], &byte, 1) == 1) {
		snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
		r = pf_read_pseudo_at(AT_FDCWD, path, 65536, &uids, err);
		snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
		if (r == 0)
			r = pf_read_pseudo_at(AT_FDCWD, path, 65536, &gids, err);
	} else {
		pf_fail(err, 0, "linux.namespaces: look into the user namespace to join");
	}
	close(in[1]);
	close(out[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return -1;
	parse_map(uids, &spec->uid_maps, &spec->n_uid_maps);
	parse_map(gids, &spec->gid_maps, &spec->n_gid_maps);
	return 0;
}

static int look_at_joins(struct making *m, struct pf_err *err)
{
	struct pf_spec *spec = m->spec;

	if (open_joins(m, err) < 0)
		return -1;
	for (size_t i = 0; i < spec->n_joins; i++) {
		if (spec->joins[i].flag == CLONE_NEWPID)
			m->c->own_pid = m->join_fds[i] >= 0;
		if (spec->joins[i].flag == CLONE_NEWTIME)
			m->c->own_time = m->join_fds[i] >= 0;
		if (spec->joins[i].flag != CLONE_NEWUSER)
			continue;
		if (m->join_fds[i] < 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.namespaces: path %s is the runtime's own user namespace (remedy: "
				"leave "
				"the entry out)",
				spec->joins[i].path);
		m->c->own_user = true;
		if (!spec->n_uid_maps && read_maps(m->join_fds[i], spec, err) < 0)
			return -1;
	}
	m->c->own_user = m->c->own_user || (spec->clone_flags & CLONE_NEWUSER);
	m->c->own_pid = m->c->own_pid || (spec->clone_flags & CLONE_NEWPID);
	m->c->own_time = m->c->own_time || (spec->clone_flags & CLONE_NEWTIME);
	return 0;
}

void pf_container_clip_caps(struct pf_caps *caps, bool own_user, struct pf_buf *warnings)
{
	uint64_t held = pf_caps_held(), *sets[] = {&caps->bounding, &caps->permitted, &caps->effective,
						&caps->inheritable, &caps->ambient};
	uint64_t lost = 0;

	if (own_user)
		held = pf_caps_kernel();
	for (size_t i = 0; i < 5; i++) {
		lost |= *sets[i] & ~held;
		*sets[i] &= held;
	}
	/* The kernel lets only what is both be ambient (capabilities(7)); some callers list it there alone,
	 * and mean what they then get. */
	caps->ambient &= caps->permitted & caps->inheritable;
	if (lost) {
		PF_BUF struct pf_buf names = {0};
		pf_caps_format(lost, &names);
		pf_buf_printf(warnings, "process.capabilities: %s cannot be granted here and is left out\n",
			names.data);
	}
}

static int check_terminal(const struct making *m, struct pf_err *err)
{
	bool wants = m->spec->process.terminal;

	if (wants && m->o->console_fd < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"process.terminal: needs --console-socket, or `run` without --detach");
	if (!wants && m->o->console_fd >= 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--console-socket: process.terminal is not set in the bundle");
	return 0;
}

/* A label for what is in new file systems, as a mount option of theirs. */
static int label_mounts(struct pf_spec *spec, struct pf_err *err)
{
	if (!spec->mount_label)
		return 0;
	if (!pf_lsm_selinux())
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"linux.mountLabel: this kernel does not run SELinux (remedy: leave it out)");
	for (size_t i = 0; i < spec->n_mounts; i++) {
		struct pf_mount *mt = &spec->mounts[i];
		size_t n = pf_strv_len(mt->data);
		if (strcmp(mt->type, "tmpfs") != 0 && strcmp(mt->type, "mqueue") != 0)
			continue;
		char **more = realloc(mt->data, (n + 2) * sizeof(*more));
		if (!more)
			abort();
		mt->data = more;
		more[n] = pf_asprintf("context=%s", spec->mount_label);
		more[n + 1] = NULL;
	}
	return 0;
}

/* A network namespace that is new with the container shows in a sysfs only when that is made inside. */
static void choose_sysfs(struct pf_spec *spec)
{
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (spec->mounts[i].kind == PF_MOUNT_HOST && strcmp(spec->mounts[i].type, "sysfs") == 0 &&
			(spec->clone_flags & CLONE_NEWNET))
			spec->mounts[i].kind = PF_MOUNT_FS;
}

static int look(struct making *m, struct pf_err *err)
{
	struct pf_spec *spec = m->spec;

	if (check_terminal(m, err) < 0 || look_at_joins(m, err) < 0 || label_mounts(spec, err) < 0 ||
		pf_lsm_plan(&spec->process, &m->box.lsm, err) < 0 ||
		pf_rlimits_check(spec->process.rlimits, spec->process.n_rlimits, err) < 0)
		return -1;
	pf_container_clip_caps(&spec->process.caps, m->c->own_user, m->warnings);
	if (!m->c->own_user && pf_caps_check(&spec->process.caps, err) < 0)
		return pf_wrap(err, "process");
	choose_sysfs(spec);
	if (spec->seccomp) {
		int notify = 0;
		if (pf_seccomp_oci_cached(
			    m->o->cache_dir, spec->seccomp, &m->filter, &m->filter_flags, &notify, err) < 0)
			return pf_wrap(err, "linux.seccomp");
	}
	return 0;
}

/* ---- making ---- */

/* The name of the configuration's root, from the bundle. */
static int find_root(struct making *m, struct pf_err *err)
{
	const char *path = m->spec->root_path;
	struct stat st;

	m->c->rootfs = path[0] == '/' ? pf_strdup(path) : pf_asprintf("%s/%s", m->o->bundle, path);
	if (stat(m->c->rootfs, &st) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "root.path: %s", m->c->rootfs);
	if (!S_ISDIR(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "root.path: %s is no directory", m->c->rootfs);
	m->c->root_dev = st.st_dev;
	return 0;
}

static int make_root(void *arg, int userns_fd, struct pf_err *err)
{
	const struct making *m = arg;
	PF_CLOSE int fd = open(m->c->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);

	(void)userns_fd; /* whose ids the files have is the caller's matter */
	if (fd < 0)
		return pf_fail(err, errno, "%s", m->c->rootfs);
	return pf_mount_clone(fd, true, 0, -1, err);
}

static void now_text(char *buf, size_t size)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, size - n, ".%09ldZ", ts.tv_nsec);
}

static int make_files(struct making *m, struct pf_err *err)
{
	size_t later = m->spec->hooks[PF_HOOK_POSTSTART].n + m->spec->hooks[PF_HOOK_POSTSTOP].n;
	PF_FREE char *text = pf_json_text(m->spec->document);

	if (mkfifoat(m->o->dir, "start", 0600) < 0 || mkfifoat(m->o->dir, "result", 0600) < 0)
		return pf_fail(err, errno, "state directory");
	/* Open for both, so that neither end waits for the other or sees an end of file too early. */
	m->box.start_fd = openat(m->o->dir, "start", O_RDWR | O_CLOEXEC);
	m->box.result_fd = openat(m->o->dir, "result", O_RDWR | O_CLOEXEC);
	if (m->box.start_fd < 0 || m->box.result_fd < 0)
		return pf_fail(err, errno, "state directory");
	if (later > 0 && mknodat(m->o->dir, "hooks", S_IFREG | 0600, 0) < 0)
		return pf_fail(err, errno, "state directory");
	return pf_replace_file_at(m->o->dir, "config.json", text, strlen(text), 0600, false, err);
}

/* The cgroup's path; with systemd the scope is there then, and held. */
static int cgroup_path(struct making *m, const struct pf_limits *limits, struct pf_err *err)
{
	const char *given = m->spec->cgroups_path;
	PF_FREE char *named = NULL, *path = NULL, *slice = NULL;
	int r;

	if (!m->o->systemd_cgroup) {
		m->c->cgroup = given ? pf_cgroup_path_from_oci(given, m->o->id, false, err)
				     : pf_asprintf(PF_CONTAINER_CGROUP "/%s", m->o->id);
		return m->c->cgroup ? 0 : -1;
	}
	named = given ? pf_strdup(given) : pf_asprintf(":pinfold:%s", m->o->id);
	path = pf_cgroup_path_from_oci(named, m->o->id, true, err);
	if (!path || pf_systemd_names(path, &m->c->unit, &slice, err) < 0)
		return -1;
	char **props = pf_systemd_limits(limits, &m->host);
	r = pf_systemd_start(m->c->unit, slice, m->o->id, props, &m->hold, &m->c->cgroup, err);
	pf_strv_free(props);
	if (r < 0) {
		free(m->c->unit);
		m->c->unit = NULL;
	}
	return r;
}

static bool has_cgroup_mount(const struct pf_spec *spec, uint64_t *attrs)
{
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (spec->mounts[i].kind == PF_MOUNT_CGROUP) {
			*attrs = spec->mounts[i].attr_set | spec->mounts[i].rec_attr_set;
			return true;
		}
	return false;
}

/* A container that sees its cgroup as a root and may write there gets it for its own: config-linux.md, cgroup
 * ownership. */
static int delegate(struct making *m, struct pf_err *err)
{
	const struct pf_spec *spec = m->spec;
	uint32_t uid = spec->process.uid, owner = m->c->own_user ? UINT32_MAX : uid;
	bool writable = false;

	for (size_t i = 0; i < spec->n_mounts; i++)
		writable = writable || (spec->mounts[i].kind == PF_MOUNT_CGROUP &&
					       strcmp(spec->mounts[i].destination, "/sys/fs/cgroup") == 0 &&
					       !((spec->mounts[i].attr_set | spec->mounts[i].rec_attr_set) &
						       MOUNT_ATTR_RDONLY));
	if (!writable || !(spec->clone_flags & CLONE_NEWCGROUP) || m->host.v2 < 0 || m->host.n_hier != 1)
		return 0;
	for (size_t i = 0; i < spec->n_uid_maps; i++)
		if (uid >= spec->uid_maps[i].container &&
			uid - spec->uid_maps[i].container < spec->uid_maps[i].size)
			owner = spec->uid_maps[i].host + (uid - spec->uid_maps[i].container);
	return owner == UINT32_MAX ? 0 : pf_cgroup_delegate(m->cgroup, owner, err);
}

static int make_cgroup(struct making *m, struct pf_err *err)
{
	PF_LIMITS struct pf_limits limits;
	uint64_t attrs = 0;
	bool v2_alone;

	pf_limits_init(&limits);
	if (pf_limits_from_oci(m->spec->resources, &limits, err) < 0 ||
		pf_device_rules_from_oci(m->spec->resources, &m->rules, err) < 0 ||
		pf_cgroup_probe(&m->host, err) < 0 || cgroup_path(m, &limits, err) < 0 ||
		pf_cgroup_create(&m->host, m->c->cgroup, &limits, m->c->unit ? PF_CGROUP_ADOPT : 0,
			&m->cgroup, err) < 0)
		return -1;
	if (m->c->unit)
		pf_cgroup_presume_clone_safe(m->cgroup, true); /* systemd has just made it */
	if (delegate(m, err) < 0)
		return -1;
	v2_alone = m->host.v2 >= 0 && m->host.n_hier == 1;
	/* On v2 alone a container with a cgroup namespace mounts its own. */
	if (!has_cgroup_mount(m->spec, &attrs) || (v2_alone && (m->spec->clone_flags & CLONE_NEWCGROUP)))
		return 0;
	if (pf_cgroup_view_make(&m->host, m->c->cgroup, attrs, &m->view, err) < 0)
		return -1;
	m->box.cgroups = &m->view;
	return 0;
}

/* ---- while the box is made ---- */

static int on_pid(void *arg, pid_t pid, struct pf_err *err)
{
	struct making *m = arg;

	m->c->pid = pid;
	m->c->pid_start = pf_proc_start_time(pid);
	return pf_container_save(m->o->dir, m->c, err);
}

/* The device filter takes the kernel a while to check, and so far nobody but us is in the cgroup. */
static int on_mounts(void *arg, struct pf_err *err)
{
	struct making *m = arg;

	/* Root of a user namespace only may not load one, and needs none: nobody below can make a device
	 * node, and those that are bound in open for whom the machine lets. */
	if (!pf_in_first_userns())
		return 0;
	return pf_device_apply(m->cgroup, &m->rules, err) < 0 ? pf_wrap(err, "cgroup") : 0;
}

static int on_hooks(void *arg, pid_t pid, struct pf_err *err)
{
	static const enum pf_hook_kind kinds[] = {PF_HOOK_PRESTART, PF_HOOK_CREATE_RUNTIME};
	struct making *m = arg;
	PF_JSON cJSON *j = pf_container_json(m->c, "creating", pid);
	PF_FREE char *state = pf_json_text(j);

	for (size_t i = 0; i < 2; i++)
		if (pf_hooks_run(&m->spec->hooks[kinds[i]], kinds[i], m->o->bundle, state, m->o->cancel_fd,
			    err) < 0)
			return -1;
	return 0;
}

static int on_listener(void *arg, pid_t pid, int fd, struct pf_err *err)
{
	struct making *m = arg;
	PF_CLOSE int listener = fd;

	return pf_container_send_listener(
		m->spec->seccomp, pf_container_json(m->c, "creating", pid), pid, listener, err);
}

/* The state as text around the pid, which only the child knows in its own numbering. */
static void make_templates(struct making *m)
{
	size_t n = m->spec->hooks[PF_HOOK_CREATE_CONTAINER].n + m->spec->hooks[PF_HOOK_START_CONTAINER].n;
	char **tails[] = {&m->tail, &m->start_tail};

	for (size_t i = 0; n > 0 && i < 2; i++) {
		PF_JSON cJSON *j = pf_container_json(m->c, i ? "created" : "creating", -1);
		char *text = pf_json_text(j);
		/* {"a":…} → {"pid": PID ,"a":…} */
		*tails[i] = pf_asprintf(",%s", text + 1);
		free(text);
	}
	m->head = pf_strdup("{\"pid\":");
	m->box.state_head = m->head;
	m->box.state_tail = m->tail;
	m->box.state_start_tail = m->start_tail;
}

static bool hooks_look_for_root(const struct pf_spec *spec)
{
	return spec->hooks[PF_HOOK_PRESTART].n + spec->hooks[PF_HOOK_CREATE_RUNTIME].n +
		       spec->hooks[PF_HOOK_CREATE_CONTAINER].n >
	       0;
}

static int send_pidfd(const char *path, int pidfd, struct pf_err *err)
{
	PF_CLOSE int sock = pf_console_connect(path, err);

	if (sock < 0)
		return pf_wrap(err, "--pidfd-socket");
	return pf_send_fd(sock, pidfd) < 0 ? pf_fail(err, errno, "--pidfd-socket %s", path) : 0;
}

/* The program is process 1 of its own. */
static void tell_listen_fds(struct pf_process *p, unsigned fds)
{
	size_t n = pf_strv_len(p->env);

	if (fds == 0)
		return;
	char **more = realloc(p->env, (n + 3) * sizeof(*more));
	if (!more)
		abort();
	p->env = more;
	more[n] = pf_asprintf("LISTEN_FDS=%u", fds);
	more[n + 1] = pf_strdup("LISTEN_PID=1");
	more[n + 2] = NULL;
}

static int make(struct making *m, int *pidfd, struct pf_err *err)
{
	const struct pf_container_opts *o = m->o;
	struct pf_box_params params = {.spec = m->spec,
		.netns_fd = -1,
		.init_fd = -1,
		.stdio = {0, 1, 2},
		.root = make_root,
		.root_arg = m,
		.seccomp = m->filter.insns ? &m->filter : NULL,
		.seccomp_flags = m->filter_flags,
		.oci = &m->box};
	struct pf_box box;

	if (make_files(m, err) < 0)
		return -1;
	if (make_cgroup(m, err) < 0)
		return pf_wrap(err, "cgroup");
	params.cgroup = m->cgroup;
	m->keyring = pf_container_keyring(m->c);
	m->box.join_fds = m->join_fds;
	m->box.console_fd = o->console_fd;
	m->box.cancel_fd = o->cancel_fd;
	tell_listen_fds(&m->spec->process, o->listen_fds);
	m->box.keep_fds = o->keep_fds + o->listen_fds;
	m->box.keyring = m->keyring;
	m->box.no_pivot = o->no_pivot;
	m->box.root_place = hooks_look_for_root(m->spec) ? m->c->rootfs : NULL;
	m->box.on_pid = on_pid;
	m->box.on_mounts = on_mounts;
	m->box.on_hooks = on_hooks;
	m->box.on_listener = on_listener;
	m->box.arg = m;
	make_templates(m);
	m->hooks_ran = hooks_look_for_root(m->spec);
	if (pf_box_create(&params, &box, err) < 0)
		return -1;
	pf_systemd_release(&m->hold);
	*pidfd = box.pidfd;
	m->c->ready = true;
	m->c->status = PF_CONTAINER_CREATED;
	if (pf_container_save(o->dir, m->c, err) < 0 ||
		(o->pidfd_socket && send_pidfd(o->pidfd_socket, box.pidfd, err) < 0) ||
		(o->pid_file && pf_container_pid_file(o->pid_file, box.pid, err) < 0))
		return -1;
	return 0;
}

static void unmake(struct making *m)
{
	struct pf_err ignored = PF_ERR_INIT;

	pf_systemd_release(&m->hold);
	m->c->status = m->c->pid > 0 && m->c->ready ? PF_CONTAINER_CREATED : PF_CONTAINER_STOPPED;
	if (!m->hooks_ran)
		(void)unlinkat(m->o->dir, "hooks", 0);
	if (m->cgroup || m->c->unit)
		(void)pf_container_delete(m->o->dir, m->c, true, m->warnings, &ignored);
}

int pf_container_create(const struct pf_container_opts *o, struct pf_spec *spec, struct pf_container *c,
	int *pidfd, struct pf_buf *warnings, struct pf_err *err)
{
	struct making m = {.o = o,
		.spec = spec,
		.c = c,
		.warnings = warnings,
		.view = PF_CGROUP_VIEW_INIT,
		.box = {.start_fd = -1, .result_fd = -1}};
	char now[40];
	int r;

	now_text(now, sizeof(now));
	*c = (struct pf_container){.id = pf_strdup(o->id),
		.bundle = pf_strdup(o->bundle),
		.created = pf_strdup(now),
		.annotations = spec->annotations ? cJSON_Duplicate(spec->annotations, true) : NULL,
		.no_new_keyring = o->no_new_keyring,
		.status = PF_CONTAINER_CREATING};
	*pidfd = -1;
	r = find_root(&m, err) < 0 || look(&m, err) < 0 ? -1 : make(&m, pidfd, err);
	if (r < 0) {
		unmake(&m);
		if (*pidfd >= 0)
			close(pf_take_fd(pidfd));
	}
	for (size_t i = 0; m.join_fds && i < spec->n_joins; i++)
		if (m.join_fds[i] >= 0)
			close(m.join_fds[i]);
	free(m.join_fds);
	pf_cgroup_view_done(&m.view);
	pf_device_rules_done(&m.rules);
	pf_cgroup_free(m.cgroup);
	pf_bpf_done(&m.filter);
	if (m.box.start_fd >= 0)
		close(m.box.start_fd);
	if (m.box.result_fd >= 0)
		close(m.box.result_fd);
	free(m.head);
	free(m.tail);
	free(m.start_tail);
	free(m.keyring);
	return r;
}
