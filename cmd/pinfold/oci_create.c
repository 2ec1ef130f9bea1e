/* create --bundle, start, run. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/units.h"
#include "cmd/pinfold/oci.h"
#include "sandbox/console.h"
#include "sandbox/selfguard.h"
#include "session/ocisnap.h"
#include "session/pod.h"

static const char create_help[] =
	"create --bundle DIR [options] ID\n\n"
	"Makes the OCI container ID from DIR/config.json; `start` lets it run. (Without --bundle: makes a\n"
	"session, see `pinfold create --help`.)\n\n"
	"  -b, --bundle DIR        where config.json is (default: here)\n"
	"      --console-socket S  where the terminal's master is sent to\n"
	"      --pidfd-socket S    where a pidfd of the first process is sent to\n"
	"      --pid-file FILE     gets the first process's pid\n"
	"      --no-pivot          for a root in the initramfs\n"
	"      --no-new-keyring    keep the caller's session keyring\n"
	"      --preserve-fds N    hand on N descriptors from 3 on\n";
static const char run_help[] = "run [options] ID\n\n"
			       "create and start, and wait for the end; its exit code is the program's.\n\n"
			       "  -d, --detach            do not wait\n"
			       "      --keep              leave the stopped container there\n"
			       "      --no-subreaper      accepted, without effect\n"
			       "  and the options of create\n";

struct request {
	struct pf_container_opts o;
	const char *bundle, *console_socket;
	bool detach, keep;
};

static int parse(int argc, char **argv, bool run, struct request *q)
{
	static const struct option options[] = {{"bundle", required_argument, NULL, 'b'},
		{"console-socket", required_argument, NULL, 1}, {"pidfd-socket", required_argument, NULL, 2},
		{"pid-file", required_argument, NULL, 3}, {"no-pivot", no_argument, NULL, 4},
		{"no-new-keyring", no_argument, NULL, 5}, {"preserve-fds", required_argument, NULL, 6},
		{"detach", no_argument, NULL, 'd'}, {"keep", no_argument, NULL, 7},
		{"no-subreaper", no_argument, NULL, 8}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct pf_err err = PF_ERR_INIT;
	int64_t n;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, run ? run_help : create_help)) != -1) {
		switch (c) {
		case 'b':
			q->bundle = optarg;
			break;
		case 1:
			q->console_socket = optarg;
			break;
		case 2:
			q->o.pidfd_socket = optarg;
			break;
		case 3:
			q->o.pid_file = optarg;
			break;
		case 4:
			q->o.no_pivot = true;
			break;
		case 5:
			q->o.no_new_keyring = true;
			break;
		case 6:
			if (pf_parse_int("--preserve-fds", optarg, 0, 1000, &n, &err) < 0)
				return pf_oci_fail(argv[0], &err, PF_OCI_FAILED);
			q->o.keep_fds = (unsigned)n;
			break;
		case 'd':
		case 7:
			if (!run)
				return pf_usage(argv[0], "--detach and --keep are for run");
			*(c == 'd' ? &q->detach : &q->keep) = true;
			break;
		default:
			break;
		}
	}
	if (optind + 1 != argc)
		return pf_usage(argv[0], optind == argc ? "needs an ID" : "takes one ID");
	q->o.id = argv[optind];
	return 0;
}

/* The state directory of a new container; whatever has that id is in the way. */
static int make_dir(const char *id, struct pf_err *err)
{
	PF_CLOSE int root = pf_dirs_open(pf_globals.dirs.root, "", err);

	if (root < 0)
		return -1;
	if (mkdirat(root, id, 0700) < 0)
		return errno == EEXIST
			       ? pf_fail_kind(err, PF_ERR_EXISTS, 0, "container with id exists: %s", id)
			       : pf_fail(err, errno, "%s/%s", pf_globals.dirs.root, id);
	int fd = openat(root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "%s/%s", pf_globals.dirs.root, id) : fd;
}

static void remove_dir(const char *id)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int root = pf_dirs_open(pf_globals.dirs.root, "", &ignored);

	if (root >= 0)
		(void)pf_rm_rf_at(root, id, &ignored);
}

/* Paths that were given relative to where we were, before we go to the bundle. */
static char *absolute(const char *path)
{
	PF_FREE char *cwd = NULL;

	if (!path || path[0] == '/')
		return path ? pf_strdup(path) : NULL;
	cwd = getcwd(NULL, 0);
	return pf_asprintf("%s/%s", cwd ? cwd : "", path);
}

/* Create under the lock; on return the container waits to be started, or nothing is there. */
static int create(struct request *q, struct pf_spec *spec, struct pf_oci *h, int *pidfd, struct pf_err *err)
{
	PF_BUF struct pf_buf warnings = {0};
	PF_CLOSE int cache = -1, console = -1;
	PF_POD struct pf_pod pod = PF_POD_INIT;

	assert(q->o.id); /* prepare() has checked it */
	h->id = q->o.id;
	h->lock = pf_dirs_lock(&pf_globals.dirs, q->o.id, true, err);
	if (h->lock < 0)
		return -1;
	h->dir = make_dir(q->o.id, err);
	if (h->dir < 0)
		return -1;
	cache = pf_oci_cache();
	q->o.dir = h->dir;
	q->o.cache_dir = cache;
	int r = 0;
	if (q->console_socket) {
		console = pf_console_connect(q->console_socket, err);
		r = console < 0 ? pf_wrap(err, "--console-socket") : 0;
		q->o.console_fd = console;
	}
	/* The network's policy first: there is no moment in which the payload runs and the rules do not. */
	if (r == 0)
		r = pf_pod_begin(&pf_globals.dirs, q->o.id, h->dir, spec, &warnings, &pod, err);
	if (r == 0)
		r = pf_container_create(&q->o, spec, &h->c, pidfd, &warnings, err);
	if (r == 0 && pf_pod_commit(&pod, &h->c, *pidfd, err) < 0) {
		struct pf_err ignored = PF_ERR_INIT;
		(void)pf_container_delete(h->dir, &h->c, true, &warnings, &ignored);
		r = -1;
	}
	pf_oci_warn(&warnings);
	if (r < 0) {
		pf_pod_done(&pod);
		pf_pod_end(&pf_globals.dirs, q->o.id, h->dir);
		remove_dir(q->o.id);
		pf_dirs_unlock_remove(&pf_globals.dirs, q->o.id, &h->lock);
	}
	return r;
}

/* LISTEN_FDS is how a service manager passes sockets: sd_listen_fds(3). 0 when they are not there: then the
 * variable is one that some program above us was meant by, and that we have inherited. */
static unsigned listen_fds(unsigned keep)
{
	struct pf_err ignored = PF_ERR_INIT;
	const char *text = getenv("LISTEN_FDS");
	int n = text ? atoi(text) : 0;

	return n > 0 && n <= 1000 && pf_oci_check_fds(keep + (unsigned)n, &ignored) == 0 ? (unsigned)n : 0;
}

/* The configuration; and ourselves out of the container's reach. */
static int prepare(struct request *q, char **argv0, struct pf_spec *spec, char **bundle, struct pf_err *err)
{
	*bundle = realpath(q->bundle ? q->bundle : ".", NULL);
	if (!*bundle)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "bundle %s", q->bundle ? q->bundle : ".");
	q->o.listen_fds = listen_fds(q->o.keep_fds);
	if (pf_check_id("container id", q->o.id, err) < 0 || pf_oci_check_fds(q->o.keep_fds, err) < 0 ||
		pf_container_config(*bundle, spec, err) < 0 ||
		pf_oci_check_annotations(spec->annotations, err) < 0)
		return -1;
	if (pf_self_in_reach(spec) && pf_self_guard(argv0, err) < 0)
		return -1;
	q->o.bundle = *bundle;
	q->o.systemd_cgroup = pf_globals.systemd_cgroup;
	return 0;
}

static int enter_bundle(struct request *q, char *paths[3], struct pf_err *err)
{
	paths[0] = absolute(q->console_socket);
	paths[1] = absolute(q->o.pid_file);
	paths[2] = absolute(q->o.pidfd_socket);
	q->console_socket = paths[0];
	q->o.pid_file = paths[1];
	q->o.pidfd_socket = paths[2];
	return chdir(q->o.bundle) < 0 ? pf_fail(err, errno, "bundle %s", q->o.bundle) : 0;
}

int pf_oci_create(int argc, char **argv)
{
	struct request q = {.o = {.console_fd = -1, .cancel_fd = -1, .cache_dir = -1}};
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;
	struct pf_spec spec = {0};
	char *bundle = NULL, *paths[3] = {NULL};
	int pidfd = -1, r;

	pf_globals.failed = PF_OCI_FAILED;
	r = parse(argc, argv, false, &q);
	if (r)
		return r;
	r = prepare(&q, pf_globals.argv, &spec, &bundle, &err) < 0 || enter_bundle(&q, paths, &err) < 0 ||
			    create(&q, &spec, &h, &pidfd, &err) < 0
		    ? pf_oci_fail("create failed", &err, PF_OCI_FAILED)
		    : 0;
	pf_spec_done(&spec);
	free(bundle);
	for (int i = 0; i < 3; i++)
		free(paths[i]);
	if (pidfd >= 0)
		close(pidfd);
	return r;
}

int pf_cmd_start(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;

	while (pf_getopt(argc, argv, options, false, "start ID\n\nLets the created container ID run.\n") !=
		-1)
		;
	if (optind + 1 != argc)
		return pf_usage("start", "takes one ID");
	if (pf_oci_open(argv[optind], true, &h, &err) < 0 || pf_container_start(h.dir, &h.c, &err) < 0)
		return pf_oci_fail("start failed", &err, PF_OCI_FAILED);
	return 0;
}

static int finish(struct pf_oci *h, bool keep, int code)
{
	PF_BUF struct pf_buf warnings = {0};
	struct pf_err err = PF_ERR_INIT;

	if (keep)
		return code;
	h->c.status = PF_CONTAINER_STOPPED;
	if (pf_container_delete(h->dir, &h->c, true, &warnings, &err) < 0)
		(void)pf_oci_fail("run: delete", &err, 0);
	else {
		pf_oci_snapshot_at_exit(&pf_globals.dirs, h->dir, &h->c, &warnings);
		pf_pod_end(&pf_globals.dirs, h->id, h->dir);
		remove_dir(h->id);
	}
	pf_oci_warn(&warnings);
	pf_dirs_unlock_remove(&pf_globals.dirs, h->id, &h->lock);
	return code;
}

static int run(struct request *q, struct pf_spec *spec, struct pf_oci *h, struct pf_err *err)
{
	PF_CLOSE int pidfd = -1, console = -1, cancel = -1;
	struct stat st;
	int pair[2];

	if (!q->detach) {
		cancel = pf_oci_block_signals(err);
		if (cancel < 0)
			return PF_OCI_FAILED;
		q->o.cancel_fd = cancel;
		if (spec->process.terminal && !q->console_socket) {
			if (pf_oci_console_pair(pair, err) < 0)
				return PF_OCI_FAILED;
			console = pair[0];
			q->o.console_fd = pair[1];
		}
	}
	int r = create(q, spec, h, &pidfd, err);
	if (console >= 0)
		close(pair[1]);
	if (r < 0)
		return PF_OCI_FAILED;
	pid_t pid = h->c.pid;
	if (pf_container_start(h->dir, &h->c, err) < 0) {
		(void)pf_oci_wait(pid, pidfd, -1);
		return finish(h, false, PF_OCI_FAILED);
	}
	if (q->detach)
		return 0;
	/* Others may ask for it, pause it, kill it meanwhile. */
	close(pf_take_fd(&h->lock));
	int code = pf_oci_wait(pid, pidfd, console);
	h->lock = pf_dirs_lock(&pf_globals.dirs, h->id, true, err);
	if (h->lock < 0) {
		/* Whoever changes it meanwhile must not be got in the way of. */
		(void)pf_oci_fail("run: delete", err, 0);
		*err = (struct pf_err){0};
		return code;
	}
	/* Deleted by somebody else; the id may be another container's now. */
	if (fstat(h->dir, &st) == 0 && st.st_nlink == 0) {
		pf_dirs_unlock_remove(&pf_globals.dirs, h->id, &h->lock);
		return code;
	}
	return finish(h, q->keep, code);
}

int pf_cmd_run(int argc, char **argv)
{
	struct request q = {.o = {.console_fd = -1, .cancel_fd = -1, .cache_dir = -1}};
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;
	struct pf_spec spec = {0};
	char *bundle = NULL, *paths[3] = {NULL};
	int r = parse(argc, argv, true, &q);

	if (r)
		return r;
	r = prepare(&q, pf_globals.argv, &spec, &bundle, &err) < 0 || enter_bundle(&q, paths, &err) < 0
		    ? PF_OCI_FAILED
		    : run(&q, &spec, &h, &err);
	if (*err.msg)
		(void)pf_oci_fail("run failed", &err, r);
	pf_spec_done(&spec);
	free(bundle);
	for (int i = 0; i < 3; i++)
		free(paths[i]);
	return r;
}
