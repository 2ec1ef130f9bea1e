/* Theory of operation.
 *
 * A sandbox with an authority of its own sees, in place of the bundle of certificates that its image has,
 * that bundle with one more certificate. It is a file beside the sandbox's others, bound read-only over the
 * known places: neither the image nor the workspace changes, and a checkpoint does not hold it. Programs that
 * bring certificates of their own (Node, Python's certifi) are told by the environment. */
#include "session/trust.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"

#define BUNDLE_MAX ((size_t)8 << 20)

/* Debian, Ubuntu, Alpine, Arch; Fedora and RHEL; older RHEL, and what links to it; SUSE; OpenSSL's own. */
static const char *const places[] = {"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", NULL};

static const char *const env[] = {"SSL_CERT_FILE=" PF_TRUST_PATH, "NODE_EXTRA_CA_CERTS=" PF_TRUST_PATH,
	"REQUESTS_CA_BUNDLE=" PF_TRUST_PATH, "GIT_SSL_CAINFO=" PF_TRUST_PATH, "CURL_CA_BUNDLE=" PF_TRUST_PATH,
	"PIP_CERT=" PF_TRUST_PATH, NULL};

const char *const *pf_trust_env(void)
{
	return env;
}

/* The topmost layer that has the file; its descriptor, and whether it is a link there. */
static int open_in_layers(char *const *lowers, const char *path, bool *is_link)
{
	for (; *lowers; lowers++) {
		PF_CLOSE int layer = open(*lowers, O_PATH | O_DIRECTORY | O_CLOEXEC);
		struct stat st;
		if (layer < 0)
			continue;
		PF_CLOSE int there = pf_open_in_root(layer, path, O_PATH | O_NOFOLLOW, 0);
		if (there < 0 || fstat(there, &st) < 0)
			continue;
		*is_link = S_ISLNK(st.st_mode);
		PF_CLOSE int fd = pf_open_in_root(layer, path, O_RDONLY | O_NONBLOCK, 0);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			return pf_take_fd(&fd);
		return -1;
	}
	return -1;
}

char **pf_trust_targets(char *const *lowers)
{
	char **v = pf_calloc(sizeof(places) / sizeof(*places) + 1, sizeof(*v));
	size_t n = 0;

	v[n++] = pf_strdup(PF_TRUST_PATH);
	for (size_t i = 0; places[i]; i++) {
		bool link = false;
		PF_CLOSE int fd = open_in_layers(lowers, places[i], &link);
		/* What a link leads to is another of these places. */
		if (fd >= 0 && !link)
			v[n++] = pf_strdup(places[i]);
	}
	return v;
}

static void read_bundle(int fd, struct pf_buf *b)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || (size_t)st.st_size > BUNDLE_MAX)
		return;
	PF_FREE char *data = pf_calloc(1, (size_t)st.st_size);
	ssize_t n = pf_read_full(fd, data, (size_t)st.st_size);
	if (n > 0)
		pf_buf_add(b, data, (size_t)n);
	if (b->len && b->data[b->len - 1] != '\n')
		pf_buf_str(b, "\n");
}

int pf_trust_write(int dirfd, char *const *lowers, const char *ca, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};

	for (size_t i = 0; places[i] && !b.len; i++) {
		bool link;
		PF_CLOSE int fd = open_in_layers(lowers, places[i], &link);
		if (fd >= 0)
			read_bundle(fd, &b);
	}
	for (size_t i = 0; places[i] && !b.len; i++) {
		PF_CLOSE int fd = open(places[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			read_bundle(fd, &b);
	}
	pf_buf_str(&b, ca);
	return pf_replace_file_at(dirfd, PF_TRUST_FILE, b.data, b.len, 0644, false, err);
}
