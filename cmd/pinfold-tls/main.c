/* Theory of operation.
 *
 * One of these per sandbox whose policy asks for it, started by the keeper while the box is being built, to
 * make the sandbox's authority, and again with the first connection that needs it; what the first one leaves
 * to the second is in the vault (descriptor 4). Descriptor 3 is the socket to the gate (netpolicy/tlslink.h).
 * It dials nobody: both ends of a connection come as descriptors, after the gate has decided that and where
 * it may go. What it decides is about requests.
 *
 * It reads what the sandbox sends, and it holds secrets; so it has nothing else: a user id that no other
 * process has, no capabilities, no file system (Landlock, and a filter that refuses to open anything), no new
 * sockets, no core files, and it cannot be traced. When the keeper ends, so does it. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/pinfold-tls/tls.h"
#include "netpolicy/tlslink.h"
#include "sandbox/caps.h"
#include "session/confine.h"

#define LINK 3
#define SECURE_HEAP ((size_t)1 << 20)
/* It is the host's memory, not the sandbox's. */
#ifdef __SANITIZE_ADDRESS__
#define DATA_MAX RLIM_INFINITY
#else
#define DATA_MAX ((rlim_t)4 << 30)
#endif
#define TOLD_MAX ((size_t)1 << 20)
#define RETRY_US 1000

static const char *const host_stores[] = {"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/cert.pem", NULL};

void tls_send(struct tls *t, const cJSON *msg)
{
	PF_FREE char *text = pf_json_text(msg);

	tls_send_text(t, text);
}

/* A gate that takes nothing is about to end, and this with it. */
void tls_send_text(struct tls *t, const char *text)
{
	if (t->told.len < TOLD_MAX)
		pf_buf_add(&t->told, text, strlen(text) + 1);
}

void tls_flush(struct tls *t)
{
	size_t at = 0;

	while (at < t->told.len) {
		const char *text = t->told.data + at;
		size_t len = strlen(text) + 1;
		ssize_t n = send(t->link.fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		at += len;
	}
	if (at) {
		memmove(t->told.data, t->told.data + at, t->told.len - at);
		t->told.len -= at;
	}
	if (t->told.len && !t->retry.pos)
		pf_loop_timer(&t->loop, &t->retry, pf_now_us() + RETRY_US);
}

static void on_retry(struct pf_timer *timer)
{
	tls_flush((struct tls *)(void *)((char *)timer - offsetof(struct tls, retry)));
}

static void on_idle(void *arg)
{
	tls_flush(arg);
}

static void say(struct tls *t, const char *op, const char *key, const char *text)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", op);
	cJSON_AddStringToObject(msg, key, text);
	tls_send(t, msg);
	tls_flush(t);
}

/* ---- TLS of both sides */

static int only_http1(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
	unsigned int in_len, void *arg)
{
	(void)ssl;
	(void)arg;
	for (unsigned int i = 0; i < in_len && in[i] < in_len - i; i += in[i] + 1U)
		if (in[i] == 8 && memcmp(in + i + 1, "http/1.1", 8) == 0) {
			*out = in + i + 1;
			*out_len = 8;
			return SSL_TLSEXT_ERR_OK;
		}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void common(SSL_CTX *ctx)
{
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	/* A server may say the secret back. */
	SSL_CTX_set_options(
		ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CLEANSE_PLAINTEXT);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
}

static int make_server(struct tls *t, struct pf_err *err)
{
	t->server = SSL_CTX_new(TLS_server_method());
	if (!t->server)
		return pf_fail(err, ENOMEM, "OpenSSL");
	common(t->server);
	SSL_CTX_set_alpn_select_cb(t->server, only_http1, NULL);
	/* A resumed session would not be asked for a name again. */
	SSL_CTX_set_session_cache_mode(t->server, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(t->server, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(t->server, 0);
	return 0;
}

static int add_authorities(X509_STORE *store, BIO *pem)
{
	X509 *x;
	int n = 0;

	while ((x = PEM_read_bio_X509_AUX(pem, NULL, NULL, NULL))) {
		n += X509_STORE_add_cert(store, x) == 1;
		X509_free(x);
	}
	ERR_clear_error();
	BIO_free(pem);
	return n;
}

/* Reading the host's authorities takes milliseconds, so it waits until somebody is to be verified. */
SSL_CTX *tls_upstream(struct tls *t)
{
	static const unsigned char alpn[] = "\x08http/1.1";

	if (t->upstream)
		return t->upstream;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx)
		return NULL;
	common(ctx);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1);
	resume_enable(ctx);
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	if (t->host_store >= 0 && lseek(t->host_store, 0, SEEK_SET) == 0)
		(void)add_authorities(store, BIO_new_fd(t->host_store, BIO_NOCLOSE));
	const char *own = pf_policy_upstream_ca(t->policy);
	if (own)
		(void)add_authorities(store, BIO_new_mem_buf(own, -1));
	t->upstream = ctx;
	return ctx;
}

/* ---- what the keeper says */

static int load(struct tls *t, int fd, bool with_credentials, struct pf_err *err)
{
	PF_CLOSE int f = fd;
	PF_JSON cJSON *j = pf_tlslink_read_document(f, err);
	struct pf_policy *p =
		j ? pf_policy_compile(cJSON_GetObjectItemCaseSensitive(j, "networking"), err) : NULL;
	if (!p)
		return -1;
	const cJSON *revision = cJSON_GetObjectItemCaseSensitive(j, "revision");
	if (cJSON_IsNumber(revision))
		pf_policy_set_revision(p, (uint64_t)revision->valuedouble);
	if (with_credentials &&
		pf_creds_read(cJSON_GetObjectItemCaseSensitive(j, "credentials"), &t->creds, err) < 0) {
		pf_policy_unref(p);
		return -1;
	}
	size_t n;
	(void)pf_policy_rules(p, &n);
	free(t->rule_quotas);
	t->rule_quotas = pf_calloc(n + 1, sizeof(*t->rule_quotas));
	pf_policy_unref(t->policy);
	t->policy = p;
	resume_forget();
	/* Connections that stay have it still, and a ticket that comes on one of them is of the old policy.
	 */
	if (t->upstream)
		SSL_CTX_sess_set_new_cb(t->upstream, NULL);
	SSL_CTX_free(t->upstream);
	t->upstream = NULL;
	return 0;
}

static int set_up(struct tls *t, const cJSON *msg, int fd, struct pf_err *err)
{
	const cJSON *lifetime = cJSON_GetObjectItemCaseSensitive(msg, "lifetime");
	PF_FREE char *pem = NULL;

	if (load(t, fd, true, err) < 0)
		return -1;
	char **names = pf_policy_ca_names(t->policy);
	int r = tls_ca_make(
		names, cJSON_IsNumber(lifetime) ? (int64_t)lifetime->valuedouble : 86400, &pem, err);
	pf_strv_free(names);
	if (r < 0 || secret_recall(t, err) < 0 || make_server(t, err) < 0)
		return -1;
	say(t, "ca", "pem", pem);
	return 0;
}

static void on_message(struct tls *t, const cJSON *msg, const char *tail, size_t tail_len, int fds[2])
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "op"));
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "name"));
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(msg, "id");
	struct pf_err err = PF_ERR_INIT;
	int r = 0;

	if (op && strcmp(op, "conn") == 0 && t->policy) {
		conn_open(t, msg, tail, tail_len, fds[0], fds[1]);
		return;
	}
	if (op && strcmp(op, "drop") == 0 && cJSON_IsNumber(id))
		conn_drop(t, (int64_t)id->valuedouble);
	else if (op && strcmp(op, "setup") == 0 && !t->policy)
		r = set_up(t, msg, pf_take_fd(&fds[0]), &err);
	else if (op && strcmp(op, "policy") == 0)
		r = load(t, pf_take_fd(&fds[0]), false, &err);
	else if (op && strcmp(op, "rest") == 0 && t->policy && vault_is_there())
		_exit(0);
	else if (op && strcmp(op, "secret") == 0 && name && fds[0] >= 0)
		r = secret_take(t, name, pf_take_fd(&fds[0]), &err);
	for (size_t i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (r < 0)
		say(t, "error", "text", err.msg);
}

static void on_link(struct pf_src *src, uint32_t events)
{
	struct tls *t = (struct tls *)(void *)((char *)src - offsetof(struct tls, link));

	(void)events;
	for (int i = 0; i < 64; i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *text = NULL;
		const char *tail;
		size_t len;
		int fds[PF_TLSLINK_FDS];
		PF_JSON cJSON *msg = pf_tlslink_recv(src->fd, &text, &tail, &len, fds, &err);
		if (!msg && err.errnum == EAGAIN)
			return;
		if (!msg)
			_exit(err.errnum ? 1 : 0);
		on_message(t, msg, tail, len, fds);
	}
}

/* ---- confinement */

static int confine(uid_t uid, struct pf_err *err)
{
	static const char *const more[] = {"open", "openat", "openat2", "creat", "socket", "connect", "bind",
		"listen", "accept", "accept4", "kill", "tkill", "pidfd_send_signal", "pidfd_open", "unlink",
		"unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
		"mkdir", "mkdirat", "chmod", "fchmodat", "chown", "fchownat", "clone", "clone3", "prlimit64",
		"setrlimit", NULL};
	const struct rlimit no_core = {0};
	struct rlimit data;
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_max > DATA_MAX) {
		data.rlim_cur = data.rlim_max = DATA_MAX;
		(void)setrlimit(RLIMIT_DATA, &data);
	}
	if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "confine pinfold-tls");
	if (uid && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
		return pf_fail(err, errno, "become user %u", uid);
	/* Changing the user resets both of these. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return pf_fail(err, errno, "confine pinfold-tls");
	if (pf_confine_files(NULL, NULL, NULL, NULL, err) < 0)
		return -1;
	return pf_confine_filter(more, err);
}

int main(int argc, char **argv)
{
	struct tls t = {.link = {.fd = LINK, .fn = on_link}, .host_store = -1, .retry = {.fn = on_retry}};
	struct pf_err err = PF_ERR_INIT;
	int64_t uid = 0;

	if (argc != 2 || pf_parse_int("user id", argv[1], 0, UINT32_MAX - 1, &uid, &err) < 0) {
		fputs("pinfold-tls is started by pinfold's keeper\n", stderr);
		return 125;
	}
	signal(SIGPIPE, SIG_IGN);
	/* Before anything is opened: where there is none its descriptor is the next one free. */
	bool vault_lost = vault_open(&err) < 0;
	for (size_t i = 0; host_stores[i] && t.host_store < 0; i++)
		t.host_store = open(host_stores[i], O_RDONLY | O_CLOEXEC);
	/* Locked as root or within the limit; without locked memory there is no place for a secret. */
	bool locked = CRYPTO_secure_malloc_init(SECURE_HEAP, 32) == 1;
	int flags = fcntl(LINK, F_GETFL);
	if (flags < 0 || fcntl(LINK, F_SETFL, flags | O_NONBLOCK) < 0 || pf_set_cloexec(LINK, true) < 0)
		return 125;
	if (vault_lost || !OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS, NULL) || !locked ||
		confine((uid_t)uid, &err) < 0 || pf_loop_init(&t.loop, &err) < 0 ||
		pf_loop_add(&t.loop, &t.link, EPOLLIN) < 0) {
		say(&t, "error", "text", *err.msg ? err.msg : "OpenSSL, or its locked memory, cannot be had");
		return 125;
	}
	for (;;)
		pf_loop_step(&t.loop, on_idle, &t);
}
