/* The audit log on a disk that is full: a line that was cut takes no later one with it (parallel-safe). */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "session/audit.h"

static int say(int fd, const char *event, struct pf_err *err)
{
	cJSON *fields = cJSON_CreateObject();

	cJSON_AddStringToObject(fields, "text", "some words to fill the line with");
	return pf_audit_write(fd, event, fields, err);
}

static void a_cut_line_takes_no_other_along(void **state)
{
	char path[] = "/tmp/pinfold-audit.XXXXXX";
	const struct pf_dirs d = {.root = path, .store = path};
	struct pf_err err = PF_ERR_INIT;
	struct rlimit was, small;
	struct stat st;
	size_t len, torn = 0;
	(void)state;

	assert_non_null(mkdtemp(path));
	PF_CLOSE int fd = pf_audit_open(&d, "box", &err);
	assert_true(fd >= 0);
	assert_int_equal(say(fd, "first", &err), 0);
	assert_int_equal(fstat(fd, &st), 0);
	/* Half a line fits. */
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small = was;
	small.rlim_cur = (rlim_t)(st.st_size + 40);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int lost = say(fd, "lost", &err), again = say(fd, "again", &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(lost, -1);
	assert_int_equal(again, -1);
	assert_int_equal(say(fd, "second", &err), 0);
	assert_int_equal(say(fd, "third", &err), 0);

	PF_FREE char *file = NULL, *text = NULL, *events = calloc(1, 1000);
	assert_true(asprintf(&file, "%s/logs/box.jsonl", path) > 0);
	assert_int_equal(pf_read_file_at(AT_FDCWD, file, 10000, &text, &len, &err), 0);
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		struct pf_err e = PF_ERR_INIT;
		*end = '\0';
		PF_JSON cJSON *j = pf_json_parse("line", line, strlen(line), &e);
		torn += !j;
		if (j)
			strcat(strcat(events, " "),
				cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "event")));
	}
	assert_string_equal(events, " first second third");
	assert_true(torn > 0);
	assert_int_equal(pf_rm_rf_at(AT_FDCWD, path, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_cut_line_takes_no_other_along)};

	return cmocka_run_group_tests_name("audit log", tests, NULL, NULL);
}
