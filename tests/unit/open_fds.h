/* How many descriptors this process has open: to tell that something has left none. */
#ifndef PF_TESTS_OPEN_FDS_H
#define PF_TESTS_OPEN_FDS_H

#include <dirent.h>
#include <stddef.h>

static size_t open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#endif
