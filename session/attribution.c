#include "session/attribution.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"

#define NAMES 4

static char *names_in(int leaf)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *procs = NULL;
	PF_BUF struct pf_buf b = {0};
	char seen[NAMES][32], *rest;
	size_t n = 0;

	if (pf_read_pseudo_at(leaf, "cgroup.procs", 65536, &procs, &ignored) < 0)
		return NULL;
	for (char *pid = strtok_r(procs, "\n", &rest); pid && n < NAMES; pid = strtok_r(NULL, "\n", &rest)) {
		PF_FREE char *path = pf_asprintf("/proc/%s/comm", pid), *comm = NULL;
		bool again = false;
		if (pf_read_pseudo_at(AT_FDCWD, path, 64, &comm, &ignored) < 0)
			continue;
		comm[strcspn(comm, "\n")] = '\0';
		for (size_t i = 0; i < n; i++)
			again = again || strcmp(seen[i], comm) == 0;
		if (again)
			continue;
		snprintf(seen[n++], sizeof(seen[0]), "%s", comm);
		pf_buf_printf(&b, "%s%s", b.len ? "," : "", comm);
	}
	/* The payload chose these bytes. */
	for (size_t i = 0; i < b.len; i++)
		if (b.data[i] < ' ' || b.data[i] > '~')
			b.data[i] = '?';
	return pf_take(b.data);
}

void pf_attribute(int cgroup_fd, uint64_t cgroup_id, char **exec, char **process)
{
	int fd = openat(cgroup_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	*exec = *process = NULL;
	/* A cgroup's id is its directory's inode number. */
	while (d && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_ino == cgroup_id && e->d_name[0] != '.') {
			PF_CLOSE int leaf = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			*exec = pf_strdup(e->d_name);
			if (leaf >= 0)
				*process = names_in(leaf);
			return;
		}
}
