/* Theory of operation: whose policy a container is under.
 *
 * A policy belongs to a network namespace and not to a container, for what is in one namespace shares its
 * ways out. The first container that brings a policy to a namespace owns it: its keeper holds the gate, as
 * long as that container's first process lives. For a pod that is the sandbox container. Others that join
 * find its name in <root>/.netns/DEV-INO, the identity of the namespace, and are under the same policy,
 * whether they ask for one or not; asking for another one is an error.
 *
 *     <root>/ID/policy.json     namespace, owner; of the owner also keeper and policy
 *     <root>/ID/control         the keeper's socket; of those who joined a link to the owner's
 *     <root>/.netns/DEV-INO     the owner's id
 *
 * An entry whose owner does not live, or not in this namespace, is none: numbers of namespaces come back.
 *
 * Rules in a namespace bind those without power over it. Whoever can change them, or send what they do not
 * see, is refused, or loses that power when it is one that every container has by default (CAP_NET_RAW):
 * packet sockets pass by the packet filter's output chain. In a user namespace of its own a container has
 * power over a network namespace only if that belongs to the same user namespace, which ours never do. */
#include "session/pod.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/sys.h"
#include "netpolicy/policy.h"
#include "sandbox/container.h"
#include "session/config.h"
#include "session/control.h"
#include "session/podkeeper.h"
#include "session/session.h"

#define REGISTRY ".netns"
#define POLICY_FILE "policy.json"
#define MAX_POLICY ((size_t)1 << 20)
#define END_MS 3000

/* ---- what a payload under a policy must not be able to do ---- */

/* warnings may be NULL. */
static int check_caps(struct pf_caps *caps, bool own_pid, struct pf_buf *warnings, struct pf_err *err)
{
	uint64_t *sets[] = {
		&caps->bounding, &caps->permitted, &caps->effective, &caps->inheritable, &caps->ambient};
	uint64_t refused = PF_CAP_BIT(CAP_NET_ADMIN) | PF_CAP_BIT(CAP_SYS_ADMIN) |
			   PF_CAP_BIT(CAP_SYS_MODULE) | PF_CAP_BIT(CAP_SYS_RAWIO) | PF_CAP_BIT(CAP_BPF);
	uint64_t all = 0;

	if (!own_pid) /* among the host's processes some are outside */
		refused |= PF_CAP_BIT(CAP_SYS_PTRACE);
	for (size_t i = 0; i < 5; i++)
		all |= *sets[i];
	if (all & refused) {
		PF_BUF struct pf_buf names = {0};
		pf_caps_format(all & refused, &names);
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"process.capabilities: with %s a process can get around the policy of its network "
			"(" PF_POD_POLICY "; remedy: drop it, or use a user namespace)",
			names.data);
	}
	if (warnings && (all & PF_CAP_BIT(CAP_NET_RAW)))
		pf_buf_str(warnings, "process.capabilities: CAP_NET_RAW is left out: it is a way around the "
				     "policy of the network (" PF_POD_POLICY ")\n");
	for (size_t i = 0; i < 5; i++)
		*sets[i] &= ~PF_CAP_BIT(CAP_NET_RAW);
	return 0;
}

static const char *join_path(const struct pf_spec *spec, uint64_t flag)
{
	for (size_t i = 0; i < spec->n_joins; i++)
		if (spec->joins[i].flag == flag)
			return spec->joins[i].path;
	return NULL;
}

/* Whether the container's capabilities are power over the namespace (-1: one that we make, and own). */
static bool caps_matter(const struct pf_spec *spec, int netns)
{
	const char *path = join_path(spec, CLONE_NEWUSER);
	struct stat theirs, owner, mine;

	if (!path)
		return !(spec->clone_flags & CLONE_NEWUSER);
	PF_CLOSE int fd =
		netns < 0 ? open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC) : ioctl(netns, NS_GET_USERNS);
	/* Ours is above every other: what it owns, no user namespace of a container has power over. */
	return fd < 0 || fstat(fd, &owner) < 0 || stat(path, &theirs) < 0 ||
	       stat("/proc/self/ns/user", &mine) < 0 || owner.st_ino != mine.st_ino ||
	       theirs.st_ino == mine.st_ino;
}

static bool has_own_pid(const struct pf_spec *spec)
{
	return pf_spec_own_ns(spec, CLONE_NEWPID);
}

/* ---- the policy ---- */

cJSON *pf_pod_networking(const struct pf_config *config, struct pf_err *err)
{
	cJSON *networking = NULL;

	if (config->allow_package_managers)
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"networking.allow_package_managers: a container's image is not Pinfold's to look "
			"into "
			"(remedy: list the hosts)");
	else
		networking = cJSON_Duplicate(config->networking, true);
	struct pf_policy *p = networking ? pf_policy_compile(networking, err) : NULL;
	if (p && pf_policy_ends_tls(p)) {
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"networking: a rule looks into TLS (tls, methods, paths), and an OCI container has "
			"no "
			"certificate store that Pinfold could add its own to (remedy: tls \"passthrough\")");
		pf_policy_unref(pf_take(p));
	}
	if (!p) {
		cJSON_Delete(networking);
		return NULL;
	}
	pf_policy_unref(p);
	return networking;
}

/* The annotation as a canonical networking object. */
static cJSON *parse_policy(const char *text, struct pf_err *err)
{
	cJSON *net = pf_json_parse("annotation " PF_POD_POLICY, text, strlen(text), err);
	PF_JSON cJSON *file = cJSON_CreateObject();
	struct pf_config config;

	if (!net)
		return NULL;
	if (!cJSON_IsObject(net)) {
		cJSON_Delete(net);
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"annotation " PF_POD_POLICY ": must be a networking object as text");
		return NULL;
	}
	cJSON_AddItemToObject(file, "networking", net);
	if (pf_config_parse(file, &config, err) < 0) {
		pf_wrap(err, "annotation " PF_POD_POLICY);
		return NULL;
	}
	cJSON *canonical = pf_pod_networking(&config, err);
	if (!canonical)
		pf_wrap(err, "annotation " PF_POD_POLICY);
	pf_config_done(&config);
	return canonical;
}

/* The servers of the container's own resolv.conf: a cluster's names are known there, and not to the host's.
 * It is read now, while the payload cannot have written to it. */
static char *find_resolver(const struct pf_spec *spec)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *text = NULL;
	struct pf_buf list = {0};
	char *save = NULL;

	for (size_t i = 0; i < spec->n_mounts && !text; i++)
		if (strcmp(spec->mounts[i].destination, "/etc/resolv.conf") == 0 && spec->mounts[i].source)
			(void)pf_read_file_at(AT_FDCWD, spec->mounts[i].source, 65536, &text, NULL, &ignored);
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
		line = strtok_r(NULL, "\n", &save)) {
		char addr[64];
		if (sscanf(line, " nameserver %63[0-9a-fA-F.:]", addr) == 1)
			pf_buf_printf(
				&list, strchr(addr, ':') ? "%s[%s]" : "%s%s", list.len ? "," : "", addr);
	}
	return list.data;
}

/* ---- records ---- */

static cJSON *load_policy_file(int dir, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(dir, POLICY_FILE, MAX_POLICY, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse(POLICY_FILE, text, len, err);
}

static const char *get(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

static int save_policy_file(struct pf_pod *p, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "netns", p->name);
	cJSON_AddStringToObject(j, "container", p->owner);
	cJSON_AddBoolToObject(j, "caps_matter", p->caps_matter);
	if (p->keeper > 0) {
		pf_json_add_int(j, "keeper", p->keeper);
		pf_json_add_int(j, "keeper_start", (int64_t)pf_proc_start_time(p->keeper));
		cJSON_AddItemToObject(j, "networking", cJSON_Duplicate(p->networking, true));
	}
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(p->dir, POLICY_FILE, text, strlen(text), 0600, false, err);
}

/* Whether the container lives, in this namespace. Its first process holds the namespace, so that its number
 * can mean no other. */
static bool is_in(int dir, const char *id, int netns)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_container c;
	struct stat ours, theirs;
	char path[48];

	if (pf_container_load(dir, id, &c, &ignored) < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)c.pid);
	bool in = c.pid > 0 && fstat(netns, &ours) == 0 && stat(path, &theirs) == 0 &&
		  ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
	pf_container_done(&c);
	return in;
}

/* The owner's record, if what the registry says is still so. A namespace may have had the number of another
 * that is gone: whoever took that for this one's would leave it without rules. */
static cJSON *find_owner(struct pf_pod *p)
{
	PF_FREE char *path = pf_asprintf("%s/" REGISTRY "/%s", p->dirs->root, p->name), *id = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_read_file_at(AT_FDCWD, path, 256, &id, NULL, &ignored) < 0 ||
		pf_check_id("container id", id, &ignored) < 0)
		return NULL;
	PF_CLOSE int dir = pf_dirs_run(p->dirs, id, false, &ignored);
	if (dir < 0 || !is_in(dir, id, p->netns))
		return NULL;
	cJSON *j = load_policy_file(dir, &ignored);
	const char *owner = get(j, "container");
	if (!owner || strcmp(owner, id) != 0) {
		cJSON_Delete(j);
		return NULL;
	}
	p->owner = pf_take(id);
	return j;
}

/* ---- begin ---- */

/* The namespace that the container will be in, opened, as *fd; -1: a new one. Returns 0 when it is the
 * host's.
 */
static int find_netns(const struct pf_spec *spec, int *fd, char **name, struct pf_err *err)
{
	const char *path = join_path(spec, CLONE_NEWNET);
	struct stat st, mine;

	*fd = -1;
	if (!path)
		return spec->clone_flags & CLONE_NEWNET ? 1 : 0;
	PF_CLOSE int ns = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (ns < 0 || fstat(ns, &st) < 0 || stat("/proc/self/ns/net", &mine) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "linux.namespaces: path %s", path);
	if (ioctl(ns, NS_GET_NSTYPE) != CLONE_NEWNET)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "linux.namespaces: path %s is no network namespace", path);
	if (st.st_ino == mine.st_ino && st.st_dev == mine.st_dev)
		return 0;
	*name = pf_asprintf("%ju-%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	*fd = pf_take_fd(&ns);
	return 1;
}

/* Have the container join the namespace behind p->netns, whatever its path means by then. */
static void pin(struct pf_pod *p, struct pf_spec *spec)
{
	char *path = pf_asprintf("/proc/self/fd/%d", p->netns);

	for (size_t i = 0; i < spec->n_joins; i++)
		if (spec->joins[i].flag == CLONE_NEWNET) {
			free(spec->joins[i].path);
			spec->joins[i].path = path;
			return;
		}
	struct pf_ns_join *more = realloc(spec->joins, (spec->n_joins + 1) * sizeof(*more));
	if (!more)
		abort();
	spec->joins = more;
	spec->joins[spec->n_joins++] = (struct pf_ns_join){.flag = CLONE_NEWNET, .path = path};
	spec->clone_flags &= ~(uint64_t)CLONE_NEWNET;
}

static int join_owner(struct pf_pod *p, const cJSON *owner, const char *text, struct pf_err *err)
{
	PF_JSON cJSON *wanted = text ? parse_policy(text, err) : NULL;
	const cJSON *has = cJSON_GetObjectItemCaseSensitive(owner, "networking");

	if (text && !wanted)
		return -1;
	if (wanted && !cJSON_Compare(wanted, has, true))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"annotation " PF_POD_POLICY
			": the network is under another policy already, that of container %s (remedy: put "
			"the policy on the pod)",
			p->owner);
	PF_FREE char *control = pf_asprintf("../%s/control", p->owner);
	if (symlinkat(control, p->dir, "control") < 0)
		return pf_fail(err, errno, "state directory");
	return save_policy_file(p, err);
}

static int start_keeper(struct pf_pod *p, const struct pf_spec *spec, struct pf_err *err)
{
	PF_FREE char *resolver = find_resolver(spec);
	struct pf_policy *policy = pf_policy_compile(p->networking, err);
	struct pf_podkeeper k = {.dirs = p->dirs,
		.id = p->id,
		.dir = p->dir,
		.netns = p->netns,
		.policy = policy,
		.hostname = spec->hostname,
		.resolver = resolver};
	struct stat st;

	if (!policy)
		return pf_wrap(err, "annotation " PF_POD_POLICY);
	pf_policy_set_revision(policy, 1);
	int r = pf_podkeeper_start(&k, &p->keeper, &p->sock, &p->netns, err);
	pf_policy_unref(policy);
	if (r < 0)
		return pf_wrap(err, "annotation " PF_POD_POLICY);
	if (!p->name) {
		if (fstat(p->netns, &st) < 0)
			return pf_fail(err, errno, "network namespace");
		p->name = pf_asprintf("%ju-%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	}
	p->owner = pf_strdup(p->id);
	return 0;
}

/* No two may bring a policy to one namespace at a time. */
static int lock_registry(struct pf_pod *p, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_open(p->dirs->root, REGISTRY, err);

	p->lock = dir < 0 ? -1 : pf_lock_file_at(dir, "lock", true, err);
	return p->lock < 0 ? -1 : 0;
}

int pf_pod_begin(const struct pf_dirs *d, const char *id, int dir, struct pf_spec *spec,
	struct pf_buf *warnings, struct pf_pod *p, struct pf_err *err)
{
	const cJSON *a = cJSON_GetObjectItemCaseSensitive(spec->annotations, PF_POD_POLICY);
	const char *text = cJSON_GetStringValue(a);
	PF_JSON cJSON *owner = NULL;

	*p = (struct pf_pod){.dirs = d, .id = id, .dir = dir, .netns = -1, .lock = -1, .sock = -1};
	if (!text && !join_path(spec, CLONE_NEWNET))
		return 0;
	int own = find_netns(spec, &p->netns, &p->name, err);
	if (own < 0)
		return text ? -1 : (*err = PF_ERR_INIT, 0); /* whoever joins it will say so */
	if (!own)
		return !text ? 0
			     : pf_fail_kind(err, PF_ERR_INVALID, 0,
				       "annotation " PF_POD_POLICY
				       ": the container is in the host's network, which no policy applies to "
				       "(remedy: no hostNetwork, or no annotation)");
	if (text && lock_registry(p, err) < 0)
		return -1;
	if (p->name)
		owner = find_owner(p);
	if (!owner && !text)
		return 0;
	p->caps_matter = caps_matter(spec, p->netns);
	if (p->caps_matter && check_caps(&spec->process.caps, has_own_pid(spec), warnings, err) < 0)
		return -1;
	if (owner) {
		if (join_owner(p, owner, text, err) < 0)
			return -1;
	} else {
		p->networking = parse_policy(text, err);
		if (!p->networking || start_keeper(p, spec, err) < 0)
			return -1;
	}
	pin(p, spec);
	return 0;
}

/* ---- commit ---- */

/* So that the log can say which container of a pod it was. Without it, it does not say. */
static void introduce(const struct pf_pod *p, const struct pf_container *c)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_JSON cJSON *msg = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;
	struct stat st;

	/* A cgroup's id is the number of its directory. */
	if (pf_container_cgroup(c, &cg, &ignored) < 0 || fstat(pf_cgroup_fd(cg), &st) < 0)
		return;
	cJSON_AddStringToObject(msg, "op", "container");
	cJSON_AddStringToObject(msg, "id", p->id);
	pf_json_add_int(msg, "cgroup", (int64_t)st.st_ino);
	/* The answer is not waited for: a keeper that does not move is no reason not to have the container.
	 */
	PF_CLOSE int s = pf_control_connect(p->dirs, p->owner, &ignored);
	if (s >= 0)
		(void)pf_control_send(s, msg, -1, &ignored);
}

int pf_pod_commit(struct pf_pod *p, const struct pf_container *c, int pidfd, struct pf_err *err)
{
	if (!p->owner)
		return 0;
	if (p->sock >= 0) {
		PF_CLOSE int dir = pf_dirs_open(p->dirs->root, REGISTRY, err);
		if (dir < 0 || save_policy_file(p, err) < 0 ||
			pf_replace_file_at(dir, p->name, p->id, strlen(p->id), 0600, false, err) < 0 ||
			pf_podkeeper_go(p->sock, pidfd, err) < 0)
			return -1;
	}
	introduce(p, c);
	return 0;
}

void pf_pod_done(struct pf_pod *p)
{
	int *fds[] = {&p->sock, &p->netns, &p->lock};

	for (size_t i = 0; i < 3; i++)
		if (*fds[i] >= 0)
			close(pf_take_fd(fds[i]));
	free(p->name);
	free(p->owner);
	cJSON_Delete(p->networking);
	p->name = p->owner = NULL;
	p->networking = NULL;
}

/* ---- afterwards ---- */

int pf_pod_exec_caps(int dir, bool own_pid, struct pf_caps *caps, struct pf_err *err)
{
	struct pf_err e = PF_ERR_INIT;
	PF_JSON cJSON *j = load_policy_file(dir, &e);

	if (!j) {
		if (e.kind == PF_ERR_NOT_FOUND)
			return 0;
		*err = e;
		return -1;
	}
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, "caps_matter"))
		       ? check_caps(caps, own_pid, NULL, err)
		       : 0;
}

static int keeper_pidfd(const cJSON *owner, pid_t *pid)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(owner, "keeper"),
		    *start = cJSON_GetObjectItemCaseSensitive(owner, "keeper_start");

	if (!cJSON_IsNumber(n) || !cJSON_IsNumber(start))
		return -1;
	*pid = (pid_t)n->valuedouble;
	return pf_pidfd_open_checked(*pid, (uint64_t)start->valuedouble);
}

void pf_pod_describe(const struct pf_dirs *d, int dir, cJSON *state)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *mine = load_policy_file(dir, &ignored), *theirs = NULL;
	const char *id = get(mine, "container");
	pid_t pid = 0;

	if (!id)
		return;
	PF_CLOSE int owner_dir = pf_dirs_run(d, id, false, &ignored);
	theirs = owner_dir < 0 ? NULL : load_policy_file(owner_dir, &ignored);
	PF_CLOSE int keeper = keeper_pidfd(theirs, &pid);
	bool alive = keeper >= 0 && !pf_pidfd_ended(keeper);
	cJSON *e = cJSON_AddObjectToObject(state, "egress");
	cJSON_AddStringToObject(e, "container", id);
	if (alive)
		pf_json_add_int(e, "keeper", pid);
	cJSON_AddStringToObject(e, "status", alive ? "enforced" : "closed");
}

void pf_pod_end(const struct pf_dirs *d, const char *id, int dir)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *mine = load_policy_file(dir, &ignored);
	const char *owner = get(mine, "container"), *name = get(mine, "netns");
	PF_FREE char *is = NULL;
	pid_t pid;

	if (!owner || !name || strcmp(owner, id) != 0)
		return;
	PF_CLOSE int keeper = keeper_pidfd(mine, &pid);
	/* It has seen the end of the container as well; it is only given the time to say its last. */
	if (keeper >= 0 && pf_pidfd_wait(keeper, END_MS) != 1)
		(void)pidfd_send_signal(keeper, SIGKILL, NULL, 0);
	PF_CLOSE int registry = pf_dirs_open(d->root, REGISTRY, &ignored);
	if (registry >= 0 && strchr(name, '/') == NULL &&
		pf_read_file_at(registry, name, 256, &is, NULL, &ignored) == 0 && strcmp(is, id) == 0)
		(void)unlinkat(registry, name, 0);
}
