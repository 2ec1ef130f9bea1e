/* Speaks with systemd for --systemd-cgroup (sandbox/systemd.h). A program of its own, so that only who asks
 * for that loads the bus library.
 *
 *   pinfold-systemd start UNIT SLICE ID PID [TYPE NAME VALUE]...   a delegated scope around PID
 *   pinfold-systemd set UNIT [TYPE NAME VALUE]...                  other properties, until the next boot
 *   pinfold-systemd stop UNIT                                      and forget it; one that is gone is fine
 *
 * TYPE is t (a number), b (0 or 1), s (text) or y (bytes in hexadecimal). Errors are a line on standard
 * error, and status 1. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#define SERVICE "org.freedesktop.systemd1"
#define OBJECT "/org/freedesktop/systemd1"
#define MANAGER "org.freedesktop.systemd1.Manager"
#define TIMEOUT_S 60

/* A job that systemd has been given, until it says that it is done with it. */
struct job {
	char path[200];
	char result[40]; /* "" meanwhile */
};

static int say(const char *what, int r, const sd_bus_error *e)
{
	if (e && e->message)
		fprintf(stderr, "%s: %s\n", what, e->message);
	else
		fprintf(stderr, "%s: %s\n", what, strerrordesc_np(-r));
	return -1;
}

/* The system's bus, or the user's own one; where there is none, systemd's own socket. */
static int connect_bus(sd_bus **bus)
{
	int r = geteuid() == 0 ? sd_bus_open_system(bus) : sd_bus_open_user(bus);

	const char *run = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
	if (r < 0 && run && run[0] == '/') {
		char *address;
		if (asprintf(&address, "unix:path=%s/systemd/private", run) < 0 || sd_bus_new(bus) < 0)
			return say("bus", r, NULL);
		r = sd_bus_set_address(*bus, address);
		free(address);
		if (r >= 0)
			r = sd_bus_start(*bus);
	}
	return r < 0 ? say("connect to systemd's bus", r, NULL) : 0;
}

/* ---- properties ---- */

static int append_bytes(sd_bus_message *m, const char *hex)
{
	size_t n = strlen(hex) / 2;
	uint8_t *bytes = calloc(n + 1, 1);
	int r;

	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
		bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	r = sd_bus_message_open_container(m, 'v', "ay");
	if (r >= 0)
		r = sd_bus_message_append_array(m, 'y', bytes, n);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	free(bytes);
	return r;
}

static int append_property(sd_bus_message *m, const char *type, const char *name, const char *value)
{
	int r = sd_bus_message_open_container(m, 'r', "sv");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", name);
	if (r >= 0) {
		if (strcmp(type, "t") == 0)
			r = sd_bus_message_append(m, "v", "t", (uint64_t)strtoull(value, NULL, 10));
		else if (strcmp(type, "b") == 0)
			r = sd_bus_message_append(m, "v", "b", value[0] == '1');
		else if (strcmp(type, "s") == 0)
			r = sd_bus_message_append(m, "v", "s", value);
		else if (strcmp(type, "y") == 0)
			r = append_bytes(m, value);
		else
			r = -EINVAL;
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_properties(sd_bus_message *m, char **list)
{
	int r = 0;

	for (; r >= 0 && list[0]; list += 3)
		r = list[1] && list[2] ? append_property(m, list[0], list[1], list[2]) : -EINVAL;
	return r;
}

/* ---- jobs ---- */

static int on_job_removed(sd_bus_message *m, void *arg, sd_bus_error *ignored)
{
	struct job *job = arg;
	const char *path, *unit, *result;
	uint32_t id;

	(void)ignored;
	if (sd_bus_message_read(m, "uoss", &id, &path, &unit, &result) >= 0 && strcmp(path, job->path) == 0)
		snprintf(job->result, sizeof(job->result), "%s", result);
	return 0;
}

static int watch_jobs(sd_bus *bus, struct job *job)
{
	sd_bus_error e = SD_BUS_ERROR_NULL;
	int r = sd_bus_match_signal(bus, NULL, SERVICE, OBJECT, MANAGER, "JobRemoved", on_job_removed, job);

	if (r >= 0)
		r = sd_bus_call_method(bus, SERVICE, OBJECT, MANAGER, "Subscribe", &e, NULL, NULL);
	/* Somebody has done so on this very connection: then it holds. */
	if (r < 0 && sd_bus_error_has_name(&e, "org.freedesktop.systemd1.AlreadySubscribed"))
		r = 0;
	if (r < 0)
		(void)say("subscribe to systemd's signals", r, &e);
	sd_bus_error_free(&e);
	return r;
}

/* The signal may come before the answer that names the job, so that what came is looked through again: it is
 * queued until somebody processes the bus. */
static int wait_for_job(sd_bus *bus, const struct job *job, const char *what)
{
	struct timespec now;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	time_t end = now.tv_sec + TIMEOUT_S;
	while (!*job->result && now.tv_sec < end) {
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, UINT64_C(1000000));
		if (r < 0 && r != -EINTR)
			return say(what, r, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	if (!*job->result)
		return say(what, -ETIMEDOUT, NULL);
	if (strcmp(job->result, "done") != 0) {
		fprintf(stderr, "%s: systemd says: %s\n", what, job->result);
		return -1;
	}
	return 0;
}

static int take_job(sd_bus_message *reply, struct job *job)
{
	const char *path;
	int r = sd_bus_message_read(reply, "o", &path);

	if (r >= 0)
		snprintf(job->path, sizeof(job->path), "%s", path);
	return r;
}

/* ---- verbs ---- */

static int fill_start(sd_bus_message *m, char **argv)
{
	char description[200];
	uint32_t pid = (uint32_t)strtoul(argv[3], NULL, 10);
	char *fixed[] = {(char *)"s", (char *)"Description", description, (char *)"s", (char *)"Slice",
		argv[1], (char *)"b", (char *)"Delegate", (char *)"1", (char *)"b",
		(char *)"DefaultDependencies", (char *)"0", (char *)"b", (char *)"MemoryAccounting",
		(char *)"1", (char *)"b", (char *)"CPUAccounting", (char *)"1", (char *)"b",
		(char *)"IOAccounting", (char *)"1", (char *)"b", (char *)"TasksAccounting", (char *)"1",
		(char *)"s", (char *)"CollectMode", (char *)"inactive-or-failed", NULL};
	int r;

	snprintf(description, sizeof(description), "pinfold container %s", argv[2]);
	r = sd_bus_message_append(m, "ss", argv[0], "fail");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	if (r >= 0)
		r = append_properties(m, fixed);
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)", "PIDs", "au", 1, pid);
	if (r >= 0)
		r = append_properties(m, argv + 4);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_append(m, "a(sa(sv))", 0);
}

static int call(sd_bus *bus, sd_bus_message *m, struct job *job, const char *what, sd_bus_error *e)
{
	sd_bus_message *reply = NULL;
	int r = sd_bus_call(bus, m, (uint64_t)TIMEOUT_S * 1000000, e, &reply);

	if (r >= 0 && job)
		r = take_job(reply, job);
	if (r < 0)
		(void)say(what, r, e);
	sd_bus_message_unref(reply);
	return r;
}

static int start(sd_bus *bus, char **argv)
{
	struct job job = {.path = ""};
	sd_bus_message *m = NULL;
	sd_bus_error e = SD_BUS_ERROR_NULL;
	char what[300];
	int r;

	snprintf(what, sizeof(what), "start %.255s", argv[0]);
	if (watch_jobs(bus, &job) < 0)
		return -1;
	r = sd_bus_message_new_method_call(bus, &m, SERVICE, OBJECT, MANAGER, "StartTransientUnit");
	if (r >= 0)
		r = fill_start(m, argv);
	r = r < 0 ? say(what, r, NULL) : call(bus, m, &job, what, &e);
	if (r >= 0)
		r = wait_for_job(bus, &job, what);
	sd_bus_error_free(&e);
	sd_bus_message_unref(m);
	return r;
}

static int set(sd_bus *bus, char **argv)
{
	sd_bus_message *m = NULL;
	sd_bus_error e = SD_BUS_ERROR_NULL;
	char what[300];
	int r;

	snprintf(what, sizeof(what), "change %.255s", argv[0]);
	r = sd_bus_message_new_method_call(bus, &m, SERVICE, OBJECT, MANAGER, "SetUnitProperties");
	if (r >= 0)
		r = sd_bus_message_append(m, "sb", argv[0], 1);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	if (r >= 0)
		r = append_properties(m, argv + 1);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	r = r < 0 ? say(what, r, NULL) : call(bus, m, NULL, what, &e);
	sd_bus_error_free(&e);
	sd_bus_message_unref(m);
	return r;
}

static int stop(sd_bus *bus, char **argv)
{
	struct job job = {.path = ""};
	sd_bus_message *reply = NULL;
	sd_bus_error e = SD_BUS_ERROR_NULL;
	char what[300];
	int r;

	snprintf(what, sizeof(what), "stop %.255s", argv[0]);
	if (watch_jobs(bus, &job) < 0)
		return -1;
	r = sd_bus_call_method(
		bus, SERVICE, OBJECT, MANAGER, "StopUnit", &e, &reply, "ss", argv[0], "replace");
	if (r < 0 && sd_bus_error_has_name(&e, "org.freedesktop.systemd1.NoSuchUnit"))
		r = 0;
	else if (r < 0)
		(void)say(what, r, &e);
	else
		r = take_job(reply, &job) < 0 ? -1 : wait_for_job(bus, &job, what);
	sd_bus_error_free(&e);
	sd_bus_message_unref(reply);
	return r;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int min;
		int (*run)(sd_bus *bus, char **argv);
	} verbs[] = {{"start", 4, start}, {"set", 1, set}, {"stop", 1, stop}};
	sd_bus *bus = NULL;
	int r = -1;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (argc < 2 || strcmp(argv[1], verbs[i].name) != 0 || argc < 2 + verbs[i].min)
			continue;
		if (connect_bus(&bus) == 0)
			r = verbs[i].run(bus, argv + 2);
		sd_bus_flush_close_unref(bus);
		return r < 0;
	}
	fprintf(stderr, "pinfold-systemd: is started by pinfold --systemd-cgroup\n");
	return 2;
}
