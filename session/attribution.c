#include "session/attribution.h"

#include <ctype.h>
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
/* Processes that are looked at, the youngest: who floods the sandbox with them does not stop the gate. */
#define LOOKS 256

/* The youngest processes, in order; how many. */
static size_t processes(int proc, int pids[LOOKS])
{
	int fd = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	int ring[LOOKS];
	size_t seen = 0;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]))
			ring[seen++ % LOOKS] = atoi(e->d_name);
	size_t n = seen < LOOKS ? seen : LOOKS;
	for (size_t i = 0; i < n; i++)
		pids[i] = ring[(seen - n + i) % LOOKS];
	return n;
}

/* Its control group of v2 is told by its path, the last part of which the leaf is. */
static bool is_in(int proc, int pid, const char *leaf)
{
	PF_FREE char *path = pf_asprintf("%d/cgroup", pid), *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_read_pseudo_at(proc, path, 8192, &text, &ignored) < 0)
		return false;
	char *v2 = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	char *line = v2 ? v2 + (*v2 == '\n') : NULL;
	if (!line)
		return false;
	line[strcspn(line, "\n")] = '\0';
	const char *last = strrchr(line, '/');
	return last && strcmp(last + 1, leaf) == 0;
}

static char *names_in(int proc, const char *leaf)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_BUF struct pf_buf b = {0};
	char seen[NAMES][32];
	int pids[LOOKS];
	size_t n = 0, n_pids = processes(proc, pids);

	for (size_t i = 0; i < n_pids && n < NAMES; i++) {
		PF_FREE char *path = pf_asprintf("%d/comm", pids[i]), *comm = NULL;
		bool again = false;
		if (!is_in(proc, pids[i], leaf) || pf_read_pseudo_at(proc, path, 64, &comm, &ignored) < 0)
			continue;
		comm[strcspn(comm, "\n")] = '\0';
		for (size_t k = 0; k < n; k++)
			again = again || strcmp(seen[k], comm) == 0;
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

void pf_attribute(const char *cgroup, const char *proc, uint64_t cgroup_id, char **exec, char **process)
{
	PF_CLOSEDIR DIR *d = opendir(cgroup);
	struct dirent *e;

	*exec = *process = NULL;
	/* A cgroup's id is its directory's inode number. */
	while (d && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_ino == cgroup_id && e->d_name[0] != '.') {
			PF_CLOSE int fd = open(proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			*exec = pf_strdup(e->d_name);
			if (fd >= 0)
				*process = names_in(fd, *exec);
			return;
		}
}
