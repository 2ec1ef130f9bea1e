/* Theory of operation: the gateway's process.
 *
 * It is this same program, started anew, so that of our memory it has nothing but what is written to it: one
 * document with the credentials of one session, and the socket that listens in the sandbox. Before it reads
 * a byte that comes from inside it has become a user that owns nothing, without groups, capabilities and the
 * means to get any, that starts no program, and changes no file and no other process. It ends with us, and
 * with the socket to us.
 *
 * To it go a document with its length in front, a descriptor, and then, whenever the lease changes, one
 * record. From it come single letters: r, it serves; b, a heartbeat from inside; s, the item's stop. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "session/confine.h"
#include "worker/gateway.h"
#include "worker/http.h"
#include "worker/log.h"

#define SETUP_MAX ((uint32_t)64 << 20)
#define START_MS 20000

struct record {
	int64_t state, ttl_ms;
};

/* ---- our end ---- */

static char *setup_of(const struct pf_gateway_opts *o, uid_t uid, const char *log_session, bool log_json)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	const struct {
		const char *key, *value;
	} strings[] = {{"base_url", o->base_url}, {"agent", o->agent}, {"placeholder", o->placeholder},
		{"bearer", o->bearer}, {"token", o->token}, {"key", o->key}, {"env", o->env},
		{"work_id", o->work_id}, {"session_id", o->session_id}, {"log_session", log_session}};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if (strings[i].value)
			cJSON_AddStringToObject(j, strings[i].key, strings[i].value);
	cJSON_AddBoolToObject(j, "log_json", log_json);
	pf_json_add_int(j, "uid", (int64_t)uid);
	cJSON_AddItemToObject(j, "session", cJSON_Duplicate(o->session, true));
	return pf_json_text(j);
}

static pid_t start_process(int sock)
{
	pid_t self = getpid(), pid = fork();

	if (pid == 0) {
		char number[16];
		sigset_t none;
		sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		/* Signals of our terminal are for us; it goes when we do. */
		(void)setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int fd = fcntl(sock, F_DUPFD, 3);
		(void)snprintf(number, sizeof(number), "%d", fd);
		char *argv[] = {(char *)(uintptr_t) "pinfold-worker-gateway", NULL};
		if (getppid() == self && setenv(PF_GATEWAYD_ENV, number, 1) == 0)
			execv("/proc/self/exe", argv);
		_exit(127);
	}
	return pid;
}

int pf_gatewayd_start(struct pf_gatewayd *d, const struct pf_gateway_opts *o, int listening, uid_t uid,
	const char *log_session, bool log_json, struct pf_err *err)
{
	PF_FREE char *setup = setup_of(o, uid, log_session, log_json);
	uint32_t len = (uint32_t)strlen(setup);
	int p[2];
	char ready = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		return pf_fail(err, errno, "socketpair");
	*d = (struct pf_gatewayd){.pid = start_process(p[1]), .sock = p[0]};
	close(p[1]);
	struct pollfd f = {.fd = d->sock, .events = POLLIN};
	bool sent = d->pid > 0 && pf_write_all(d->sock, &len, sizeof(len)) == 0 &&
		    pf_write_all(d->sock, setup, len) == 0 && pf_send_fd(d->sock, listening) == 0;
	explicit_bzero(setup, len);
	if (!sent || poll(&f, 1, START_MS) != 1 || recv(d->sock, &ready, 1, 0) != 1 || ready != 'r') {
		pf_gatewayd_stop(d);
		return pf_fail(err, 0, "the gateway's process did not start");
	}
	return 0;
}

void pf_gatewayd_tell(struct pf_gatewayd *d, enum pf_lease_state state, int64_t ttl_ms)
{
	struct record r = {.state = state, .ttl_ms = ttl_ms};

	(void)send(d->sock, &r, sizeof(r), MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool pf_gatewayd_hear(struct pf_gatewayd *d, bool *beat, bool *done)
{
	char letters[64];
	ssize_t n;

	while ((n = recv(d->sock, letters, sizeof(letters), MSG_DONTWAIT)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			*beat = *beat || letters[i] == 'b';
			*done = *done || letters[i] == 's';
		}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

void pf_gatewayd_stop(struct pf_gatewayd *d)
{
	if (d->pid > 0) {
		(void)kill(d->pid, SIGKILL);
		while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (d->sock >= 0)
		close(d->sock);
	*d = PF_GATEWAYD_INIT;
}

/* ---- its end ---- */

static int become(uid_t uid, struct pf_err *err)
{
	/* It reads certificates, and what resolves names. */
	static const char *const read_only[] = {"/", NULL};

	/* As an ordinary user's (in tests, in a container without the right) it stays who it is. */
	if (geteuid() == 0 &&
		(setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
		return pf_fail(err, errno, "become user %u", uid);
	/* A change of user takes this back. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_DUMPABLE, 0) < 0)
		return pf_fail(err, errno, "give up privileges");
	if (pf_confine_bound(RLIMIT_CORE, 0, err) < 0 ||
		pf_confine_bound(RLIMIT_DATA, PF_CONFINE_DATA, err) < 0 ||
		pf_confine_files(NULL, read_only, NULL, NULL, err) < 0)
		return -1;
	return pf_confine_filter(pf_confine_bystander, err);
}

/* Letters out and records in, until the other end is gone. */
static void serve(struct pf_gateway *g, struct pf_gateway_lease *lease, int sock, int wake)
{
	struct pollfd p[2] = {{.fd = sock, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
	int64_t beat = 0;
	bool done = false;

	for (;;) {
		struct record r;
		uint64_t n;
		(void)poll(p, 2, -1);
		if (p[0].revents) {
			if (pf_read_full(sock, &r, sizeof(r)) != (ssize_t)sizeof(r))
				return;
			atomic_store(&lease->ttl_ms, r.ttl_ms);
			atomic_store(&lease->state, (int)r.state);
		}
		(void)!read(wake, &n, sizeof(n));
		if (pf_gateway_beat_us(g) != beat) {
			beat = pf_gateway_beat_us(g);
			(void)send(sock, "b", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
		if (!done && pf_gateway_done(g)) {
			done = true;
			(void)send(sock, "s", 1, MSG_NOSIGNAL);
		}
	}
}

static const char *member(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

int pf_gatewayd_main(int sock)
{
	static struct pf_gateway_lease lease;
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *j = NULL;
	uint32_t len;

	(void)pf_set_cloexec(sock, true);
	(void)signal(SIGPIPE, SIG_IGN);
	if (pf_read_full(sock, &len, sizeof(len)) != (ssize_t)sizeof(len) || len > SETUP_MAX)
		return 1;
	PF_FREE char *text = pf_calloc((size_t)len + 1, 1);
	if (pf_read_full(sock, text, len) != (ssize_t)len)
		return 1;
	j = cJSON_ParseWithLength(text, len);
	explicit_bzero(text, len);
	int listening = pf_recv_fd(sock), wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const cJSON *uid = cJSON_GetObjectItemCaseSensitive(j, "uid");
	pf_wlog_setup(
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, "log_json")), member(j, "log_session"));
	if (!cJSON_IsNumber(uid) || listening < 0 || wake < 0 || pf_http_init(&err) < 0 ||
		become((uid_t)uid->valuedouble, &err) < 0) {
		pf_wlog("error", "the gateway's process: %s", err.msg[0] ? err.msg : strerrordesc_np(errno));
		return 1;
	}
	struct pf_gateway_opts o = {.base_url = member(j, "base_url"),
		.agent = member(j, "agent"),
		.placeholder = member(j, "placeholder"),
		.bearer = member(j, "bearer"),
		.token = member(j, "token"),
		.key = member(j, "key"),
		.env = member(j, "env"),
		.work_id = member(j, "work_id"),
		.session_id = member(j, "session_id"),
		.session = cJSON_GetObjectItemCaseSensitive(j, "session"),
		.lease = &lease,
		.wake_fd = wake};
	struct pf_gateway *g = pf_gateway_start(&o, listening, &err);
	if (!g || send(sock, "r", 1, MSG_NOSIGNAL) != 1) {
		pf_wlog("error", "%s", err.msg);
		return 1;
	}
	serve(g, &lease, sock, wake);
	pf_gateway_stop(g);
	close(wake);
	return 0;
}
