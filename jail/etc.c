/* The synthetic /etc: what programs need of the host's, and the caller alone in passwd and group.
 *
 * Copying it takes some milliseconds, so it is kept in the caller's cache, named by the state of the host's
 * files, by what is written here, and by the boot: nothing is synced, and what a power cut left half-written
 * is never used again. Directories of earlier boots are removed when a new one is made; one of this boot may
 * be in use. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/jail.h"
#include "overlay/host.h"

/* Any address would do: the gate answers all DNS of its namespace. */
#define NAMESERVER "198.18.0.1"

int pf_jail_fill_etc(const struct pf_jail *j, int dirfd, struct pf_err *err)
{
	const char *name = j->user_name;
	PF_FREE char *passwd = pf_asprintf(
		"%s%s:x:%u:%u:%s:%s:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		j->uid ? "root:x:0:0:root:/root:/usr/sbin/nologin\n" : "", name, j->uid, j->gid, name,
		j->home);
	PF_FREE char *group = pf_asprintf("%s%s:x:%u:\n%snogroup:x:65534:\n", j->gid ? "root:x:0:\n" : "",
		name, j->gid, j->gid == 5 ? "" : "tty:x:5:\n");
	PF_FREE char *hosts = pf_asprintf(
		"127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", j->hostname);
	PF_FREE char *hostname = pf_asprintf("%s\n", j->hostname);
	const struct {
		const char *name, *text;
	} files[] = {{"passwd", passwd}, {"group", group}, {"hosts", hosts}, {"hostname", hostname},
		{"resolv.conf", "nameserver " NAMESERVER "\noptions timeout:5 attempts:2\n"},
		{"nsswitch.conf",
			"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
			"protocols: files\nservices: files\n"},
		{"profile", "[ -z \"$BASH\" ] || [ ! -r /etc/bash.bashrc ] || . /etc/bash.bashrc\n"}};

	if (pf_host_etc_fill(dirfd, err) < 0)
		return pf_wrap(err, "/etc");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (pf_replace_file_at(
			    dirfd, files[i].name, files[i].text, strlen(files[i].text), 0644, false, err) < 0)
			return pf_wrap(err, "/etc");
	return 0;
}

int pf_jail_cache_dir(char **path)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *run = getenv("XDG_RUNTIME_DIR");
	struct pf_err ignored = PF_ERR_INIT;
	struct stat st;

	if (run && run[0] == '/' && access(run, W_OK) == 0)
		*path = pf_asprintf("%s/pinfold", run);
	else if (base && base[0] == '/')
		*path = pf_asprintf("%s/pinfold", base);
	else if (home && home[0] == '/')
		*path = pf_asprintf("%s/.cache/pinfold", home);
	else
		return -1;
	int fd = open(*path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && pf_mkdirs(*path, 0700, &ignored) == 0)
		fd = open(*path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Nobody else may have put anything there. */
	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 022))) {
		close(fd);
		fd = -1;
	}
	if (fd < 0) {
		free(*path);
		*path = NULL;
	}
	return fd;
}

static uint64_t hash(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 1099511628211u;
	return (h ^ 0xff) * 1099511628211u;
}

static void remove_old(int dir, const char *boot)
{
	PF_CLOSEDIR DIR *d = fdopendir(fcntl(dir, F_DUPFD_CLOEXEC, 3));
	struct pf_err ignored = PF_ERR_INIT;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (pf_starts_with(e->d_name, "etc-") && strncmp(e->d_name + 4, boot, 8) != 0)
			(void)pf_rm_rf_at(dir, e->d_name, &ignored);
}

static int build(const struct pf_jail *j, int dir, const char *name, struct pf_err *err)
{
	PF_FREE char *tmp = pf_asprintf("%s.%d.tmp", name, (int)getpid());
	struct pf_err ignored = PF_ERR_INIT;
	int r = -1;

	if (mkdirat(dir, tmp, 0755) < 0)
		return pf_fail(err, errno, "mkdir %s", tmp);
	PF_CLOSE int fd = openat(dir, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		pf_fail(err, errno, "%s", tmp);
	else if (pf_jail_fill_etc(j, fd, err) == 0)
		r = 0;
	/* Somebody else may have made it meanwhile: one is as good as the other. */
	if (r < 0 || renameat(dir, tmp, dir, name) < 0)
		(void)pf_rm_rf_at(dir, tmp, &ignored);
	return r;
}

int pf_jail_cached_etc(const struct pf_jail *j, char **path, struct pf_err *err)
{
	PF_FREE char *cache = NULL, *boot = NULL, *version = NULL, *name = NULL;
	struct pf_err ignored = PF_ERR_INIT;
	struct stat st;

	*path = NULL;
	PF_CLOSE int dir = pf_jail_cache_dir(&cache);
	if (dir < 0 ||
		pf_read_pseudo_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot, &ignored) < 0 ||
		strlen(boot) < 8)
		return 0;
	version = pf_host_etc_version(err);
	if (!version)
		return -1;
	uint64_t h = hash(hash(hash(14695981039346656037u, j->user_name), j->home), j->hostname);
	name = pf_asprintf("etc-%.8s-%s-%016llx-%u-%u", boot, version, (unsigned long long)h, j->uid, j->gid);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		remove_old(dir, boot);
		if (build(j, dir, name, err) < 0)
			return -1;
	}
	*path = pf_asprintf("%s/%s", cache, name);
	return 0;
}
