/* Theory of operation: a thread of its own looks at the counts, so that those who count need not know the
 * time. It is told to end by a condition variable, at once. */
#include "cmd/pinfold-store/progress.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/progress.h"

#define FIRST_MS 500
#define EVERY_MS 200

static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int fd;
	const char *what;
	bool running, stop;
} show = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .fd = -1};

static void print(int64_t begin_us)
{
	char text[100], line[200];
	int n = snprintf(line, sizeof(line), "\r\033[K%s: %s", show.what,
		pf_progress_format(pf_progress_now(), pf_now_us() - begin_us, text, sizeof(text)));

	if (n > 0)
		(void)pf_write_all(show.fd, line, (size_t)n);
}

static void *run(void *arg)
{
	const int64_t begin = pf_now_us();
	struct timespec until;
	int64_t ms = FIRST_MS;
	bool shown = false;

	(void)pthread_mutex_lock(&show.lock);
	while (!show.stop) {
		clock_gettime(CLOCK_REALTIME, &until);
		int64_t ns = until.tv_nsec + ms * 1000000;
		until.tv_sec += ns / 1000000000;
		until.tv_nsec = ns % 1000000000;
		(void)pthread_cond_timedwait(&show.wake, &show.lock, &until);
		if (show.stop || pf_now_us() - begin < (int64_t)FIRST_MS * 1000)
			continue;
		ms = EVERY_MS;
		shown = true;
		print(begin);
	}
	(void)pthread_mutex_unlock(&show.lock);
	if (shown)
		(void)pf_write_all(show.fd, "\r\033[K", 4);
	return arg;
}

void pf_show_begin(int fd, const char *what)
{
	if (show.running || fd < 0 || isatty(fd) != 1)
		return;
	show.fd = fd;
	show.what = what;
	show.stop = false;
	show.running = pthread_create(&show.thread, NULL, run, NULL) == 0;
}

void pf_show_end(void)
{
	if (!show.running)
		return;
	(void)pthread_mutex_lock(&show.lock);
	show.stop = true;
	(void)pthread_cond_signal(&show.wake);
	(void)pthread_mutex_unlock(&show.lock);
	(void)pthread_join(show.thread, NULL);
	show.running = false;
}
