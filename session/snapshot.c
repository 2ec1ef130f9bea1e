/* Theory of operation: a snapshot.
 *
 * The helper (pinfold-store) packs; it gets the upper as a descriptor and says on its standard output how far
 * it is:
 *
 *     helper: packs while the sandbox runs        → {"phase":"ready"}
 *     we:     run checkpoint.pre inside,
 *             freeze the cgroup                   → a byte on its standard input
 *     helper: syncs, finds what changed meanwhile,
 *             sets that aside                     → {"phase":"thaw"}
 *     we:     thaw, run checkpoint.post inside
 *     helper: finishes and commits                → the result
 *
 * Frozen is only the time between our byte and "thaw", which grows with what was written in the meantime and
 * not with what there is. A sandbox in which nothing can write (stopped, or paused) needs no phases. */

#include "session/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/keep.h"
#include "sandbox/cgroup.h"
#include "session/audit.h"
#include "session/config.h"
#include "session/control.h"
#include "session/record.h"
#include "session/session.h"

/* How long processes may take to stop: one in an uninterruptible wait holds up the rest. */
#define FREEZE_MS 5000
/* For each of checkpoint.pre and checkpoint.post. */
#define HOOK_MS 30000

struct helper {
	pid_t pid;
	int in, out, errors;
	struct pf_buf line;
};

static int spawn(struct helper *h, const struct pf_dirs *d, int upper_fd, bool live, struct pf_err *err)
{
	int in[2], out[2];
	PF_FREE char *path = pf_helper_path("pinfold-store", err);
	char fd_text[16], tty_text[16];

	if (!path)
		return -1;
	/* A file takes whatever the helper has to say; a pipe that nobody reads yet would stop it. */
	h->errors = memfd_create("pinfold-errors", MFD_CLOEXEC);
	if (h->errors < 0 || pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	/* Somebody may be watching. */
	PF_CLOSE int tty = isatty(STDERR_FILENO) ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : -1;
	snprintf(fd_text, sizeof(fd_text), "%d", upper_fd);
	snprintf(tty_text, sizeof(tty_text), "%d", tty);
	const char *argv[12] = {
		path, "--root", d->root, "--store", d->store, "snapshot-write", "--upper-fd", fd_text};
	size_t n = 8;
	if (live)
		argv[n++] = "--live";
	if (tty >= 0) {
		argv[n++] = "--progress";
		argv[n++] = tty_text;
	}
	h->pid = fork();
	if (h->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(h->errors, 2);
		pf_set_cloexec(upper_fd, false);
		if (tty >= 0)
			pf_set_cloexec(tty, false);
		execv(path, (char *const *)argv);
		_exit(127);
	}
	int saved = errno;
	close(in[0]);
	close(out[1]);
	h->in = in[1];
	h->out = out[0];
	return h->pid < 0 ? pf_fail(err, saved, "start %s", path) : 0;
}

/* The helper's next line as JSON, NULL when it has ended. */
static cJSON *next_line(struct helper *h)
{
	struct pf_err ignored = PF_ERR_INIT;

	for (;;) {
		char *nl = h->line.len ? memchr(h->line.data, '\n', h->line.len) : NULL;
		if (nl) {
			size_t len = (size_t)(nl - h->line.data);
			*nl = '\0';
			cJSON *j = pf_json_parse("helper", h->line.data, len, &ignored);
			h->line.len -= len + 1;
			memmove(h->line.data, nl + 1, h->line.len);
			if (j)
				return j;
			continue;
		}
		char chunk[4096];
		ssize_t n = read(h->out, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || h->line.len > (1 << 20))
			return NULL;
		pf_buf_add(&h->line, chunk, (size_t)n);
	}
}

/* What it wrote to standard error is our error. */
static int helper_failed(struct helper *h, int status, struct pf_err *err)
{
	char text[800];
	(void)lseek(h->errors, 0, SEEK_SET);
	ssize_t n = pf_read_full(h->errors, text, sizeof(text) - 1);

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = '\0';
	/* Its own name and verb say nothing to our user. */
	static const char prefix[] = "pinfold: snapshot-write: ";
	const char *msg = pf_starts_with(text, prefix) ? text + sizeof(prefix) - 1 : text;
	if (!*msg)
		msg = WIFSIGNALED(status) ? "the helper was killed" : "the helper failed";
	return pf_fail(err, 0, "%s", msg);
}

/* The sandbox file's labels, and above them those of this call. */
static void add_labels(cJSON *request, const cJSON *file, const cJSON *own)
{
	cJSON *labels = cJSON_AddObjectToObject(request, "labels");
	const cJSON *sets[] = {file, own}, *l;

	for (size_t i = 0; i < 2; i++)
		cJSON_ArrayForEach(l, sets[i])
		{
			cJSON_DeleteItemFromObjectCaseSensitive(labels, l->string);
			cJSON_AddItemToObject(labels, l->string, cJSON_Duplicate(l, true));
		}
}

static cJSON *request(const struct pf_dirs *d, const struct pf_state *s, const char *name,
	const cJSON *labels, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(d, s->id, false, err);
	PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, err);
	uint64_t revision;

	/* What is restored has the policy that was in force, not the one it began with. */
	if (!record || pf_session_live_policy(dir, record, &revision, err) < 0)
		return NULL;
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(record, "config");
	const cJSON *from = cJSON_GetObjectItemCaseSensitive(record, "checkpoint");
	cJSON *r = cJSON_CreateObject();
	cJSON_AddStringToObject(r, "sandbox_id", s->id);
	if (name)
		cJSON_AddStringToObject(r, "name", name);
	if (cJSON_IsString(from))
		cJSON_AddStringToObject(r, "from", from->valuestring);
	if (s->checkpoint)
		cJSON_AddStringToObject(r, "parent", s->checkpoint);
	cJSON *base = cJSON_AddObjectToObject(r, "base_image");
	cJSON_AddStringToObject(base, "ref", s->image ? s->image : "");
	cJSON_AddStringToObject(base, "digest", s->image_digest ? s->image_digest : "");
	add_labels(r, cJSON_GetObjectItemCaseSensitive(config, "labels"), labels);
	if (config) {
		cJSON_AddItemToObject(r, "sandbox_file", cJSON_Duplicate(config, true));
		const cJSON *net = cJSON_GetObjectItemCaseSensitive(config, "networking");
		if (net)
			cJSON_AddItemToObject(r, "policy", cJSON_Duplicate(net, true));
		const cJSON *ck = cJSON_GetObjectItemCaseSensitive(config, "checkpoint");
		const cJSON *exclude = cJSON_GetObjectItemCaseSensitive(ck, "exclude");
		if (exclude)
			cJSON_AddItemToObject(r, "exclude", cJSON_Duplicate(exclude, true));
	}
	return r;
}

/* The sandbox's freezer. The keeper knows when it is closed by us: should we be killed meanwhile, the
 * connection breaks and the keeper opens it again. */
struct freezer {
	struct pf_cgroup *cgroup;
	int control;
	const struct pf_dirs *d;
	const char *id;
	char **pre, **post; /* commands of the sandbox file, NULL: none */
	struct pf_err post_failed;
};

static int tell_keeper(const struct freezer *f, const char *op, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", op);
	return pf_control_send(f->control, msg, -1, err);
}

static int set_frozen(void *arg, bool frozen, struct pf_err *err)
{
	const struct freezer *f = arg;

	if (frozen && tell_keeper(f, "freezing", err) < 0)
		return -1;
	if (pf_cgroup_freeze(f->cgroup, frozen, FREEZE_MS, err) < 0)
		return -1;
	return frozen ? 0 : tell_keeper(f, "thawed", err);
}

/* A command of the sandbox file's, inside, as its user. It must not change who gets our signals later. */
static int run_inside(const struct freezer *f, const char *what, char *const *argv, struct pf_err *err)
{
	const struct pf_exec_opts o = {.argv = argv,
		.timeout_ms = HOOK_MS,
		.memory = -1,
		.pids = -1,
		.millicpus = -1,
		.capture = true,
		.capture_max = 400,
		.internal = true};
	struct pf_exec_result r = {0};
	sigset_t mask;
	int rc = 0;

	(void)sigprocmask(SIG_SETMASK, NULL, &mask);
	if (pf_session_exec(f->d, f->id, &o, &r, err) < 0)
		rc = pf_wrap(err, "%s", what);
	else if (r.limit && strcmp(r.limit, "timeout") == 0)
		rc = pf_fail(err, 0, "%s: it was not done in %d s", what, HOOK_MS / 1000);
	else if (r.exit_code != 0)
		rc = pf_fail(
			err, 0, "%s: exit code %d: %.300s", what, r.exit_code, r.err_out ? r.err_out : "");
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	pf_exec_result_done(&r);
	return rc;
}

static int before_freeze(void *arg, struct pf_err *err)
{
	const struct freezer *f = arg;

	if (!f->pre || !*f->pre || run_inside(f, "checkpoint.pre", f->pre, err) == 0)
		return 0;
	/* The exit codes of a command that is missing are for who asked for that command. */
	if (err->kind == PF_ERR_NO_COMMAND || err->kind == PF_ERR_NO_EXEC)
		err->kind = PF_ERR_STATE;
	return -1;
}

static void after_thaw(void *arg)
{
	struct freezer *f = arg;

	if (f->post && *f->post)
		(void)run_inside(f, "checkpoint.post", f->post, &f->post_failed);
}

static int read_hooks(struct freezer *f, const cJSON *req, struct pf_err *err)
{
	const cJSON *ck = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(req, "sandbox_file"), "checkpoint");

	if (!ck)
		return 0;
	return pf_json_strv(ck, "checkpoint", "pre", &f->pre, err) < 0 ||
			       pf_json_strv(ck, "checkpoint", "post", &f->post, err) < 0
		       ? -1
		       : 0;
}

/* Drive the helper through its phases. *result is its last line. */
static int drive(struct helper *h, const cJSON *req, const struct pf_snapshot_freezer *f, cJSON **result,
	int64_t *frozen_us, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(req);
	int64_t since = 0;
	bool frozen = false, prepared = false;
	sigset_t deadly, mask;
	int r = 0;
	cJSON *j;

	/* Who is told to end while the sandbox stands still does so when it goes again: a container of OCI
	 * has no keeper that would see to that. */
	sigemptyset(&deadly);
	sigaddset(&deadly, SIGHUP);
	sigaddset(&deadly, SIGINT);
	sigaddset(&deadly, SIGQUIT);
	sigaddset(&deadly, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, NULL, &mask);
	if (pf_write_all(h->in, text, strlen(text)) < 0 || pf_write_all(h->in, "\n", 1) < 0)
		r = -1; /* it has ended; its error text says why */
	if (!f)
		close(pf_take_fd(&h->in));
	while (r == 0 && (j = next_line(h))) {
		const char *phase = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "phase"));
		if (!phase) {
			cJSON_Delete(*result);
			*result = j;
			continue;
		}
		if (strcmp(phase, "ready") == 0 && f) {
			r = f->before ? f->before(f->arg, err) : 0;
			prepared = r == 0;
			since = pf_now_us();
			(void)sigprocmask(SIG_BLOCK, &deadly, NULL);
			if (r == 0)
				r = f->set(f->arg, true, err);
			frozen = r == 0;
			if (!frozen)
				(void)sigprocmask(SIG_SETMASK, &mask, NULL);
			if (r < 0)
				(void)kill(h->pid, SIGTERM); /* our own child */
			else
				(void)pf_write_all(h->in, "f", 1);
		} else if (strcmp(phase, "thaw") == 0 && frozen) {
			r = f->set(f->arg, false, err);
			frozen = false;
			*frozen_us = pf_now_us() - since;
			(void)sigprocmask(SIG_SETMASK, &mask, NULL);
			if (f->after && r == 0)
				f->after(f->arg);
			prepared = prepared && r < 0;
		}
		cJSON_Delete(j);
	}
	if (frozen) {
		struct pf_err ignored = PF_ERR_INIT;
		(void)f->set(f->arg, false, &ignored);
		*frozen_us = pf_now_us() - since;
		(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	}
	if (prepared && f->after)
		f->after(f->arg);
	return r;
}

cJSON *pf_snapshot_pack(const struct pf_dirs *d, int upper_fd, const cJSON *req,
	const struct pf_snapshot_freezer *f, int64_t *frozen_us, struct pf_err *err)
{
	struct helper h = {.in = -1, .out = -1, .errors = -1};
	cJSON *result = NULL;
	int status = 0, r;

	(void)signal(SIGPIPE, SIG_IGN);
	r = spawn(&h, d, upper_fd, f != NULL, err);
	if (r == 0) {
		r = drive(&h, req, f, &result, frozen_us, err);
		if (h.in >= 0)
			close(h.in);
		while (waitpid(h.pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!*err->msg && (r < 0 || !result || !WIFEXITED(status) || WEXITSTATUS(status) != 0))
			r = helper_failed(&h, status, err);
		close(h.out);
		close(h.errors);
	}
	pf_buf_done(&h.line);
	if (r < 0) {
		cJSON_Delete(result);
		return NULL;
	}
	return result;
}

static void after(const struct pf_dirs *d, struct pf_state *s, const cJSON *result)
{
	struct pf_err ignored = PF_ERR_INIT;
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(result, "checkpoint"));
	PF_CLOSE int log = pf_audit_open(d, s->id, &ignored);

	if (digest)
		(void)pf_state_mark_checkpoint(d, s->id, digest, &ignored);
	if (log >= 0)
		(void)pf_audit_write(log, "snapshot", cJSON_Duplicate(result, true), &ignored);
}

/* Of a sandbox whose lock is held, or whose keeper is waiting for us (upper_fd >= 0). */
static cJSON *take(const struct pf_dirs *d, struct pf_state *s, const char *name, const cJSON *labels,
	int upper_fd, struct pf_err *err)
{
	struct pf_upper upper = {.fd = -1};
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_JSON cJSON *req = request(d, s, name, labels, err);
	bool running = upper_fd < 0 && s->status == PF_STATUS_RUNNING;
	struct freezer f = {.control = -1, .d = d, .id = s->id, .post_failed = PF_ERR_INIT};
	cJSON *result = NULL;
	int64_t frozen_us = 0;

	/* Nothing is left then that has a file mapped, and may write to it unseen. */
	if (req && (upper_fd >= 0 || s->status == PF_STATUS_STOPPED))
		cJSON_AddBoolToObject(req, "ended", true);
	if (req && read_hooks(&f, req, err) == 0 &&
		(upper_fd >= 0 || pf_session_upper(d, s, &upper, err) == 0) &&
		(!running || (pf_cgroup_probe(&host, err) == 0 &&
				     pf_cgroup_open(&host, s->cgroup, &cg, err) == 0 &&
				     (f.control = pf_control_connect(d, s->id, err)) >= 0))) {
		f.cgroup = cg;
		const struct pf_snapshot_freezer by = {
			.set = set_frozen, .before = before_freeze, .after = after_thaw, .arg = &f};
		result = pf_snapshot_pack(
			d, upper_fd >= 0 ? upper_fd : upper.fd, req, running ? &by : NULL, &frozen_us, err);
	}
	if (f.control >= 0)
		close(f.control);
	pf_session_upper_done(&upper);
	if (result) {
		cJSON_DeleteItemFromObjectCaseSensitive(result, "frozen_ms");
		cJSON_AddNumberToObject(result, "frozen_ms", (double)frozen_us / 1000);
		if (*f.post_failed.msg)
			cJSON_AddStringToObject(result, "post_error", f.post_failed.msg);
	}
	pf_strv_free(f.pre);
	pf_strv_free(f.post);
	return result;
}

static cJSON *snapshot(const struct pf_dirs *d, const char *id, const char *name, const char *on,
	const cJSON *labels, int upper_fd, struct pf_err *err)
{
	struct pf_state s = {0};
	PF_CLOSE int lock = -1;

	if (pf_check_id("sandbox id", id, err) < 0 || (name && pf_check_id("checkpoint name", name, err) < 0))
		return NULL;
	/* Not taking the lock on an id that was never there: it would leave a lock file behind. */
	if (pf_state_load(d, id, &s, err) < 0)
		return NULL;
	if (upper_fd < 0) {
		pf_state_done(&s);
		lock = pf_dirs_lock(d, id, true, err);
		if (lock < 0 || pf_state_load(d, id, &s, err) < 0)
			return NULL;
	}
	cJSON *result = take(d, &s, name, labels, upper_fd, err);
	if (result) {
		if (on)
			cJSON_AddStringToObject(result, "on", on);
		after(d, &s, result);
	}
	pf_state_done(&s);
	return result;
}

cJSON *pf_session_snapshot(
	const struct pf_dirs *d, const char *id, const char *name, const cJSON *labels, struct pf_err *err)
{
	return snapshot(d, id, name, NULL, labels, -1, err);
}

static void audit_failure(
	const struct pf_dirs *d, const char *id, const char *event, const char *on, const struct pf_err *why)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int log = pf_audit_open(d, id, &ignored);
	cJSON *line = cJSON_CreateObject();

	cJSON_AddStringToObject(line, "on", on);
	cJSON_AddStringToObject(line, "error", why->msg);
	if (log >= 0)
		(void)pf_audit_write(log, event, line, &ignored);
	else
		cJSON_Delete(line);
}

int pf_session_snapshot_auto(const struct pf_dirs *d, const char *id, const char *on, int64_t keep,
	int upper_fd, struct pf_err *err)
{
	PF_JSON cJSON *labels = cJSON_CreateObject(), *result = NULL;

	cJSON_AddStringToObject(labels, PF_CKPT_AUTO_LABEL, on);
	result = snapshot(d, id, NULL, on, labels, upper_fd, err);
	if (!result) {
		audit_failure(d, id, "snapshot_failed", on, err);
		return -1;
	}
	if (keep < 0)
		return 0;
	/* The new one is there whatever becomes of the old ones. */
	struct pf_err why = PF_ERR_INIT;
	PF_FREE char *helper = pf_helper_path("pinfold-store", &why);
	PF_FREE char *number = pf_asprintf("%lld", (long long)keep);
	char *argv[] = {helper, (char *)"--store", (char *)d->store, (char *)"checkpoint", (char *)"prune",
		(char *)"--auto", (char *)"--sandbox", (char *)id, (char *)"--keep-last", number, NULL};
	if (!helper || pf_run(argv, NULL, &why) < 0)
		audit_failure(d, id, "prune_failed", on, &why);
	return 0;
}

int pf_session_snapshot_on_destroy(const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	struct pf_err e = PF_ERR_INIT;
	const char *destroy = pf_config_on_name(PF_ON_DESTROY);
	PF_CLOSE int dir = pf_check_id("sandbox id", id, &e) < 0 ? -1 : pf_dirs_sandbox(d, id, false, &e);
	PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, &e);
	const cJSON *ck = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(record, "config"), "checkpoint");
	const cJSON *word, *keep = cJSON_GetObjectItemCaseSensitive(ck, "keep");
	struct pf_state s;

	cJSON_ArrayForEach(word, cJSON_GetObjectItemCaseSensitive(ck, "on"))
	{
		if (!cJSON_IsString(word) || strcmp(word->valuestring, destroy) != 0)
			continue;
		/* Half-made, or of before a reboot: there is nothing that a snapshot could be asked of. */
		if (pf_state_load(d, id, &s, &e) < 0)
			return 0;
		pf_state_done(&s);
		if (pf_session_snapshot_auto(d, id, destroy,
			    cJSON_IsNumber(keep) ? (int64_t)keep->valuedouble : -1, -1, err) < 0)
			return pf_wrap(err, "the checkpoint that the sandbox file asks for");
	}
	return 0;
}

/* A sandbox's id on the command line of diff becomes its open upper; everything else is a checkpoint's name.
 */
static int diff_side(
	const struct pf_dirs *d, const char *side, struct pf_upper *u, char **arg, struct pf_err *err)
{
	struct pf_state s;
	struct pf_err e = PF_ERR_INIT;

	*u = (struct pf_upper){.fd = -1};
	if (pf_state_load(d, side, &s, &e) < 0) {
		*arg = pf_strdup(side);
		return 0;
	}
	int r = pf_session_upper(d, &s, u, err);
	pf_state_done(&s);
	if (r < 0)
		return -1;
	pf_set_cloexec(u->fd, false);
	*arg = pf_asprintf("sandbox:%s:%d", side, u->fd);
	return 0;
}

int pf_session_diff(
	const struct pf_dirs *d, const char *a, const char *b, char *const *options, struct pf_err *err)
{
	struct pf_upper ua = {.fd = -1}, ub = {.fd = -1};
	const char *argv[64] = {NULL, "--root", d->root, "--store", d->store};
	char *path = pf_helper_path("pinfold-store", err), *arg_a = NULL, *arg_b = NULL;
	size_t n = 5;

	if (path && diff_side(d, a, &ua, &arg_a, err) == 0 &&
		(!b || diff_side(d, b, &ub, &arg_b, err) == 0)) {
		argv[0] = path;
		for (; options && *options && n < 60; options++)
			argv[n++] = *options;
		argv[n++] = "--";
		argv[n++] = arg_a;
		argv[n++] = arg_b;
		execv(path, (char *const *)argv);
		pf_fail(err, errno, "start %s", path);
	}
	pf_session_upper_done(&ua);
	pf_session_upper_done(&ub);
	free(arg_a);
	free(arg_b);
	free(path);
	return -1;
}
